"""The index of extracted vectors: built, or brought up to date by what came and what went.

    python embeddings/build.py --vectors runs/vectors/NAME
    python embeddings/build.py --vectors runs/vectors/NAME --rebuild --kind hnsw --recall 0.99

How many vectors there are and what recall is wanted decide how they are searched, unless `--kind` and its numbers say
otherwise. What the speed costs is measured against exact search and printed, and kept with the index.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from embeddings.build import Config, main
    from pretrain.command import run_command

    sys.exit(run_command(main, Config))

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

    from embeddings.index.index import Index
    from embeddings.vectors import Vectors

ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class Config:
    """Build the index of extracted vectors, or bring it up to date.

    Attributes:
        vectors: Folder of the vectors, from embeddings/extract.py; the index goes into its subfolder index.
        rebuild: Build anew, with other options, even if there is an index.
        metric: Cosine distance, or Euclidean.
        kind: How they are searched; flat is exact. Default is chosen from their number, the recall and free memory.
        recall: What share of the ten nearest is to be found.
        effort: Lists that are read (ivf, ivfpq) or candidates kept (hnsw). Default is what reaches the recall.
        lists: Lists of ivf and ivfpq. Default is 2 sqrt(n).
        links: Links of a vector in hnsw's graph. Default is 32.
        code_bytes: Bytes of a vector in ivfpq. Default is one for 8 dimensions.
        seed: Of the lists and codes.
    """

    vectors: Path
    rebuild: bool = False
    metric: Literal["cosine", "l2"] = "cosine"
    kind: Literal["auto", "flat", "ivf", "hnsw", "ivfpq"] = "auto"
    recall: float = 0.95
    effort: int | None = None
    lists: int | None = None
    links: int | None = None
    code_bytes: int | None = None
    seed: int = 0


def main(config: Config) -> None:
    """Build or update, and say what it is worth."""
    from embeddings.vectors import Vectors

    started_s = time.monotonic()
    vectors = Vectors(config.vectors)
    index = indexed(vectors, config)
    print(f"index: {len(index)} vectors of {index.dimensions} dimensions, {index.shape.kind}, {index.metric} distance")
    print(f"       {index_folder(vectors)}, {megabytes(index_folder(vectors)):.1f} MB, "
          f"ready after {time.monotonic() - started_s:.1f} s")  # fmt: skip
    print(f"       {in_words(index)}")


def index_folder(vectors: "Vectors") -> Path:
    return vectors.folder / "index"


def indexed(vectors: "Vectors", config: Config | None = None) -> "Index":
    """The index of these vectors: as it is, or brought up to date, or built if there is none. What is done is said."""
    from embeddings.index.generations import CURRENT
    from embeddings.index.index import Index
    from pretrain.files import alone

    config, folder = config or Config(vectors.folder), index_folder(vectors)
    if not config.rebuild and (folder / CURRENT).exists():
        index = Index.load(folder, mapped=True)  # to be asked it need not be read as a whole, nor be writable
        index.check_source(vectors.source.as_json())
        if not any(map(len, differences(index, vectors))):
            return index
    folder.mkdir(exist_ok=True)
    with alone(folder / "building", f"another process is building the index in {folder}; waiting for it."):
        if not config.rebuild and (folder / CURRENT).exists():
            index = Index.load(folder)
            catch_up(index, vectors)
            index.save(folder)
            return index
        print(f"no index of {vectors.folder} yet: building one of {len(vectors)} vectors", file=sys.stderr, flush=True)
        index = Index.build(
            vectors,
            vectors.ids,
            metric=config.metric,
            kind=config.kind,
            recall=config.recall,
            effort=config.effort,
            lists=config.lists,
            links=config.links,
            code_bytes=config.code_bytes,
            source=vectors.source.as_json(),
            seed=config.seed,
        )
        index.save(folder, replace=True)
        return index


def differences(index: "Index", vectors: "Vectors") -> tuple["np.ndarray", "np.ndarray"]:
    """Ids in the index that are no longer among the vectors, and rows of vectors that are not in the index."""
    import numpy as np

    ids = vectors.ids
    return np.setdiff1d(index.ids, ids), np.flatnonzero(~np.isin(ids, index.ids))


def catch_up(index: "Index", vectors: "Vectors") -> None:
    """Remove from the index what is no longer among the vectors, and add what is new."""
    gone, new = differences(index, vectors)
    if len(gone):
        index.remove(gone)
    ids = vectors.ids
    for start in range(0, len(new), ROWS_AT_ONCE):
        rows = new[start : start + ROWS_AT_ONCE]
        index.add(vectors[rows], ids[rows])
    print(f"index brought up to date: {len(new)} vectors added, {len(gone)} removed", file=sys.stderr, flush=True)


def in_words(index: "Index") -> str:
    """What an index finds, and how quickly."""
    if index.recall is None:
        return "exact"
    recall = index.recall
    missed = "" if recall.value >= recall.target else f", BELOW the {recall.target} asked for"
    return (
        f"finds {recall.value:.3f} of the {recall.at} nearest{missed}; {recall.ms:.2f} ms a query where exact search "
        f"takes {recall.exact_ms:.2f} (measured on {recall.queries} when it was built; effort {index.effort})"
    )


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir()) / 1e6
