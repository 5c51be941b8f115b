"""Files that are replaced all at once: nothing lost to writers, kills and full disks; damage is one sentence."""

import json
import multiprocessing
import os
import resource
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from clustered_vectors import VECTORS
from refusals import refusal

from embeddings.index import Index
from embeddings.index.generations import CURRENT
from pretrain.files import sole_writer, unsealed


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
    changed = json.dumps({**metadata, "metric": "changed"})
    for text in ("", "{", "[]", "{}", '{"generation": 3, "files": {}}', changed):
        current.write_text(text)
        assert "damaged" in refusal(Index.load, tmp_path / "index")
    metadata = unsealed(metadata)
    current.write_text(json.dumps({**metadata, "format": 99}))
    assert "format 99, this heldout reads 3: update heldout" in refusal(Index.load, tmp_path / "index")
    current.write_text(json.dumps({**metadata, "format": 1}))
    assert "format 1, this heldout reads 3: build it again" in refusal(Index.load, tmp_path / "index")
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


def test_a_disk_that_is_full_while_faiss_writes_is_no_fault_of_ours(tmp_path):
    """faiss raises what it also raises for its own faults. A limit on files stands for the disk's end."""
    index, limits = Index.build(VECTORS), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"faiss cannot be written: File too large"):
            index.save(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.glob("generation-*"))


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
