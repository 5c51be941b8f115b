"""A stand-in for faiss where it cannot be installed: exact search by numpy, and names for all else that is imported.

gpu.py takes it along to a machine without a network, whose GPU searches by torch anyhow; only comparisons with the CPU
come here.
"""

import numpy as np

__version__ = "stand-in"


class SearchParameters:
    def __init__(self, sel: object = None) -> None:
        if sel is not None:
            raise NotImplementedError("the stand-in for faiss has no filters")


class IndexFlatL2:
    """What embeddings/index asks of one."""

    def __init__(self, d: int) -> None:
        self.d, self._vectors = d, np.empty((0, d), np.float32)

    @property
    def ntotal(self) -> int:
        return len(self._vectors)

    def train(self, vectors: np.ndarray) -> None:
        pass

    def add(self, vectors: np.ndarray) -> None:
        self._vectors = np.concatenate([self._vectors, vectors])

    def get_xb(self) -> np.ndarray:
        return self._vectors

    def search(self, queries: np.ndarray, k: int, params: object = None) -> tuple[np.ndarray, np.ndarray]:
        squares = (self._vectors**2).sum(1) - 2 * queries @ self._vectors.T + (queries**2).sum(1, keepdims=True)
        rows = np.argpartition(squares, k - 1, axis=1)[:, :k]
        found = np.take_along_axis(squares, rows, 1)
        order = found.argsort(axis=1)
        return np.take_along_axis(found, order, 1), np.take_along_axis(rows, order, 1)


def rev_swig_ptr(vectors: np.ndarray, count: int) -> np.ndarray:
    return vectors.reshape(-1)[:count]


def get_num_gpus() -> int:
    return 0


def __getattr__(name: str) -> type:
    """Anything else that is named, which can do nothing."""
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})
