"""A faiss index by row number: what it takes to add, to remove, and to search among some rows only, in each kind."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embeddings.index.exact import exact_distances
from embeddings.index.kinds import Shape, make_engine, most_effort, parameters

if TYPE_CHECKING:
    import faiss

# Up to so many allowed vectors a filtered search looks at each of them.
MAX_GATHERED = 50_000
MAX_ON_GPU = 2048  # neighbors, and lists that are read: a limit of faiss's GPU code


class Engine:
    """float32 vectors by row, nearest by squared Euclidean distance.

    flat moves later rows up when some are removed, as faiss does; in the other kinds a row keeps its number, and hnsw
    its room too.
    """

    def __init__(self, shape: Shape, index: "faiss.Index") -> None:
        self.shape, self._index, self._on_gpu = shape, index, None
        self.dimensions: int = index.d

    @classmethod
    def empty(cls, shape: Shape, dimensions: int) -> "Engine":
        return cls(shape, make_engine(shape, dimensions))

    @classmethod
    def read(cls, path: Path, shape: Shape, mapped: bool) -> "Engine":
        """Raises RuntimeError where faiss cannot read the file."""
        import faiss

        flags = 0
        if mapped:
            flags = faiss.IO_FLAG_MMAP if shape.lists else getattr(faiss, "IO_FLAG_MMAP_IFC", 0)
        return cls(shape, faiss.read_index(str(path), flags))

    def write(self, path: Path) -> None:
        import faiss

        faiss.write_index(self._index, str(path))

    def train(self, vectors: np.ndarray) -> None:
        """Learn lists and codes, where the kind has any."""
        self._index.train(vectors)

    def add(self, vectors: np.ndarray, first_row: int) -> None:
        self._on_gpu = None
        if self.shape.lists is None:
            self._index.add(vectors)
        else:
            self._index.add_with_ids(vectors, np.arange(first_row, first_row + len(vectors)))

    def remove(self, rows: np.ndarray) -> None:
        import faiss

        self._on_gpu = None
        if self.shape.kind != "hnsw":
            self._index.remove_ids(faiss.IDSelectorBatch(rows))

    def search(
        self,
        queries: np.ndarray,
        k: int,
        effort: int,
        rows: np.ndarray | None = None,
        alive: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Squared distances float32 and rows int64 (q, k) of the nearest vectors, or of the nearest of `rows`
        (ascending), of which there must be k. `alive`, bool (rows,), is needed in hnsw once rows were removed."""
        import faiss

        if rows is not None and self.shape.lists is None and len(rows) <= MAX_GATHERED:
            some = np.ascontiguousarray(self._vectors()[rows])
            _, found = faiss.knn(queries, some, k)
            return _in_order(exact_distances(queries, some, found), rows[found])
        selector = self._selector(rows, alive)
        if rows is not None and self.shape.kind != "flat":
            # As many allowed vectors are looked at as without a filter; of few, all.
            count = self._index.ntotal
            most = most_effort(self.shape, count)
            effort = most if len(rows) <= MAX_GATHERED else min(most, -(-effort * count // len(rows)))
        index = self._index if selector is not None else self._for_search(k, effort)
        squared, found = index.search(queries, k, params=parameters(self.shape.kind, effort, selector))
        short = (found < 0).any(axis=1)  # the lists that were read, or the way through the graph, held fewer than k
        if short.any():
            squared[short], found[short] = self._search_everywhere(queries[short], k, selector)
        if self.shape.kind == "flat":
            squared = exact_distances(queries, self._vectors(), found)
        return _in_order(squared, found)

    def _search_everywhere(
        self, queries: np.ndarray, k: int, selector: "faiss.IDSelector | None"
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same without passing over any vector."""
        import faiss

        if self.shape.kind == "hnsw":
            storage = faiss.downcast_index(self._index.storage)
            return storage.search(queries, k, params=parameters("flat", 0, selector))
        everything = parameters(self.shape.kind, most_effort(self.shape, 0), selector)
        return self._index.search(queries, k, params=everything)

    def _selector(self, rows: np.ndarray | None, alive: np.ndarray | None) -> "faiss.IDSelector | None":
        """What faiss may find: `rows`, or those that are alive."""
        import faiss

        if rows is not None:
            alive = np.zeros(rows[-1] + 1, bool)
            alive[rows] = True
        return None if alive is None else faiss.IDSelectorBitmap(np.packbits(alive, bitorder="little"))

    def _vectors(self) -> np.ndarray:
        """The vectors (rows, d) of flat and hnsw, which keep them in one piece; not a copy."""
        import faiss

        flat = self._index if self.shape.kind == "flat" else faiss.downcast_index(self._index.storage)
        return faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(flat.ntotal, flat.d)

    def _for_search(self, k: int, effort: int) -> "faiss.Index":
        """A copy on the GPUs that faiss sees, made at the first search, where they can do this one."""
        import faiss

        if not faiss.get_num_gpus() or self.shape.kind == "hnsw" or max(k, effort) > MAX_ON_GPU:
            return self._index
        if self._on_gpu is None:
            self._on_gpu = faiss.index_cpu_to_all_gpus(self._index)
        return self._on_gpu


def _in_order(squared: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both (q, k), by distance; of equally near ones the lower row first."""
    order = np.lexsort((rows, squared), axis=1)
    return np.take_along_axis(squared, order, 1), np.take_along_axis(rows, order, 1)
