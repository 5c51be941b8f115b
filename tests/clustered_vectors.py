"""Vectors as features are, and their neighbors from the definition: for the tests of the index."""

import numpy as np

DIMENSIONS = 24


def clustered(count: int, seed: int = 0) -> np.ndarray:
    """Vectors as features are: around some centers, float32 (count, DIMENSIONS)."""
    generator = np.random.default_rng(seed)
    centers = np.random.default_rng(1).normal(size=(40, DIMENSIONS))
    return (centers[generator.integers(40, size=count)] + generator.normal(0, 0.4, (count, DIMENSIONS))).astype("f4")


VECTORS, QUERIES = clustered(3000), clustered(60, seed=5)


def by_hand(vectors: np.ndarray, queries: np.ndarray, k: int, metric: str = "l2") -> tuple[np.ndarray, np.ndarray]:
    """Distances and rows from the definition, in double precision."""
    vectors, queries = vectors.astype("f8"), queries.astype("f8")
    if metric == "cosine":
        lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)
        distances = 1 - queries @ vectors.T / lengths
    else:
        distances = np.linalg.norm(queries[:, None] - vectors, axis=2)
    rows = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, rows, 1), rows
