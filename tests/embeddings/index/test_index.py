"""The index: exact where it says so, filters that hold, nothing lost to writers, a sentence for what cannot be."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from embeddings.index import Index
from embeddings.index.generations import CURRENT, sole_writer
from embeddings.index.kinds import KINDS, IndexSpec, choose_kind, complete
from pretrain.command import UserError

DIMENSIONS = 24
APPROXIMATE = tuple(kind for kind in KINDS if kind != "flat")


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


def refusal(work, *arguments, **named) -> str:
    """What the user reads: one sentence."""
    with pytest.raises(UserError) as raised:
        work(*arguments, **named)
    message = str(raised.value)
    assert "\n" not in message and message.endswith((".", "?"))
    return message


@pytest.fixture(scope="module", params=APPROXIMATE)
def approximate(request) -> Index:
    return Index.build(VECTORS, np.arange(3000) * 7, kind=request.param, metric="l2")


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


def test_distances_do_not_depend_on_the_batch_and_equal_vectors_are_at_none():
    vectors = VECTORS + 50  # far from the origin, where |a|^2 + |b|^2 - 2ab has no digits left
    index = Index.build(vectors, metric="l2")
    together = index.search(vectors[:100], 3)
    assert (together.distances[:, 0] == 0).all() and (together.ids[:, 0] == np.arange(100)).all()
    alone = [index.search(vectors[row], 3) for row in range(100)]
    np.testing.assert_array_equal(together.distances, np.concatenate([found.distances for found in alone]))


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


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ({"kind": "ivfqp"}, "did you mean ivfpq?"),
        ({"metric": "cosin"}, "did you mean cosine?"),
        ({"recall": 0.0}, "recall of 0.0"),
        ({"recall": 95}, "recall of 95"),
        ({"kind": "ivf", "nlist": 4000}, "3000 vectors do not fill 4000 lists"),
        ({"kind": "hnsw", "m": 1}, "a graph of 1 links per vector"),
        ({"kind": "ivfpq", "code_size": 7}, "24 dimensions cannot be cut evenly into 7 bytes"),
    ],
)
def test_builds_that_cannot_be(asked, answer):
    assert answer in refusal(Index.build, VECTORS, **asked)


def test_no_vectors_make_no_index():
    assert "(0, 24)" in refusal(Index.build, VECTORS[:0])
    assert "(3,)" in refusal(Index.build, np.zeros(3, np.float32))


def test_kind_follows_from_size_recall_and_memory():
    assert choose_kind(50_000, 384, 0.95) == "flat"
    assert choose_kind(1_000_000, 384, 1.0) == "flat"
    assert choose_kind(1_000_000, 384, 0.95, memory_bytes=8 << 30) == "ivf"
    assert choose_kind(10_000_000, 384, 0.95, memory_bytes=8 << 30) == "ivfpq"
    assert complete(IndexSpec("ivf"), 1_000_000, 384).nlist == 2000
    assert complete(IndexSpec("ivfpq"), 1_000_000, 384).code_size == 48
    assert complete(IndexSpec("ivf"), 5, 384).nlist == 1


def test_the_same_seed_is_the_same_index():
    first, second = (Index.build(VECTORS, kind="ivf", seed=4) for _ in range(2))
    assert first.search(QUERIES, 5).ids.tolist() == second.search(QUERIES, 5).ids.tolist()
    assert first.nprobe == second.nprobe


def test_damaged_truncated_and_missing_indexes_are_one_sentence(tmp_path):
    Index.build(VECTORS).save(tmp_path / "index")
    (engine,) = (tmp_path / "index").glob("*.faiss")
    whole, current = engine.read_bytes(), (tmp_path / "index" / CURRENT)
    for mapped in (False, True):
        engine.write_bytes(whole[: len(whole) // 2])
        assert "is cut off" in refusal(Index.load, tmp_path / "index", mapped=mapped)
    engine.write_bytes(whole[:5000] + bytes(8) + whole[5008:])
    assert "checksum" in refusal(Index.load, tmp_path / "index")
    engine.write_bytes(bytes(len(whole)))
    assert "is damaged" in refusal(Index.load, tmp_path / "index", mapped=True)
    engine.unlink()
    assert "is gone" in refusal(Index.load, tmp_path / "index")
    metadata = json.loads(current.read_text())
    for text in ("", "{", "[]", "{}", '{"generation": 3, "files": {}}'):
        current.write_text(text)
        assert "damaged" in refusal(Index.load, tmp_path / "index")
    current.write_text(json.dumps({**metadata, "format": 99}))
    assert "format 99, this heldout reads 2: update heldout" in refusal(Index.load, tmp_path / "index")
    current.write_text(json.dumps({**metadata, "format": 1}))
    assert "format 1, this heldout reads 2: build it again" in refusal(Index.load, tmp_path / "index")
    assert "there is no index" in refusal(Index.load, tmp_path / "none")
    assert "by another process" in refusal(Index.build(VECTORS).save, tmp_path / "index")
    Index.build(VECTORS).save(tmp_path / "index", replace=True)
    assert len(Index.load(tmp_path / "index")) == 3000


def test_two_writers_at_once_lose_nothing(tmp_path):
    Index.build(VECTORS[:10]).save(tmp_path)
    first, second = Index.load(tmp_path), Index.load(tmp_path)
    first.add(VECTORS[10:11])
    first.save(tmp_path)
    second.add(VECTORS[11:12])
    assert "was changed by another process" in refusal(second.save, tmp_path)
    assert "was written by another process" in refusal(Index.build(VECTORS).save, tmp_path)
    assert len(Index.load(tmp_path)) == 11
    first.remove(np.array([3]))  # the one that saved last goes on
    first.save(tmp_path)
    with sole_writer(tmp_path):
        assert "another process writes" in refusal(first.save, tmp_path)
    assert len(Index.load(tmp_path)) == 10


def save_for_ever(folder: Path) -> None:
    index = Index.load(folder)
    while True:
        index.save(folder)


def test_a_killed_save_leaves_a_whole_index(tmp_path):
    Index.build(np.tile(VECTORS, (10, 1))).save(tmp_path)
    generator = np.random.default_rng(0)
    context = multiprocessing.get_context("spawn")
    seen = set()
    for _ in range(4):
        process = context.Process(target=save_for_ever, args=(tmp_path,))
        process.start()
        before = json.loads((tmp_path / CURRENT).read_text())["generation"]
        while json.loads((tmp_path / CURRENT).read_text())["generation"] == before:
            assert process.is_alive()
            time.sleep(0.01)
        time.sleep(generator.random() * 0.1)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        index = Index.load(tmp_path)
        seen.add(index._generation)
        assert len(index) == 30_000 and index.search(VECTORS[5], 1).distances[0, 0] == pytest.approx(0, abs=1e-6)
    assert len(seen) > 1
    index.save(tmp_path)
    assert len(list(tmp_path.glob("generation-*"))) == 2


def test_a_disk_that_is_full_leaves_the_old_index(tmp_path, monkeypatch):
    Index.build(VECTORS).save(tmp_path)
    index = Index.load(tmp_path)
    index.add(VECTORS)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        index.save(tmp_path)
    monkeypatch.undo()
    assert len(Index.load(tmp_path)) == 3000
    assert len(list(tmp_path.glob("generation-*"))) == 2
