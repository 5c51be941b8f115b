"""The vectors that a command works on: those in a folder, or those of a data folder, extracted where there are none."""

import sys
from dataclasses import replace
from pathlib import Path

from embeddings.config import Extract
from embeddings.encoding import choose_encoder, make_source
from embeddings.extract import default_folder, extract
from embeddings.vectors import Vectors, read_config
from pretrain.command import Names, UserError
from pretrain.data.dataset import choose_folder
from pretrain.data.images import LayoutName
from pretrain.demo import is_demo


def open_vectors(
    folder: Path | None,
    data: Path | None = None,
    encoder: Path | None = None,
    update: bool = False,
    device: str = "auto",
    layout: LayoutName | None = None,
) -> Vectors:
    """One vector per image: those in `folder`, else those of the images in `data` by `encoder` in their default folder.
    They are extracted on a device if there are none yet, which stderr says, or to bring them up to date."""
    if folder is not None:
        if data is not None or layout is not None:
            typed = "--data" if data is not None else "--layout"
            raise UserError(f"--vectors says already which data they are of, and how laid out: leave out {typed}.")
        if update:
            extract(replace(extraction_of(folder, encoder), device=device))
    else:
        data = choose_folder(data)
        chosen, path = choose_encoder(encoder, 0, is_demo(data))
        folder = default_folder(data, make_source(chosen, "pooled"), layout=layout)
        if update or not (folder / "finished").exists():
            if not update:
                print(f"no vectors of {data} by {path} yet: extracting them", file=sys.stderr, flush=True)
            extract(Extract(data=data, layout=layout, encoder=path, out=folder, device=device))
    vectors = Vectors(folder)
    if vectors.per_image > 1:
        raise UserError(f"{folder} holds vectors of patches: give those of whole images, --form pooled.")
    return vectors


def extraction_of(folder: Path, encoder: Path | None = None) -> Extract:
    """The options that the vectors in `folder` were extracted with."""
    config = read_config(folder)
    source = config["source"]
    return Extract(
        data=Path(config.get("manifest") or config["data"]),
        layout=config.get("layout"),  # none in folders of before 0.1
        encoder=encoder or Path(config["encoder_file"]),
        categories=Names(config["categories"]),
        out=folder,
        form=source["form"],
        levels=Names(source["levels"]),
        size_px=source["size_px"],
        grid=source["grid"],
        dimensions=source["dimensions"],
        precision=source["precision"],
        seed=config["seed"],
        part_images=config.get("part_images") or Extract.part_images,
    )
