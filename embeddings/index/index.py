"""Vectors to neighbors: a faiss index that knows its ids, its encoder, and what its speed costs in recall.

    from embeddings.index import Index

    index = Index.build(vectors, metric="l2")        # float32 (n, d), under ids 0 to n - 1
    distances, ids = index.search(queries, k=5)
    index.save(folder)

`python embeddings/build.py` builds one of extracted vectors, `python embeddings/search.py` asks it.
"""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

import faiss
import numpy as np

from embeddings.index.engine import Engine
from embeddings.index.exact import BLOCK_ROWS
from embeddings.index.generations import read_current, write_generation
from embeddings.index.kinds import IndexSpec, breadth_name, choose_kind, complete, training_rows
from embeddings.index.recall import Recall, Trial
from embeddings.index.shard import QUERIES_AT_ONCE, Shard
from embeddings.index.shards import Shards, too_few
from pretrain.actors import HeldHere, Hold
from pretrain.command import UserError, nearest

FORMAT = 2  # 2: "spec" under faiss's names, nprobe and ef_search, where 1 had a "shape" and an "effort"
OF_SHARDS = 3  # "removed" and the files by shard
METRICS = ("cosine", "l2")


class Neighbors(NamedTuple):
    """The neighbors of each query, nearest first: `distances` float32 (q, k), `ids` int64 (q, k).

    Cosine distance is 1 - cos, from 0 to 2; l2 is the Euclidean distance. Of equal distances the lower id comes first.
    """

    distances: np.ndarray
    ids: np.ndarray

    @property
    def missing(self) -> tuple[str, ...]:
        """Why shards did not answer, each in words: then these are the neighbors in the others. Empty where all did."""
        return ()


class PartialNeighbors(Neighbors):
    """Neighbors in those shards that answered; where they hold fewer than k, the rest has distance inf and id -1."""

    reasons: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        return self.reasons


class Index:
    """Float32 vectors (n, d) under int64 ids, zero or more each of its own, and their nearest neighbors.

    `source` is plain JSON that says what made the vectors: vectors of another source are refused. `nprobe` or
    `ef_search` is how widely it searches, `recall` which share of the true neighbors that finds; they are None where
    search is exact. Removed vectors are never found again; hnsw keeps their memory until it is rebuilt.

    It lies in one shard or in several, here or each in an actor of Ray: `shards` and `hold` say so where it is built or
    loaded (see objects_at in pretrain/actors.py). Where search is exact, what it finds is the same to the last bit.
    """

    def __init__(self, shards: Shards, spec: IndexSpec, dimensions: int, metric: str, source: dict) -> None:
        self._shards, self.spec, self.dimensions, self.metric, self.source = shards, spec, dimensions, metric, source
        self.recall: Recall | None = None
        self._breadth = 1  # nprobe or ef_search
        self._generation: str | None = None
        self._is_mapped = False

    @classmethod
    def build(
        cls,
        vectors: np.ndarray,
        ids: np.ndarray | None = None,
        *,
        metric: str = "cosine",
        kind: str = "auto",
        recall: float = 0.95,
        nprobe: int | None = None,
        ef_search: int | None = None,
        nlist: int | None = None,
        m: int | None = None,
        code_size: int | None = None,
        trial: np.ndarray | None = None,
        source: dict | None = None,
        seed: int = 0,
        shards: int = 1,
        hold: Hold = HeldHere,
    ) -> Self:
        """An index of `vectors`, float32 (n, d) or a mapped array, which is read in blocks.

        `kind` and its numbers (see IndexSpec) are chosen from n and the `recall` wanted, unless given; those of other
        kinds are ignored. Recall is measured with `trial` vectors (q, d), which should be like the queries to come;
        default is a sample of the indexed ones, each without itself. Raises UserError for no vectors, values that are
        no numbers, and ids that are negative or given twice.
        """
        if metric not in METRICS:
            raise UserError(f"there is no metric {metric!r}; {nearest(metric, METRICS)}")
        if not 0 < recall <= 1:
            raise UserError(f"a recall of {recall} cannot be had: give more than 0, and at most 1 for exact search.")
        if shards < 1:
            raise UserError(f"{shards} shards hold nothing: give at least 1.")
        if len(vectors) == 0 or len(vectors.shape) != 2:
            raise UserError(f"vectors of shape {vectors.shape} make no index: give (n, dimensions), n at least 1.")
        count, dimensions = vectors.shape
        kind = choose_kind(count, dimensions, recall) if kind == "auto" else kind
        spec = complete(IndexSpec(kind, nlist, m, code_size, seed), count, dimensions)
        engine = Engine.empty(spec, dimensions)
        learned_from = training_rows(spec, count)
        if len(learned_from):
            engine.train(prepared(vectors, learned_from, metric))
        learned = engine.as_bytes() if len(learned_from) else None
        held = hold(partial(Shard.empty, spec, dimensions, learned), shards)
        index = cls(Shards(held, shards), spec, dimensions, metric, source or {})
        ids = index._new_ids(count, ids)
        index._append(vectors, ids)
        if kind != "flat" and count > 1:
            index._measure(vectors, ids, trial, recall, ef_search if kind == "hnsw" else nprobe)
        return index

    def __len__(self) -> int:
        return sum(self._shards.counts)

    @property
    def shards(self) -> int:
        """How many shards it lies in."""
        return len(self._shards)

    @property
    def nprobe(self) -> int | None:
        """How many lists a search reads; None where there are no lists."""
        return self._breadth if breadth_name(self.spec.kind) == "nprobe" else None

    @property
    def ef_search(self) -> int | None:
        """How many candidates a search through the graph keeps; None where there is no graph."""
        return self._breadth if breadth_name(self.spec.kind) == "ef_search" else None

    @property
    def ids(self) -> np.ndarray:
        """The ids of all vectors, int64 (n,), in the order they were added, shard by shard."""
        return self._shards.ids()

    def to(self, device: object) -> Self:
        """Search on the CPU, as at first; or with `cuda` on the GPUs that faiss sees, where it sees any."""
        self._shards.to(str(device))
        return self

    def add(self, vectors: np.ndarray, ids: np.ndarray | None = None) -> None:
        """Add vectors, by default under the ids that follow the highest one. An error adds none of them."""
        self._check_writable()
        if len(vectors.shape) != 2 or vectors.shape[1] != self.dimensions:
            raise UserError(f"vectors of shape {vectors.shape} do not fit an index of {self.dimensions} dimensions.")
        ids = self._new_ids(len(vectors), ids)
        # All are checked before the first goes in, so that an error leaves the index as it was.
        for rows in _blocks(len(vectors)):
            prepared(vectors, rows, self.metric, ids)
        self._append(vectors, ids)

    def remove(self, ids: np.ndarray) -> int:
        """Remove vectors by id and return how many. Raises UserError, and removes none, if an id is not there."""
        self._check_writable()
        ids = np.unique(np.asarray(ids, np.int64))
        if len(unknown := np.setdiff1d(ids, self._shards.known(ids))):
            raise UserError(
                f"{len(unknown)} ids are not in the index ({unknown[0]} is the first): nothing was removed."
            )
        self._shards.remove(ids)
        return len(ids)

    def search(
        self,
        vectors: np.ndarray,
        k: int = 10,
        *,
        among: np.ndarray | None = None,
        nprobe: int | None = None,
        ef_search: int | None = None,
        source: dict | None = None,
    ) -> Neighbors:
        """The `k` nearest vectors of each query (q, d), only `among` these ids if given: then always k, however few
        of all they are. `nprobe` or `ef_search` widens or narrows this search alone. Raises UserError if there are
        fewer than k, for values that are no numbers, and for queries of another dimension or another source."""
        self.check_source(source)
        vectors = np.atleast_2d(vectors)
        if vectors.shape[1:] != (self.dimensions,):
            raise UserError(f"queries of shape {vectors.shape} do not fit an index of {self.dimensions} dimensions.")
        allowed = None if among is None else np.asarray(among, np.int64)
        if k < 1 or allowed is None and k > len(self):
            raise too_few(k, len(self), allowed)
        breadth = (ef_search if self.spec.kind == "hnsw" else nprobe) or self._breadth
        results = [
            self._shards.nearest(prepared(vectors, block, self.metric), k, breadth, allowed)
            for block in _blocks(len(vectors), QUERIES_AT_ONCE) or [np.arange(0)]
        ]
        squared, ids = (np.concatenate([result[place] for result in results]) for place in (0, 1))
        # Of unit vectors |a - b|^2 = 2 (1 - cos).
        distances = squared / 2 if self.metric == "cosine" else np.sqrt(squared)
        missing = {number: lost for result in results for number, lost in result[2].items()}
        if not missing:
            return Neighbors(distances, ids)
        found = PartialNeighbors(distances, ids)
        found.reasons = self._shards.said(missing)
        return found

    def check_source(self, source: dict | None) -> None:
        """Raises UserError if vectors of this source are not comparable with those of the index."""
        for name, value in (source or {}).items():
            if name in self.source and self.source[name] != value:
                raise UserError(
                    f"the index holds vectors of {name} {self.source[name]}, not of {name} {value}: their distances "
                    "mean nothing. Use the same encoder and settings, or build an index for these."
                )

    def save(self, folder: Path | str, *, replace: bool = False) -> None:
        """Write to a folder; a reader finds the old index or this one, also if this process is killed. Raises UserError
        if another process saved there since this index was loaded, unless that is to be replaced."""
        folder = Path(folder).resolve()  # an actor may be elsewhere
        metadata = {
            "format": FORMAT if self.shards == 1 else OF_SHARDS,
            "metric": self.metric,
            "spec": asdict(self.spec),
            "nprobe": self.nprobe,
            "ef_search": self.ef_search,
            "recall": self.recall and self.recall._asdict(),
            "source": self.source,
            "removed": self._shards.removed[0] if self.shards == 1 else self._shards.removed,
            "dimensions": self.dimensions,
            "faiss": faiss.__version__,
        }

        written = write_generation(folder, metadata, partial(self._shards.write, folder), self._generation, replace)
        self._generation = written["generation"]
        self._shards.kept(folder, _by_shard(written))

    @classmethod
    def load(cls, folder: Path | str, *, mapped: bool = False, hold: Hold = HeldHere) -> Self:
        """The index in a folder. `mapped` leaves the vectors on disk, to be read where a search needs them, and does
        not check every byte of them; such an index can be searched, not changed. Raises UserError for anything else."""
        folder = Path(folder)
        # Readers take no lock: one that meets a replacement in the middle reads again.
        while True:
            metadata = read_current(folder)
            try:
                return cls._read(folder.resolve(), metadata, mapped, hold)
            except UserError:
                if read_current(folder)["generation"] == metadata["generation"]:
                    raise  # else another process replaced it while it was read

    @classmethod
    def _read(cls, folder: Path, metadata: dict, mapped: bool, hold: Hold) -> Self:
        if (stored := metadata.get("format")) not in (FORMAT, OF_SHARDS):
            is_newer = isinstance(stored, int) and stored > OF_SHARDS
            remedy = "update heldout" if is_newer else "build it again with embeddings/build.py --rebuild"
            raise UserError(f"the index in {folder} has format {stored}, this heldout reads {OF_SHARDS}: {remedy}.")
        try:
            metadata = _by_shard(metadata)
            spec, shards = IndexSpec(**metadata["spec"]), len(metadata["removed"])
            if not shards:
                raise ValueError("it has no shard")
            held = hold(partial(Shard.read, folder, metadata, mapped), shards)
            index = cls(Shards(held, shards), spec, metadata["dimensions"], metadata["metric"], metadata["source"])
            index._shards.count()
            index._breadth = metadata["nprobe"] or metadata["ef_search"] or 1
            index.recall = metadata["recall"] and Recall(**metadata["recall"])
            index._generation, index._is_mapped = metadata["generation"], mapped
            return index
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"the index in {folder} is damaged ({error}): remove it and build it again.") from None

    def _check_writable(self) -> None:
        if self._is_mapped:
            raise UserError("an index that was loaded mapped cannot be changed: load it with mapped=False.")

    def _new_ids(self, count: int, ids: np.ndarray | None) -> np.ndarray:
        """The ids of `count` vectors to be added. Raises UserError unless each is new and a whole number from 0 on."""
        if ids is None:
            return np.arange(count, dtype=np.int64) + (self._shards.highest_id() + 1)
        ids = np.asarray(ids)
        if ids.shape != (count,) or not np.issubdtype(ids.dtype, np.integer):
            raise UserError(f"{count} vectors need {count} whole numbers as ids, not {ids.dtype} of shape {ids.shape}.")
        ids = ids.astype(np.int64)
        if count and ids.min() < 0:
            raise UserError(f"{ids.min()} cannot be an id: ids are 0 or higher.")
        once, times = np.unique(ids, return_counts=True)
        if (times > 1).any():
            raise UserError(
                f"the id {once[times > 1][0]} is given twice: each vector needs its own. Nothing was added."
            )
        if len(known := self._shards.known(once)):
            raise UserError(f"the id {known[0]} is in the index already: remove it first. Nothing was added.")
        return ids

    def _append(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        for rows in _blocks(len(vectors)):
            self._shards.add(prepared(vectors, rows, self.metric, ids), ids[rows])

    def _measure(
        self, vectors: np.ndarray, ids: np.ndarray, trial: np.ndarray | None, target: float, breadth: int | None
    ) -> None:
        """Choose nprobe or ef_search for the recall wanted, unless given, and keep what recall and time it takes."""
        by_id = np.argsort(ids)

        def search(queries: np.ndarray, k: int, breadth: int) -> np.ndarray:
            found, missing = self._shards.nearest(queries, k, breadth)[1:]
            self._shards.whole(missing)
            return by_id[np.searchsorted(ids, found, sorter=by_id)]

        def take(rows: np.ndarray) -> np.ndarray:
            return prepared(vectors, rows, self.metric)

        queries = None if trial is None else prepared(trial, np.arange(len(trial)), self.metric)
        measuring = Trial(self.spec, search, take, len(vectors), queries)
        # Vectors of the index find their neighbors more easily than new ones do (of patches, 0.95 became 0.93): where
        # they are the trial, half of what may be missed is allowed.
        self._breadth = breadth or measuring.least_breadth(target if trial is not None else (1 + target) / 2)
        self.recall = measuring.recall(self._breadth, target)


def prepared(vectors: np.ndarray, rows: np.ndarray, metric: str, ids: np.ndarray | None = None) -> np.ndarray:
    """Rows of `vectors` as faiss takes them: contiguous float32, for cosine of unit length. Raises UserError for
    values that are no numbers, which names the vector by its id."""
    block = np.ascontiguousarray(vectors[rows], np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", block, block))
    wrong = ~np.isfinite(lengths) if metric == "l2" else ~np.isfinite(lengths) | (lengths == 0)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        name = rows[first] if ids is None else ids[rows[first]]
        what = "is all zeros, which has no direction" if lengths[first] == 0 else "holds values that are no numbers"
        raise UserError(f"vector {name} {what} ({wrong.sum()} such vectors): nothing was done; mend or leave them out.")
    return block if metric == "l2" else block / lengths[:, None]


def _blocks(count: int, size: int | None = None) -> list[np.ndarray]:
    """Rows 0 to count - 1, cut into pieces."""
    size = size or BLOCK_ROWS
    return [np.arange(start, min(start + size, count)) for start in range(0, count, size)]


def _by_shard(metadata: dict) -> dict:
    """With what an index of one shard says of it as those of several say it."""
    return metadata if metadata["format"] == OF_SHARDS else {**metadata, "removed": [metadata["removed"]]}
