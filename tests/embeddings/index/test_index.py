"""The index: exact where it says so, vectors that come and go, a sentence for what cannot be."""

import numpy as np
import pytest
from clustered_vectors import QUERIES, VECTORS, by_hand
from refusals import refusal

from embeddings.index import Index
from embeddings.index.kinds import KINDS


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("queries", [1, 60])  # faiss computes few and many in two ways
def test_exact_search_is_the_definition(metric, queries):
    index = Index.build(VECTORS, np.arange(3000) + 100, metric=metric)
    assert index.spec.kind == "flat" and index.recall is None
    distances, ids = index.search(QUERIES[:queries], 5)
    expected, rows = by_hand(VECTORS, QUERIES[:queries], 5, metric)
    np.testing.assert_array_equal(ids, rows + 100)
    np.testing.assert_allclose(distances, expected, rtol=1e-5)
    assert distances.dtype == np.float32 and ids.dtype == np.int64


@pytest.mark.parametrize("kind", KINDS)
def test_add_and_remove_without_rebuilding(kind):
    index = Index.build(VECTORS[:2000], np.arange(2000), kind=kind, metric="l2", recall=0.99)
    index.add(VECTORS[2000:], np.arange(2000, 3000))
    gone = np.arange(0, 3000, 2)
    assert index.remove(gone) == 1500
    assert len(index) == 1500 and sorted(index.ids) == list(range(1, 3000, 2))
    _, ids = index.search(QUERIES, 10)
    assert (ids % 2 == 1).all()
    _, rows = by_hand(VECTORS[1::2], QUERIES, 10)
    agreement = np.mean([len(set(a) & set(2 * b + 1)) / 10 for a, b in zip(ids, rows, strict=True)])
    assert agreement >= (0.3 if kind == "ivfpq" else 0.95)
    index.add(VECTORS[gone[:5]], gone[:5])  # an id may come back
    assert index.search(VECTORS[gone[:5]], 1).ids[:, 0].tolist() == gone[:5].tolist() or kind == "ivfpq"
    index.remove(index.ids)
    assert len(index) == 0
    assert "among 0 vectors" in refusal(index.search, QUERIES, 1)


def test_ids_follow_on_if_none_are_given():
    index = Index.build(VECTORS[:10], np.arange(10) + 5)
    index.add(VECTORS[10:13])
    assert index.ids.tolist() == [*range(5, 15), 15, 16, 17]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mapped", [False, True])
def test_saved_is_loaded(kind, mapped, tmp_path):
    index = Index.build(VECTORS, np.arange(3000) * 3, kind=kind, source={"encoder": "abc"})
    index.remove(np.arange(30) * 3)
    index.save(tmp_path / "index")
    loaded = Index.load(tmp_path / "index", mapped=mapped)
    before, after = index.search(QUERIES, 5), loaded.search(QUERIES, 5)
    np.testing.assert_array_equal(before.ids, after.ids)
    np.testing.assert_array_equal(before.distances, after.distances)
    assert (loaded.nprobe, loaded.ef_search, loaded.recall, loaded.spec, loaded.metric, loaded.source, len(loaded)) == (
        index.nprobe, index.ef_search, index.recall, index.spec, "cosine", {"encoder": "abc"}, 2970,
    )  # fmt: skip
    if mapped:
        assert "mapped=False" in refusal(loaded.add, VECTORS[:1], np.array([1]))
        assert "mapped=False" in refusal(loaded.remove, np.array([300]))
    else:
        loaded.add(VECTORS[:1], np.array([1]))
        loaded.save(tmp_path / "index")
        assert len(Index.load(tmp_path / "index")) == 2971


def test_a_mapped_index_outlives_its_replacement(tmp_path):
    Index.build(VECTORS).save(tmp_path)
    mapped = Index.load(tmp_path, mapped=True)
    before = mapped.search(QUERIES, 5).ids
    Index.build(VECTORS[::-1]).save(tmp_path, replace=True)
    np.testing.assert_array_equal(mapped.search(QUERIES, 5).ids, before)
    assert len(list(tmp_path.glob("generation-*"))) == 2  # the old one's files are gone


def test_another_source_is_refused():
    index = Index.build(VECTORS, source={"encoder": "one", "size_px": 128})
    index.search(QUERIES, 1, source={"encoder": "one"})
    message = refusal(index.search, QUERIES, 1, source={"encoder": "other", "size_px": 128})
    assert "encoder one" in message and "encoder other" in message


@pytest.mark.parametrize("kind", KINDS)
def test_values_that_are_no_numbers_are_refused_and_nothing_is_lost(kind):
    spoiled = VECTORS.copy()
    spoiled[2500, 3] = np.nan
    assert "vector 2500 holds values that are no numbers" in refusal(Index.build, spoiled, kind=kind)
    index = Index.build(VECTORS, kind=kind)
    spoiled[7, 0], spoiled[8] = np.inf, 0
    assert "vector 9012 holds" in refusal(index.add, spoiled[6:8], np.array([9011, 9012]))
    assert "no direction" in refusal(index.search, spoiled[8], 1)
    assert "no numbers" in refusal(index.search, spoiled[7], 1)
    assert len(index) == 3000


def test_nothing_goes_in_if_the_last_block_is_bad(monkeypatch):
    monkeypatch.setattr("embeddings.index.index.BLOCK_ROWS", 100)
    index = Index.build(VECTORS[:10])
    spoiled = VECTORS.copy()
    spoiled[-1] = np.nan
    refusal(index.add, spoiled)
    assert len(index) == 10 and index.search(QUERIES, 10).ids.max() == 9


def test_ids_that_cannot_be(tmp_path):
    index = Index.build(VECTORS[:10])
    assert "the id 3 is given twice" in refusal(Index.build, VECTORS[:3], np.array([3, 1, 3]))
    assert "the id 9 is in the index already" in refusal(index.add, VECTORS[:2], np.array([9, 10]))
    assert "whole numbers" in refusal(index.add, VECTORS[:2], np.array([1.0, 2.0]))
    assert "2 whole numbers" in refusal(index.add, VECTORS[:2], np.array([77]))
    assert "-1 cannot be an id" in refusal(index.add, VECTORS[:1], np.array([-1]))
    assert "44 is the first" in refusal(index.remove, np.array([3, 44]))
    assert "removed" in refusal(index.remove, np.array([-1]))
    assert len(index) == 10


def test_questions_that_cannot_be_answered():
    index = Index.build(VECTORS[:10])
    assert "11 neighbors cannot be found among 10 vectors in the index" in refusal(index.search, QUERIES, 11)
    assert "among 2 vectors left by the filter" in refusal(index.search, QUERIES, 3, among=np.array([1, 2, 99]))
    assert "among 0 vectors left" in refusal(index.search, QUERIES, 1, among=np.array([], np.int64))
    assert "0 neighbors" in refusal(index.search, QUERIES, 0)
    assert "24 dimensions" in refusal(index.search, QUERIES[:, :7], 1)
    assert "24 dimensions" in refusal(index.add, QUERIES[:, :7])
    assert index.search(QUERIES[:0], 4).ids.shape == (0, 4)


def test_no_vectors_make_no_index():
    assert "(0, 24)" in refusal(Index.build, VECTORS[:0])
    assert "(3,)" in refusal(Index.build, np.zeros(3, np.float32))


def test_the_same_seed_is_the_same_index():
    first, second = (Index.build(VECTORS, kind="ivf", seed=4) for _ in range(2))
    assert first.search(QUERIES, 5).ids.tolist() == second.search(QUERIES, 5).ids.tolist()
    assert first.nprobe == second.nprobe
