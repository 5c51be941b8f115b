"""Searching among given rows only, in each kind of index."""

import numpy as np
import pytest
from clustered_vectors import QUERIES, VECTORS, by_hand

from embeddings.index import Index
from embeddings.index.kinds import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_filters_hold_even_if_almost_nothing_is_left(kind):
    index = Index.build(VECTORS, kind=kind, metric="l2", nprobe=1, ef_search=1)
    generator = np.random.default_rng(2)
    for left in (1, 7, 300, 2900):
        allowed = np.sort(generator.choice(3000, left, replace=False))
        k = min(left, 7)
        distances, ids = index.search(QUERIES, k, among=allowed)
        assert np.isin(ids, allowed).all() and (np.diff(distances, axis=1) >= 0).all()
        if kind != "ivfpq":  # whose distances are those of codes
            expected, rows = by_hand(VECTORS[allowed], QUERIES, k)
            np.testing.assert_array_equal(ids, allowed[rows])
            np.testing.assert_allclose(distances, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_filters_of_many_vectors_are_searched_by_list_and_graph(kind, monkeypatch):
    monkeypatch.setattr("embeddings.index.engine.MAX_GATHERED", 5)
    index = Index.build(VECTORS, kind=kind, metric="l2", nprobe=8, ef_search=8)
    nearest = index.search(QUERIES[:1], 40).ids[0]
    allowed = np.setdiff1d(np.arange(3000), nearest)  # none of those on the way
    assert np.isin(index.search(QUERIES, 10, among=allowed).ids, allowed).all()
    six = np.arange(6) * 400
    assert (np.sort(index.search(QUERIES, 6, among=six).ids, axis=1) == six).all()
