"""Recall is measured, and searches are as wide as the recall wanted."""

import numpy as np
import pytest
from clustered_vectors import DIMENSIONS, QUERIES, VECTORS, by_hand

from embeddings.index import Index
from embeddings.index.kinds import KINDS

APPROXIMATE = tuple(kind for kind in KINDS if kind != "flat")


@pytest.fixture(scope="module", params=APPROXIMATE)
def approximate(request) -> Index:
    return Index.build(VECTORS, np.arange(3000) * 7, kind=request.param, metric="l2")


def test_approximate_search_reaches_what_it_promises(approximate):
    expected, rows = by_hand(VECTORS, QUERIES, 10)
    _, ids = approximate.search(QUERIES, 10)
    found = np.mean([len(set(a) & set(b * 7)) / 10 for a, b in zip(ids, rows, strict=True)])
    assert approximate.recall.value == pytest.approx(found, abs=0.1)
    if approximate.spec.kind != "ivfpq":  # three bytes a vector cannot
        assert approximate.recall.value >= 0.95 and found >= 0.93
        assert (approximate.nprobe or approximate.ef_search) < 3000 and approximate.recall.queries == 500


def test_recall_is_measured_not_assumed():
    careless = Index.build(VECTORS, kind="ivf", nlist=50, nprobe=1)
    careful = Index.build(VECTORS, kind="ivf", nlist=50, nprobe=50)
    assert careful.recall.value == 1.0 and careless.recall.value < 0.97
    assert careless.search(QUERIES, 3, nprobe=50).ids.tolist() == careful.search(QUERIES, 3).ids.tolist()
    demanding = Index.build(VECTORS, kind="ivf", nlist=50, recall=0.995)
    assert careless.nprobe < demanding.nprobe and demanding.recall.value >= 0.995


def test_recall_of_queries_like_those_to_come():
    far = np.random.default_rng(3).normal(0, 1, (50, DIMENSIONS)).astype("f4")
    index = Index.build(VECTORS, kind="ivf", nlist=50, metric="l2", nprobe=2, trial=far)
    _, rows = by_hand(VECTORS, far, 10)
    found = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(index.search(far, 10).ids, rows, strict=True)])
    assert index.recall.value == pytest.approx(found, abs=1e-6) and index.recall.queries == 50
