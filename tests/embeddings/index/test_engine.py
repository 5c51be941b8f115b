"""Searching among given rows only, in each kind of index."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
from clustered_vectors import QUERIES, VECTORS, by_hand

from embeddings.index import Index
from embeddings.index.kinds import KINDS, search_parameters


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


def test_neighbors_that_differ_by_less_than_rounding_are_told_apart(monkeypatch):
    """|a|^2 + |b|^2 - 2ab, by which faiss ranks where many queries come at once, has none of these digits."""
    monkeypatch.setattr(faiss.cvar, "distance_compute_blas_threshold", 1)
    near = VECTORS[0] + np.random.default_rng(3).normal(0, 1e-4, VECTORS.shape).astype("f4")
    index = Index.build(near, metric="l2")
    for queries in (near[:1], near[:40]):
        for among in (None, np.arange(2000)):
            _, rows = by_hand(near[:2000] if among is not None else near, queries, 5)
            np.testing.assert_array_equal(index.search(queries, 5, among=among).ids, rows)


@pytest.mark.parametrize("kind", KINDS)
def test_filters_of_many_vectors_are_searched_by_list_and_graph(kind, monkeypatch):
    monkeypatch.setattr("embeddings.index.engine.MAX_GATHERED", 5)
    index = Index.build(VECTORS, kind=kind, metric="l2", nprobe=8, ef_search=8)
    nearest = index.search(QUERIES[:1], 40).ids[0]
    allowed = np.setdiff1d(np.arange(3000), nearest)  # none of those on the way
    assert np.isin(index.search(QUERIES, 10, among=allowed).ids, allowed).all()
    six = np.arange(6) * 400
    assert (np.sort(index.search(QUERIES, 6, among=six).ids, axis=1) == six).all()


class Copied:
    """What faiss makes of an index on several GPUs, which are not there: it takes no parameters with a search."""

    def __init__(self, index) -> None:
        self.index, self.nprobe, self.searches = index, 1, 0

    def search(self, queries, k):
        self.searches += 1
        has_lists = hasattr(self.index, "nlist")
        return self.index.search(queries, k, params=search_parameters("ivf" if has_lists else "flat", self.nprobe))


@pytest.fixture
def gpus(monkeypatch) -> list[Copied]:
    """Two GPUs that faiss sees; the copies that it makes there."""
    copies: list[Copied] = []
    space = SimpleNamespace(set_index_parameter=setattr)
    monkeypatch.setattr("faiss.get_num_gpus", lambda: 2)
    monkeypatch.setattr("faiss.GpuParameterSpace", lambda: space)
    monkeypatch.setattr("faiss.index_cpu_to_all_gpus", lambda index: copies.append(Copied(index)) or copies[-1])
    return copies


@pytest.mark.parametrize("kind", KINDS)
def test_the_gpus_that_faiss_sees_search_what_they_can(kind, gpus):
    index = Index.build(VECTORS, kind=kind, metric="l2", nprobe=8, ef_search=8)
    expected = index.search(QUERIES, 5)
    assert not gpus  # it was not asked to
    index.to("cuda")
    for _ in range(2):
        for found, wanted in zip(index.search(QUERIES, 5), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)
    assert [copy.searches for copy in gpus] == ([] if kind == "hnsw" else [2])  # one copy, and hnsw has none
    index.search(QUERIES, 5, among=np.arange(2900))
    index.search(QUERIES, 2049)  # more than they give
    assert sum(copy.searches for copy in gpus) == 2 * len(gpus)
    index.add(VECTORS[:1])
    index.search(QUERIES, 5)
    index.to("cpu").search(QUERIES, 5)
    # What was copied lacks the new one, so there is another copy.
    assert [copy.searches for copy in gpus] == ([] if kind == "hnsw" else [2, 1])


def test_two_threads_search_a_gpu_each_with_its_own_breadth(gpus):
    index = Index.build(VECTORS, kind="ivf", nlist=50, metric="l2", nprobe=1)
    narrow, wide = (index.search(QUERIES, 5, nprobe=breadth).ids for breadth in (1, 50))
    assert (narrow != wide).any()
    index.to("cuda").search(QUERIES, 5)
    (copy,), whole = gpus, threading.Event()

    def search_slowly(queries, k):
        whole.wait(0.2)  # meanwhile the other may set what it likes
        return Copied.search(copy, queries, k)

    copy.search = search_slowly
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(index.search, QUERIES, 5, nprobe=1)
        second = threads.submit(index.search, QUERIES, 5, nprobe=50)
        np.testing.assert_array_equal(first.result().ids, narrow)
        np.testing.assert_array_equal(second.result().ids, wide)


def test_an_index_that_gpus_refuse_is_searched_on_the_cpu(gpus, monkeypatch, capsys):
    def refuse(index):
        raise RuntimeError("Number of bytes per encoded vector / sub-quantizers (40) is not supported")

    monkeypatch.setattr("faiss.index_cpu_to_all_gpus", refuse)
    index = Index.build(VECTORS, kind="flat", metric="l2").to("cuda")
    assert index.search(QUERIES, 2).ids.shape == (len(QUERIES), 2) == index.search(QUERIES, 2).ids.shape
    assert capsys.readouterr().err.count("searching on the CPU: faiss's GPUs refuse the index") == 1
