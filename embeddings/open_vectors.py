"""Vectors ready for use: as they were extracted, or extracted now, which is said."""

import sys
from pathlib import Path

from embeddings.encoding import choose_encoder, make_source
from embeddings.extract import Config, extract, usual_folder
from embeddings.vectors import Vectors, read_config
from pretrain.command import Names, UserError
from pretrain.data.dataset import choose_folder
from pretrain.demo import is_demo


def ready_vectors(
    folder: Path | None, data: Path | None = None, encoder: Path | None = None, update: bool = False
) -> Vectors:
    """One vector an image: those in `folder`, else those of a data folder by an encoder, where they usually are. They
    are extracted if there are none yet, or if they are to be brought up to date."""
    if folder is not None:
        if data is not None:
            raise UserError("--vectors says already which data they are of: leave out --data.")
        if update:
            extract(extraction_of(folder, encoder))
        vectors = Vectors(folder)
    else:
        data = choose_folder(data)
        chosen, path = choose_encoder(encoder, 0, is_demo(data))
        folder = usual_folder(data, make_source(chosen, "pooled"))
        if update or not (folder / "finished").exists():
            if not update:
                print(f"no vectors of {data} by {path} yet: extracting them", file=sys.stderr, flush=True)
            extract(Config(data=data, encoder=path, out=folder))
        vectors = Vectors(folder)
    if vectors.cells > 1:
        raise UserError(f"{folder} holds vectors of patches: give those of whole images, --form pooled.")
    return vectors


def extraction_of(folder: Path, encoder: Path | None = None) -> Config:
    """The configuration that the vectors in `folder` were extracted with."""
    config = read_config(folder)
    source = config["source"]
    return Config(
        data=Path(config["data"]),
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
    )
