"""A part of an index, all of it or one of many: an engine, and the id of each of its rows.

What `Shards` asks of each, wherever it lies, is what is public here. Vectors and queries come prepared.
"""

from pathlib import Path
from typing import Self

import numpy as np

from embeddings.index.engine import Engine
from embeddings.index.generations import checked_file, write_file
from embeddings.index.kinds import IndexSpec
from pretrain.command import UserError

QUERIES_AT_ONCE = 4096


class Shard:
    """Float32 vectors (n, d) under int64 ids, zero or more each of its own."""

    def __init__(self, engine: Engine, ids: np.ndarray | None = None, removed: int = 0) -> None:
        self._engine, self._removed = engine, removed
        self._ids = np.empty(0, np.int64) if ids is None else ids  # by row, -1: removed

    @classmethod
    def empty(cls, spec: IndexSpec, dimensions: int, learned: bytes | None, number: int) -> Self:
        """Without vectors; with the lists and codes that were learned once for all shards, where the kind has any."""
        return cls(Engine.empty(spec, dimensions) if learned is None else Engine.from_bytes(learned, spec))

    @classmethod
    def read(cls, folder: Path, metadata: dict, mapped: bool, number: int) -> Self:
        """One of those that `metadata` names. Raises UserError where it is gone or damaged."""
        names = file_names(number, len(metadata["removed"]))
        engine_file, ids_file = (checked_file(folder, metadata, name, thoroughly=not mapped) for name in names)
        try:
            engine = Engine.read(engine_file, IndexSpec(**metadata["spec"]), mapped)
            ids = np.load(ids_file, mmap_mode="r" if mapped else None, allow_pickle=False)
        except (RuntimeError, ValueError) as error:
            raise UserError(f"the index in {folder} is damaged ({error}): remove it and build it again.") from None
        return cls(engine, ids, metadata["removed"][number])

    def write(self, folder: Path, generation: str, number: int, shards: int) -> dict[str, dict[str, int]]:
        """Write its files, and give of each its size and checksum by name."""
        engine_name, ids_name = file_names(number, shards)
        return {
            engine_name: write_file(folder, generation, engine_name, self._engine.write),
            ids_name: write_file(
                folder, generation, ids_name, lambda path: np.save(path, self._ids, allow_pickle=False)
            ),
        }

    def counts(self) -> tuple[int, int]:
        """How many vectors there are, and how many rows are left of removed ones."""
        return len(self._ids) - self._removed, self._removed

    def ids(self) -> np.ndarray:
        """In the order they were added."""
        return self._ids[self._ids >= 0]

    def highest_id(self) -> int:
        return int(self._ids.max(initial=-1))

    def known(self, ids: np.ndarray) -> np.ndarray:
        """Those of these ids, each once, that are here, ascending."""
        return np.intersect1d(ids[ids >= 0], self._ids)

    def to(self, device: str) -> None:
        self._engine.may_use_gpu = device != "cpu"

    def add(self, vectors: np.ndarray, ids: np.ndarray) -> None:
        self._engine.add(vectors, len(self._ids))
        self._ids = np.concatenate([self._ids, ids])

    def remove(self, ids: np.ndarray) -> None:
        """Remove vectors by ids, all of which are here."""
        rows = self._rows_of(ids)
        # faiss numbers rows; ids are kept here, since flat and hnsw cannot store their own.
        self._engine.remove(rows)
        self._ids[rows] = -1
        if self._engine.spec.kind == "flat":
            self._ids = self._ids[self._ids >= 0]
        else:
            self._removed += len(rows)

    def nearest(
        self, queries: np.ndarray, k: int, breadth: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Squared distances float32 and ids int64 (q, k) of the nearest vectors, or of the nearest `among` these ids:
        fewer than k where there are fewer; and how many there are. Of equal distances the lower id first."""
        rows = None if among is None else self._rows_of(among)
        available = self.counts()[0] if rows is None else len(rows)
        k = min(k, available)
        if not len(queries) or not k:
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64), available
        alive = self._ids >= 0 if self._removed and self._engine.spec.kind == "hnsw" else None
        results = [
            self._engine.search(queries[start : start + QUERIES_AT_ONCE], k, breadth, rows, alive, self._ids)
            for start in range(0, len(queries), QUERIES_AT_ONCE)
        ]
        squared, found = (np.concatenate(arrays) for arrays in zip(*results, strict=True))
        return squared, self._ids[found], available

    def _rows_of(self, ids: np.ndarray) -> np.ndarray:
        """Rows, ascending, of those ids that are here."""
        return np.flatnonzero(np.isin(self._ids, ids[ids >= 0]))


def file_names(number: int, shards: int) -> tuple[str, str]:
    """Those of the engine and of the ids."""
    stem = "" if shards == 1 else f"shard-{number:05d}."
    return f"{stem}faiss", f"{stem}ids.npy"
