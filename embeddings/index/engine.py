"""A faiss index by row number: what adding, removing and searching among given rows take in each kind of index."""

import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Self

import faiss
import numpy as np

from embeddings.index.exact import exact_distances
from embeddings.index.kinds import IndexSpec, empty_index, max_breadth, search_parameters

# A filtered search compares the query with every allowed vector where there are at most this many.
MAX_GATHERED = 50_000
MAX_ON_GPU = 2048  # neighbors, and lists read: a limit of faiss's GPU code
# Of |a|^2 + |b|^2, what |a|^2 + |b|^2 - 2ab in float32 may be wrong by, and how many neighbors more than asked for are
# looked at, step by step, until those that are left out are farther by more than that.
ROUNDING = 1e-6
SPARE = (1, 16, 256, 4096)


class Engine:
    """float32 vectors by row, nearest by squared Euclidean distance.

    When rows are removed from flat, later ones move up, as in faiss; in the other kinds a row keeps its number, and in
    hnsw its memory too.
    """

    def __init__(self, spec: IndexSpec, index: faiss.Index) -> None:
        self.spec, self._index, self._on_gpu, self.may_use_gpu = spec, index, None, False
        self._gpu_turn = threading.Lock()
        self.dimensions: int = index.d

    @classmethod
    def empty(cls, spec: IndexSpec, dimensions: int) -> Self:
        return cls(spec, empty_index(spec, dimensions))

    @classmethod
    def read(cls, path: Path, spec: IndexSpec, mapped: bool) -> Self:
        """Raises RuntimeError where faiss cannot read the file."""
        flags = 0
        if mapped:  # inverted lists and flat vectors stay on disk by two different mechanisms of faiss
            flags = faiss.IO_FLAG_MMAP if spec.nlist else getattr(faiss, "IO_FLAG_MMAP_IFC", 0)
        return cls(spec, faiss.read_index(str(path), flags))

    @classmethod
    def from_bytes(cls, data: bytes, spec: IndexSpec) -> Self:
        return cls(spec, faiss.deserialize_index(np.frombuffer(data, np.uint8)))

    def as_bytes(self) -> bytes:
        return faiss.serialize_index(self._index).tobytes()

    def write(self, path: Path) -> None:
        """Raises OSError where it cannot be written."""
        try:
            faiss.write_index(self._index, str(path))
        except RuntimeError as error:  # faiss has no error of its own for a full disk, and says in brackets what it was
            raise OSError(f"{path} cannot be written: {str(error).rpartition('(')[2].rstrip(')')}") from None

    def train(self, vectors: np.ndarray) -> None:
        """Learn lists and codes, where the kind has any."""
        self._index.train(vectors)

    def add(self, vectors: np.ndarray, first_row: int) -> None:
        self._on_gpu = None
        if self.spec.nlist is None:
            self._index.add(vectors)
        else:
            self._index.add_with_ids(vectors, np.arange(first_row, first_row + len(vectors)))

    def remove(self, rows: np.ndarray) -> None:
        self._on_gpu = None
        if self.spec.kind != "hnsw":  # whose graph runs through every vector: the caller passes `alive` instead
            self._index.remove_ids(faiss.IDSelectorBatch(rows))

    def search(
        self,
        queries: np.ndarray,
        k: int,
        breadth: int,
        rows: np.ndarray | None = None,
        alive: np.ndarray | None = None,
        ids: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Squared distances float32 and rows int64 (q, k) of the nearest vectors, or of the nearest of `rows`
        (ascending), of which there must be k. Of equal distances the lower of `ids` (by row) comes first; by default
        the lower row. `alive`, bool (rows,), is needed in hnsw once rows were removed."""
        if rows is not None and self.spec.nlist is None and len(rows) <= MAX_GATHERED:
            allowed = np.ascontiguousarray(self._vectors()[rows])
            names = rows if ids is None else ids[rows]
            squared, nearest = nearest_exactly(queries, k, partial(_knn, allowed), allowed, names)
            return squared, rows[nearest]
        selector = self._selector(rows, alive)
        if self.spec.kind == "flat":
            find = partial(self._search, breadth=breadth, selector=selector)
            return nearest_exactly(queries, k, find, self._vectors(), ids, None if rows is None else len(rows))
        if rows is not None:
            # Wide enough to meet as many allowed vectors as without a filter; where few are allowed, all of them.
            count = self._index.ntotal
            widest = max_breadth(self.spec, count)
            breadth = widest if len(rows) <= MAX_GATHERED else min(widest, -(-breadth * count // len(rows)))
        squared, nearest = self._search(queries, k, breadth, selector)
        short = (nearest < 0).any(axis=1)  # the lists read, or the path through the graph, held fewer than k
        if short.any():
            squared[short], nearest[short] = self._search_everywhere(queries[short], k, selector)
        return _in_order(squared, nearest, ids)

    def _search(
        self, queries: np.ndarray, k: int, breadth: int, selector: faiss.IDSelector | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As faiss does it, on its GPUs where it can."""
        if selector is None and (found := self._search_on_gpu(queries, k, breadth)) is not None:
            return found
        return self._index.search(queries, k, params=search_parameters(self.spec.kind, breadth, selector))

    def _search_everywhere(
        self, queries: np.ndarray, k: int, selector: faiss.IDSelector | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """`search` that passes over no vector."""
        if self.spec.kind == "hnsw":
            storage = faiss.downcast_index(self._index.storage)
            return storage.search(queries, k, params=search_parameters("flat", 0, selector))
        everything = search_parameters(self.spec.kind, max_breadth(self.spec, 0), selector)
        return self._index.search(queries, k, params=everything)

    def _selector(self, rows: np.ndarray | None, alive: np.ndarray | None) -> faiss.IDSelector | None:
        """What faiss may return: `rows`, or those that are alive."""
        if rows is not None:
            alive = np.zeros(rows[-1] + 1, bool)
            alive[rows] = True
        return None if alive is None else faiss.IDSelectorBitmap(np.packbits(alive, bitorder="little"))

    def _vectors(self) -> np.ndarray:
        """A view of the vectors (rows, d) of flat and hnsw, which keep them in one block."""
        flat = self._index if self.spec.kind == "flat" else faiss.downcast_index(self._index.storage)
        return faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(flat.ntotal, flat.d)

    def _search_on_gpu(self, queries: np.ndarray, k: int, breadth: int) -> tuple[np.ndarray, np.ndarray] | None:
        """By the copy on the GPUs that faiss sees, made at the first search, where they can do this one. Several GPUs
        take no parameters with a search: the copy has them, and threads with others would change them for each other,
        so they take turns."""
        if not (self.may_use_gpu and faiss.get_num_gpus()) or self.spec.kind == "hnsw" or max(k, breadth) > MAX_ON_GPU:
            return None
        with self._gpu_turn:
            if self._on_gpu is None:
                try:
                    self._on_gpu = faiss.index_cpu_to_all_gpus(self._index)
                except RuntimeError as error:  # too large for them, or with codes of a length that they do not know
                    self.may_use_gpu = False
                    print(f"searching on the CPU: faiss's GPUs refuse the index ({str(error)[:100]})", file=sys.stderr)
                    return None
            if self.spec.nlist is not None:
                faiss.GpuParameterSpace().set_index_parameter(self._on_gpu, "nprobe", breadth)
            return self._on_gpu.search(queries, k)


def nearest_exactly(
    queries: np.ndarray,
    k: int,
    find: Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]],
    vectors: np.ndarray,
    ids: np.ndarray | None = None,
    count: int | None = None,
    spare: Sequence[int] = SPARE,
) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances, exact, and rows (q, k) of the nearest of `count` vectors (default: all), which `find` gives to
    within rounding. Where rounding, or equal distances, leave open which vectors belong to the k, more are looked at,
    up to the last of `spare`: so the result depends neither on the batch nor on which other vectors there are, unless
    there are more copies of one vector than that."""
    count = len(vectors) if count is None else count
    asked = min(k + spare[0], count)
    squared, rows = find(queries, asked)
    # |b| is at most |a| and the distance.
    scale = 3 * np.einsum("qd,qd->q", queries, queries) + 2 * np.abs(squared[:, k - 1])
    is_open = (squared[:, -1] - squared[:, k - 1] <= ROUNDING * scale) & (asked < count)
    if spare[0] == 1:  # the usual case, in which the one more has told that it is not among them
        rows = rows[:, :k]
    squared, rows = _in_order(exact_distances(queries, vectors, rows), rows, ids)
    squared, rows = squared[:, :k], rows[:, :k]
    if is_open.any() and len(spare) > 1:
        squared[is_open], rows[is_open] = nearest_exactly(queries[is_open], k, find, vectors, ids, count, spare[1:])
    return squared, rows


def _knn(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    return faiss.knn(queries, vectors, k)


def _in_order(squared: np.ndarray, rows: np.ndarray, ids: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Both (q, k), sorted by distance; of equal distances the lower id first, so that results are reproducible, and
    the same however the vectors came in."""
    order = np.lexsort((rows if ids is None else ids[rows], squared), axis=1)
    return np.take_along_axis(squared, order, 1), np.take_along_axis(rows, order, 1)
