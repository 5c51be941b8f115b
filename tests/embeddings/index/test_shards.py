"""An index in several shards finds what one finds: in this process here, on Ray in tests/test_on_ray.py."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import faiss
import numpy as np
import pytest
from clustered_vectors import QUERIES, VECTORS, by_hand
from refusals import refusal

from embeddings.index import Index
from embeddings.index.generations import CURRENT
from embeddings.index.kinds import KINDS
from embeddings.index.shards import shard_of

# Each vector four times, in an order that has nothing to do with their ids.
IDS = np.random.default_rng(4).permutation(3000) * 3
COPIES = np.tile(VECTORS[:750], (4, 1))


def check_same(found, expected) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert found.missing == ()


@pytest.fixture(params=[True, False])
def in_either_way(request, monkeypatch) -> None:
    """faiss computes distances of many queries from products of matrices, those of few one by one."""
    if request.param:
        monkeypatch.setattr(faiss.cvar, "distance_compute_blas_threshold", 1)


@pytest.mark.usefixtures("in_either_way")
@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("shards", [2, 5])
def test_exact_shards_are_one_index_to_the_last_bit(metric, shards):
    one, several = (Index.build(COPIES, IDS, metric=metric, shards=count) for count in (1, shards))
    assert (one.shards, several.shards, len(several)) == (1, shards, 3000)
    among = IDS[IDS % 2 == 0]
    for _ in range(2):
        for queries in (QUERIES, COPIES[:1]):
            for k in (1, 10, 101):  # and keeps few and many in two ways
                check_same(several.search(queries, k), one.search(queries, k))
                check_same(several.search(queries, k, among=among), one.search(queries, k, among=among))
        for index in (one, several):
            index.remove(among[:500])
            index.add(VECTORS[:500], among[:500])
    assert sorted(several.ids) == sorted(one.ids) == sorted(IDS)


@pytest.mark.usefixtures("in_either_way")
@pytest.mark.parametrize("shards", [1, 3])
def test_of_equal_distances_the_lowest_ids_are_found_first(shards):
    vectors = np.tile(VECTORS[:3], (1000, 1))
    ids = np.random.default_rng(7).permutation(3000)
    index = Index.build(vectors, ids, metric="l2", shards=shards)
    for queries in (VECTORS[:3], np.tile(VECTORS[:3], (20, 1))):
        found = index.search(queries, 40)
        for place in range(3):
            assert found.ids[place].tolist() == sorted(ids[place::3])[:40]
    few = index.search(VECTORS[:1], 4, among=np.sort(ids[::3])[100:]).ids
    assert few.tolist() == [np.sort(ids[::3])[100:104].tolist()]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "flat"])
def test_shards_of_other_kinds_find_as_many(kind):
    one, several = (Index.build(VECTORS, kind=kind, metric="l2", shards=count) for count in (1, 3))
    _, rows = by_hand(VECTORS, QUERIES, 10)
    shares = [
        np.mean([len(set(a) & set(b)) / 10 for a, b in zip(index.search(QUERIES, 10).ids, rows, strict=True)])
        for index in (one, several)
    ]
    assert shares[1] >= shares[0] - 0.02 and several.recall.value >= one.recall.value - 0.02
    if kind == "ivf":  # trained once: the same lists, of which the same are read
        assert several.nprobe == one.nprobe
        np.testing.assert_array_equal(several.search(QUERIES, 10).ids, one.search(QUERIES, 10).ids)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mapped", [False, True])
def test_saved_shards_are_loaded(kind, mapped, tmp_path):
    index = Index.build(VECTORS, IDS, kind=kind, shards=2, source={"encoder": "abc"})
    index.remove(IDS[:40])
    index.save(tmp_path)
    assert sorted(path.name.partition(".")[2] for path in tmp_path.glob("generation-*")) == [
        "shard-00000.faiss", "shard-00000.ids.npy", "shard-00001.faiss", "shard-00001.ids.npy",
    ]  # fmt: skip
    loaded = Index.load(tmp_path, mapped=mapped)
    check_same(loaded.search(QUERIES, 5), index.search(QUERIES, 5))
    assert (loaded.shards, len(loaded), loaded.recall) == (2, 2960, index.recall)
    if not mapped:
        loaded.add(VECTORS[:40], IDS[:40])
        loaded.save(tmp_path)
        assert len(Index.load(tmp_path)) == 3000


def test_what_cannot_be_is_refused_and_changes_no_shard(tmp_path):
    index = Index.build(VECTORS, IDS, shards=3)
    assert "is in the index already" in refusal(index.add, VECTORS[:2], np.array([1, IDS[7]]))
    assert "1 ids are not in the index (4 is the first)" in refusal(index.remove, np.array([3, 4]))
    assert "among 3000 vectors in the index" in refusal(index.search, QUERIES, 3001)
    assert "among 2 vectors left" in refusal(index.search, QUERIES, 3, among=np.array([0, 3, 4]))
    assert "among 0 vectors left" in refusal(index.search, QUERIES, 1, among=np.array([1]))
    assert "0 shards" in refusal(Index.build, VECTORS, shards=0)
    assert len(index) == 3000 and len(Index.build(VECTORS[:2], shards=9).search(QUERIES, 2).ids) == 60
    index.save(tmp_path)
    damaged = next(tmp_path.glob("*shard-00001.faiss"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    assert "shard-00001.faiss is damaged" in refusal(Index.load, tmp_path)
    damaged.unlink()
    assert "shard-00001.faiss is gone" in refusal(Index.load, tmp_path, mapped=True)


def test_ids_of_any_pattern_are_shared_out_evenly():
    for step in (1, 4, 784, 2**20):
        counts = np.bincount(shard_of(np.arange(40_000) * step, 4), minlength=4)
        assert counts.min() > 9_500


def build_for_ever(folder: Path) -> None:
    while True:
        Index.build(VECTORS, shards=3).save(folder, replace=True)


def test_a_killed_build_leaves_the_whole_index_of_before(tmp_path):
    Index.build(VECTORS, shards=2).save(tmp_path)
    process = multiprocessing.get_context("spawn").Process(target=build_for_ever, args=(tmp_path,))
    process.start()
    before = (tmp_path / CURRENT).read_text()
    while (tmp_path / CURRENT).read_text() == before:
        assert process.is_alive()
        time.sleep(0.01)
    time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    check_same(Index.load(tmp_path).search(QUERIES, 5), Index.build(VECTORS).search(QUERIES, 5))
    Index.build(VECTORS, shards=2).save(tmp_path, replace=True)
    assert len(list(tmp_path.glob("generation-*"))) == 4
    assert json.loads((tmp_path / CURRENT).read_text())["format"] == 3
