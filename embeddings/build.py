"""The index of extracted vectors: built, or brought up to date by what is new and what is gone.

    python embeddings/build.py --vectors runs/vectors/NAME
    python embeddings/build.py --vectors runs/vectors/NAME --rebuild --kind hnsw --recall 0.99
    python embeddings/build.py --vectors runs/vectors/NAME --shards 4 --address local

The number of vectors and the recall wanted decide the type of index, unless `--kind` and its numbers say otherwise.
What the speed costs in recall is measured against exact search, printed, and kept with the index.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from embeddings.config import Build
    from pretrain.command import start

    start("embeddings.build:main", Build)

import sys
import time
from pathlib import Path

import numpy as np

from embeddings.config import Build
from embeddings.index import Index
from embeddings.index.generations import CURRENT
from embeddings.index.kinds import breadth_name
from embeddings.vectors import Vectors
from pretrain.actors import HeldHere, Hold, objects_at
from pretrain.command import UserError
from pretrain.files import alone

ROWS_AT_ONCE = 65_536


def main(config: Build) -> None:
    """Build or update the index, and print what a search of it is worth."""
    started_s = time.monotonic()
    vectors = Vectors(config.vectors)
    with objects_at(config, config.replicas) as hold:
        index, folder = open_index(vectors, config, hold), index_folder(vectors)
    print(f"index: {len(index)} vectors of {index.dimensions} dimensions, {index.spec.kind}, {index.metric} distance"
          f"{f', {index.shards} shards' if index.shards > 1 else ''}")  # fmt: skip
    megabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    print(f"       {folder}, {megabytes:.1f} MB, ready after {time.monotonic() - started_s:.1f} s")
    print(f"       {describe_recall(index)}")


def index_folder(vectors: Vectors) -> Path:
    return vectors.folder / "index"


def open_index(vectors: Vectors, config: Build | None = None, hold: Hold = HeldHere, mapped: bool = True) -> Index:
    """The index of these vectors: as it is, brought up to date, or built if there is none; stderr says which. One that
    is as it should be is not read but `mapped`, for what ends soon: whoever copies over its files ends the process."""
    config, folder = config or Build(vectors.folder), index_folder(vectors)
    if not config.rebuild and (folder / CURRENT).exists():
        # Mapped, an index that is only searched need not be read as a whole, nor be writable.
        index = Index.load(folder, mapped=mapped, hold=hold)
        _check_shards(index, config, folder)
        index.check_source(vectors.source.as_json())
        if not any(map(len, differences(index, vectors))):
            return index
    folder.mkdir(exist_ok=True)
    # Two first searches at once would both build: the second waits and finds the index of the first.
    with alone(folder / "building", f"another process is building the index in {folder}; waiting for it."):
        if not config.rebuild and (folder / CURRENT).exists():  # by now, perhaps
            index = Index.load(folder, hold=hold)
            _check_shards(index, config, folder)
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
            nprobe=config.nprobe,
            ef_search=config.ef_search,
            nlist=config.nlist,
            m=config.m,
            code_size=config.code_size,
            source=vectors.source.as_json(),
            seed=config.seed,
            shards=1 if config.shards is None else config.shards,
            hold=hold,
        )
        index.save(folder, replace=True)
        return index


def _check_shards(index: Index, config: Build, folder: Path) -> None:
    if config.shards not in (None, index.shards):
        raise UserError(
            f"the index in {folder} has {index.shards} shards, not {config.shards}: leave out --shards, or build it "
            "again with embeddings/build.py --rebuild."
        )


def differences(index: Index, vectors: Vectors) -> tuple[np.ndarray, np.ndarray]:
    """Ids in the index that are no longer among the vectors, and rows of vectors that are not in the index."""
    ids = vectors.ids
    return np.setdiff1d(index.ids, ids), np.flatnonzero(~np.isin(ids, index.ids))


def catch_up(index: Index, vectors: Vectors) -> None:
    """Remove from the index what is no longer among the vectors, and add what is new."""
    gone, new = differences(index, vectors)
    if len(gone):
        index.remove(gone)
    ids = vectors.ids
    for start in range(0, len(new), ROWS_AT_ONCE):
        rows = new[start : start + ROWS_AT_ONCE]
        index.add(vectors[rows], ids[rows])
    print(f"index brought up to date: {len(new)} vectors added, {len(gone)} removed", file=sys.stderr, flush=True)


def describe_recall(index: Index) -> str:
    """Which share of the true neighbors an index finds, and how fast, in one sentence."""
    if index.recall is None:
        return "exact"
    recall = index.recall
    missed = "" if recall.value >= recall.target else f", BELOW the {recall.target} asked for"
    return (
        f"finds {recall.value:.3f} of the {recall.at} nearest{missed}; {recall.ms:.2f} ms a query where exact search "
        f"takes {recall.exact_ms:.2f} (measured with {recall.queries} queries when it was built; "
        f"{breadth_name(index.spec.kind)} {index.nprobe or index.ef_search})"
    )
