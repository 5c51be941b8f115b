"""Exact nearest neighbors in blocks: what approximate search is measured against, and distances to the last digit."""

from collections.abc import Callable

import faiss
import numpy as np

BLOCK_ROWS = 65_536
BLOCK_NUMBERS = 1 << 24  # 64 MiB of float32

Blocks = Callable[[int, int], np.ndarray]  # rows from, to -> float32 (n, d)


def exact_distances(queries: np.ndarray, vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances float32 (q, k) from each query (q, d) to the vectors at its `rows` (q, k).

    As differences: |a|^2 + |b|^2 - 2ab, with which faiss is quick, loses the digits of small distances and depends on
    the batch.
    """
    result = np.empty(rows.shape, np.float32)
    step = max(1, BLOCK_NUMBERS // max(1, rows.shape[1] * queries.shape[1]))
    for start in range(0, len(queries), step):
        block = slice(start, start + step)
        differences = vectors[rows[block]] - queries[block, None]  # (b, k, d)
        result[block] = np.einsum("bkd,bkd->bk", differences, differences)
    return result


def exact_neighbors(queries: np.ndarray, blocks: Blocks, count: int, k: int) -> np.ndarray:
    """Squared distances float32 (q, k), ascending, to the nearest of `count` vectors, which `blocks` gives in turn."""
    best = np.full((len(queries), k), np.inf, np.float32)
    for start in range(0, count, BLOCK_ROWS):
        vectors = blocks(start, min(start + BLOCK_ROWS, count))
        _, rows = faiss.knn(queries, vectors, min(k, len(vectors)))
        squared = exact_distances(queries, vectors, rows)
        best = np.sort(np.concatenate([best, squared], axis=1), axis=1)[:, :k]
    return best
