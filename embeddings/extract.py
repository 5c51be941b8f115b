"""Images to vectors on disk: one per image or per patch, with ids, paths, labels and the encoder's fingerprint.

    python embeddings/extract.py                                              # demo data, the default encoder
    python embeddings/extract.py --data FOLDER --encoder runs/simclr/encoder.safetensors
    python embeddings/extract.py --data FOLDER --form patches --levels level2,level3 --grid 28
    torchrun --nproc-per-node 2 embeddings/extract.py --data FOLDER           # each process writes a shard
    python embeddings/extract.py --data images.parquet --address local        # a manifest, on Ray's workers

FOLDER has MVTec AD's layout, or is any folder of images. The same command again resumes where it was stopped, adds
images that are new or have changed, and forgets those that are gone; other options into the same folder are refused.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from embeddings.config import Extract
    from pretrain.command import start

    start("embeddings.extract:main", Extract)

import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np

from embeddings.config import Extract
from embeddings.encoding import Encoding, Source, choose_encoder, make_source
from embeddings.manifest_extraction import extract_manifest
from embeddings.vector_source import check_finite, describe, with_precision
from embeddings.vectors import (
    ShardWriter,
    Vectors,
    entry_of,
    finish,
    mend,
    next_id,
    read_lines,
)
from pretrain.command import UserError
from pretrain.data.dataset import ImageSet, choose_folder, data_name, load
from pretrain.data.images import LayoutName
from pretrain.data.manifest import SUFFIX
from pretrain.demo import is_demo
from pretrain.files import sole_writer
from pretrain.progress import Progress
from pretrain.training.fabric import make_fabric


def main(config: Extract) -> None:
    """Extract, and print what there is."""
    out = extract(config)
    if int(os.environ.get("RANK", 0)) == 0:
        vectors = Vectors(out)
        per_image = f" of {vectors.grid[0]} x {vectors.grid[1]} patches each" if vectors.per_image > 1 else ""
        print(f"vectors: {len(vectors)} of {vectors.dimensions} dimensions, {len(vectors.records)} images{per_image}")
        print(f"         {out}, {len(vectors) * vectors.dimensions * 4 / 1e6:.1f} MB, {vectors.source.precision}")
        print(f"next:    python embeddings/search.py IMAGE --vectors {out}")


def extract(config: Extract) -> Path:
    """Bring the vectors in `config.out` up to date with the images, and return that folder."""
    if config.batch < 1:
        raise UserError(f"{config.batch} images make no batch: give 1 or more.")
    if config.data is not None and config.data.suffix == SUFFIX:
        return extract_manifest(config)
    if config.address is not None:
        raise UserError("--address is for a manifest: heldout manifest lists the images of a folder or a URL.")
    fabric = make_fabric(config.device, "32-true")
    # The first process fills the cache and makes demo data; the others find both.
    with fabric.rank_zero_first():
        folder = choose_folder(config.data)
        encoder, encoder_path = choose_encoder(config.encoder, config.seed, is_demo(folder))
        source = make_source(
            encoder, config.form, config.levels, config.size_px, config.grid, config.dimensions, config.seed
        )
        images = load(
            folder, source.size_px, config.categories, workers=config.workers, allow_plain=True, layout=config.layout
        )
    out = config.out or default_folder(folder, source, config.categories, config.layout)
    with sole_writer(out) if fabric.is_global_zero else nullcontext():
        read_from = {
            "data": str(images.folder.resolve()),
            "categories": list(config.categories),
            "layout": config.layout,
            "manifest": None,
            "part_images": None,
        }
        sample = partial(images.batch, range(min(8, len(images))))
        source = with_precision(config, source, encoder, sample, read_from, out, fabric.device)
        fabric.barrier()  # all processes have read the folder before the first one writes into it
        encoding = Encoding(encoder, source, fabric.device)
        if fabric.is_global_zero:
            describe(out, config.seed, encoding, read_from, data_name(images.folder), encoder, encoder_path)
            mend(out, encoding.per_image, encoding.dimensions)
        fabric.barrier()
        # A changed image has another digest: its old vectors count as gone, and it gets a new id.
        known = {(line.record.path, line.digest): line.id for line in read_lines(out, images.folder)}
        first_id = next_id(out)
        fabric.barrier()
        present = [(record.path, e.digest.hex()) for record, e in zip(images.records, images.entries, strict=True)]
        missing = [position for position, key in enumerate(present) if key not in known]
        gone = [known[key] for key in known.keys() - set(present)]
        new = list(enumerate(missing, first_id))
        write_shard(out, config.batch, encoding, images, new, sorted(gone), fabric.global_rank, fabric.world_size)
        fabric.barrier()
        if fabric.is_global_zero:
            finish(out, images.folder)
    return out


def write_shard(
    out: Path,
    batch: int,
    encoding: Encoding,
    images: ImageSet,
    missing: Sequence[tuple[int, int]],
    gone: Sequence[int],
    rank: int,
    world_size: int,
) -> None:
    """Encode this process's share of the `missing` (id, position); the first process also records the `gone` ids."""
    # Interleaved, so that processes get equally many images of each category, which differ in size on disk.
    share = missing[rank::world_size]
    batches = [share[start : start + batch] for start in range(0, len(share), batch)]
    leads = rank == 0
    if leads and (missing or gone):
        (out / "finished").unlink(missing_ok=True)
    shard = ShardWriter(out, rank, encoding.per_image, encoding.dimensions)
    progress = Progress("extracting", len(images), done=len(images) - len(missing)) if leads and missing else None
    try:
        with progress or nullcontext():
            if leads:
                shard.forget(gone)
            for members, vectors in encoded(encoding, images, batches):
                entries = [
                    entry_of(images.records[position], image_id, images.entries[position].digest, images.folder)
                    for image_id, position in members
                ]
                shard.add(entries, vectors)
                if progress:  # the other processes are as far as this one
                    progress.advance(min(len(members) * world_size, len(images) - progress.done))
    finally:
        shard.close()


def encoded(
    encoding: Encoding, images: ImageSet, batches: Sequence[Sequence[tuple[int, int]]]
) -> Iterator[tuple[Sequence[tuple[int, int]], np.ndarray]]:
    """Each batch of (id, position) with its vectors (b * per_image, dimensions), one batch behind: a GPU computes the
    next while this one is written. Raises UserError for values that are no numbers."""
    waiting = None
    for batch in [*batches, None]:
        following = batch and (batch, encoding(images.batch([position for _, position in batch])))
        if waiting:
            members, vectors = waiting[0], waiting[1].flatten(0, 2).float().cpu().numpy()
            check_finite(vectors, [images.records[position].path for _, position in members], encoding.per_image)
            yield members, vectors
        waiting = following


def default_folder(
    folder: Path, source: Source, categories: Sequence[str] = (), layout: LayoutName | None = None
) -> Path:
    """Where the vectors of a data folder go by default: equal for equal folder and source."""
    name = folder.resolve()
    metadata = f"{name} {source.as_json()} {list(categories)}{layout or ''}".encode("utf-8", "surrogateescape")
    return Path("runs/vectors") / f"{name.name}-{source.form}-{blake2b(metadata, digest_size=4).hexdigest()}"
