"""Images to vectors on disk: one an image, or one a patch, with ids, paths, labels and the encoder's fingerprint.

    python embeddings/extract.py                                              # demo data, the usual encoder
    python embeddings/extract.py --data FOLDER --encoder runs/simclr/encoder.safetensors
    python embeddings/extract.py --data FOLDER --form patches --levels level2,level3 --grid 28
    torchrun --nproc-per-node 2 embeddings/extract.py --data FOLDER           # each process writes a shard

FOLDER is laid out by category and split, or any folder of images. The same command again goes on where it was
stopped, adds what is new or has changed, and forgets what is gone; other options into the same folder are refused.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from embeddings.extract import Config, main
    from pretrain.command import run_command

    sys.exit(run_command(main, Config))

import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pretrain.command import Names, UserError

if TYPE_CHECKING:
    import numpy as np
    from lightning_fabric import Fabric

    from embeddings.encoding import Encoding, Source
    from pretrain.data.dataset import ImageSet
    from pretrain.encoder import Encoder


@dataclass(frozen=True)
class Config:
    """Turn a folder of images into vectors on disk; memory does not grow with the number of images.

    Attributes:
        data: Folder of images. Default is data/mvtec where it exists, else demo data.
        encoder: Encoder file, or random. Default is runs/simclr/encoder.safetensors where it may be used, else random.
        categories: Only these categories.
        out: Folder of the vectors. Default is runs/vectors/ and a name from the data and the encoder.
        form: One vector an image, or one a patch.
        levels: Feature levels. Default is level4 for pooled, level2,level3 for patches.
        size_px: Side of the square that images are stretched to. Default is what the encoder was trained at.
        grid: At most so many patches a side. Default is all of the shallowest level.
        dimensions: So many dimensions of a patch, drawn at random. Default is all.
        batch: Images that are encoded at once.
        precision: bf16-mixed or 32-true. Default is bf16 where it is quick and changes nothing that matters.
        seed: Draws the dimensions, and the weights of a random encoder.
        device: cpu, cuda, or auto for a GPU where there is one.
        workers: Processes that decode. Default is one per core.
    """

    data: Path | None = None
    encoder: Path | None = None
    categories: Names = Names()
    out: Path | None = None
    form: Literal["pooled", "patches"] = "pooled"
    levels: Names = Names()
    size_px: int | None = None
    grid: int | None = None
    dimensions: int | None = None
    batch: int = 32
    precision: Literal["bf16-mixed", "32-true"] | None = None
    seed: int = 0
    device: str = "auto"
    workers: int | None = None


def main(config: Config) -> None:
    """Extract, and say what there is."""
    out = extract(config)
    if int(os.environ.get("RANK", 0)) == 0:
        from embeddings.vectors import Vectors

        vectors = Vectors(out)
        per_image = f" of {vectors.grid[0]} x {vectors.grid[1]} patches each" if vectors.cells > 1 else ""
        print(f"vectors: {len(vectors)} of {vectors.dimensions} dimensions, {len(vectors.records)} images{per_image}")
        print(f"         {out}, {len(vectors) * vectors.dimensions * 4 / 1e6:.1f} MB, {vectors.source.precision}")
        print(f"next:    python embeddings/search.py IMAGE --vectors {out}")


def extract(config: Config) -> Path:
    """Bring the vectors in `config.out` up to date with the images, and return that folder."""
    from embeddings.encoding import Encoding, choose_encoder, make_source
    from embeddings.index.generations import sole_writer
    from embeddings.vectors import mend, next_id, read_lines
    from pretrain.data.dataset import choose_folder, load
    from pretrain.demo import is_demo
    from pretrain.training.device import make_fabric

    if config.batch < 1:
        raise UserError(f"{config.batch} images make no batch: give 1 or more.")
    fabric = make_fabric(config.device, "32-true")
    with fabric.rank_zero_first():
        folder = choose_folder(config.data)
        encoder, encoder_path = choose_encoder(config.encoder, config.seed, is_demo(folder))
        source = make_source(
            encoder, config.form, config.levels, config.size_px, config.grid, config.dimensions, config.seed
        )
        images = load(folder, source.size_px, config.categories, workers=config.workers, allow_plain=True)
    out = config.out or usual_folder(folder, source, config.categories)
    with sole_writer(out) if fabric.is_global_zero else nullcontext():
        source = settled(config, source, encoder, images, out, fabric)
        encoding = Encoding(encoder, source, fabric.device)
        if fabric.is_global_zero:
            describe(out, config, encoding, images, encoder, encoder_path)
            mend(out, encoding.cells, encoding.dimensions)
        fabric.barrier()
        known = {(line.record.path, line.digest): line.id for line in read_lines(out, images.folder)}
        first_id = next_id(out)
        fabric.barrier()  # all have read before one writes
        here = [(record.path, e.digest.hex()) for record, e in zip(images.records, images.entries, strict=True)]
        missing = [position for position, key in enumerate(here) if key not in known]
        gone = [known[key] for key in known.keys() - set(here)]
        write_shard(out, config.batch, encoding, images, list(enumerate(missing, first_id)), sorted(gone), fabric)
        fabric.barrier()
        if fabric.is_global_zero:
            (out / "finished").touch()
    return out


def write_shard(
    out: Path,
    batch: int,
    encoding: "Encoding",
    images: "ImageSet",
    missing: Sequence[tuple[int, int]],
    gone: Sequence[int],
    fabric: "Fabric",
) -> None:
    """Encode this process's share of the `missing` (id, position); the first process also notes which ids are gone."""
    from embeddings.vectors import ShardWriter, entry_of
    from pretrain.progress import Progress

    share = missing[fabric.global_rank :: fabric.world_size]
    batches = [share[start : start + batch] for start in range(0, len(share), batch)]
    leads = fabric.is_global_zero
    if leads and (missing or gone):
        (out / "finished").unlink(missing_ok=True)
    shard = ShardWriter(out, fabric.global_rank, encoding.cells, encoding.dimensions)
    progress = Progress("extracting", len(images), done=len(images) - len(missing)) if leads and missing else None
    try:
        with progress or nullcontext():
            if leads:
                shard.forget(gone)
            for members, vectors in encoded(encoding, images, batches):
                shard.add(
                    [
                        entry_of(images.records[position], image_id, images.entries[position].digest, images.folder)
                        for image_id, position in members
                    ],
                    vectors,
                )
                if progress:
                    progress.advance(min(len(members) * fabric.world_size, len(images) - progress.done))
    finally:
        shard.close()


def encoded(
    encoding: "Encoding", images: "ImageSet", batches: Sequence[Sequence[tuple[int, int]]]
) -> Iterator[tuple[Sequence[tuple[int, int]], "np.ndarray"]]:
    """Each batch of (id, position) with its vectors (b * cells, dimensions); a GPU is at work on the next batch while
    one is written. Raises UserError for values that are no numbers."""
    import numpy as np

    waiting = None
    for batch in [*batches, None]:
        following = batch and (batch, encoding(images.batch([position for _, position in batch])))
        if waiting:
            members, vectors = waiting[0], waiting[1].flatten(0, 2).float().cpu().numpy()
            wrong = ~np.isfinite(vectors).all(axis=1)
            if wrong.any():
                path = images.records[members[int(wrong.argmax()) // encoding.cells][1]].path
                raise UserError(f"the encoder gives values that are no numbers for {path}: try --precision 32-true.")
            yield members, vectors
        waiting = following


def settled(
    config: Config, source: "Source", encoder: "Encoder", images: "ImageSet", out: Path, fabric: "Fabric"
) -> "Source":
    """`source` with a precision: as asked, as in the folder, or what suits machine and encoder. Raises UserError if the
    folder holds other vectors."""
    from embeddings.encoding import safe_precision
    from embeddings.vectors import read_config

    stored = read_config(out) if (out / "config.json").exists() else None
    if config.precision or stored is None:
        some = images.batch(range(min(8, len(images))))
        chosen = config.precision or safe_precision(encoder, source, some, fabric.device)
    else:
        chosen = stored["source"]["precision"]
    source = replace(source, precision=chosen)
    if stored is not None:
        wanted = {
            **source.as_json(),
            "data": str(images.folder.resolve()),
            "categories": list(config.categories),
        }
        held = {**stored["source"], "data": stored["data"], "categories": stored["categories"]}
        differing = [name for name in wanted if wanted[name] != held[name]]
        if differing:
            changes = ", ".join(f"{name} was {held[name]} and is {wanted[name]}" for name in differing)
            raise UserError(f"{out} holds other vectors ({changes}): choose another --out.")
    fabric.barrier()  # before the first process writes it
    return source


def describe(
    out: Path, config: Config, encoding: "Encoding", images: "ImageSet", encoder: "Encoder", encoder_path: Path
) -> None:
    """Write what the vectors are before the first of them."""
    from embeddings.vectors import write_config
    from pretrain.data.dataset import data_name

    origin = encoder.origin
    write_config(
        out,
        {
            "source": encoding.source.as_json(),
            "data": str(images.folder.resolve()),
            "categories": list(config.categories),
            "data_name": data_name(images.folder),
            "encoder_file": str(encoder_path if encoder_path.name == "random" else encoder_path.resolve()),
            "seed": config.seed,
            "encoder_saw": list(origin.categories) if origin else [],
            "grid": list(encoding.grid),
            "dimensions": encoding.dimensions,
        },
    )


def usual_folder(folder: Path, source: "Source", categories: Sequence[str] = ()) -> Path:
    """Where the vectors of a data folder go if nothing else is said: equal for equal folder and source."""
    name = folder.resolve()
    metadata = f"{name} {source.as_json()} {list(categories)}".encode("utf-8", "surrogateescape")
    return Path("runs/vectors") / f"{name.name}-{source.form}-{blake2b(metadata, digest_size=4).hexdigest()}"
