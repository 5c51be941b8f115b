"""Exact distances, to the last digit, and exact neighbors block by block."""

import numpy as np
from clustered_vectors import QUERIES, VECTORS, by_hand

from embeddings.index import Index
from embeddings.index.exact import exact_neighbors


def test_distances_do_not_depend_on_the_batch_and_equal_vectors_are_at_none():
    vectors = VECTORS + 50  # far from the origin, where |a|^2 + |b|^2 - 2ab has no digits left
    index = Index.build(vectors, metric="l2")
    together = index.search(vectors[:100], 3)
    assert (together.distances[:, 0] == 0).all() and (together.ids[:, 0] == np.arange(100)).all()
    alone = [index.search(vectors[row], 3) for row in range(100)]
    np.testing.assert_array_equal(together.distances, np.concatenate([found.distances for found in alone]))


def test_neighbors_over_blocks_are_the_definition(monkeypatch):
    expected, _ = by_hand(VECTORS, QUERIES, 7)
    monkeypatch.setattr("embeddings.index.exact.BLOCK_ROWS", 1000)  # 3 blocks
    squared = exact_neighbors(QUERIES, lambda start, end: VECTORS[start:end], len(VECTORS), 7)
    np.testing.assert_allclose(np.sqrt(squared), expected, rtol=1e-5)
