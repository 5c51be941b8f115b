"""The index of extracted vectors: built, brought up to date, and what it says of itself."""

import shutil
from pathlib import Path

from refusals import refusal

from embeddings.build import describe_recall, index_folder, main, open_index
from embeddings.config import Build
from embeddings.index import Index
from embeddings.vectors import Vectors


def test_build_says_what_the_speed_costs(pooled, tmp_path, capsys):
    copy = Path(shutil.copytree(pooled.folder, tmp_path / "v"))
    main(Build(copy, rebuild=True, kind="ivf", nlist=9, recall=0.9))
    shown = capsys.readouterr().out
    index = Index.load(index_folder(Vectors(copy)))
    assert f"finds {index.recall.value:.3f} of the 10 nearest" in shown and "ivf" in shown
    index.recall = index.recall._replace(value=0.85)
    assert "finds 0.850 of the 10 nearest, BELOW the 0.9 asked for" in describe_recall(index)
    main(Build(copy))  # as it is
    assert "no index" not in capsys.readouterr().err


def test_shards_are_built_once_and_searched_as_they_are(pooled, tmp_path, capsys):
    copy = Path(shutil.copytree(pooled.folder, tmp_path / "v", ignore=shutil.ignore_patterns("index")))
    main(Build(copy, shards=3))
    assert "cosine distance, 3 shards" in capsys.readouterr().out
    assert open_index(Vectors(copy)).shards == 3
    message = refusal(open_index, Vectors(copy), Build(copy, shards=2))
    assert "has 3 shards, not 2" in message and "--rebuild" in message
    assert open_index(Vectors(copy), Build(copy, shards=2, rebuild=True)).shards == 2


def test_a_damaged_index_is_one_sentence_and_can_be_built_again(pooled, tmp_path):
    copy = Path(shutil.copytree(pooled.folder, tmp_path / "v"))
    open_index(Vectors(copy))
    (engine,) = index_folder(Vectors(copy)).glob("*.faiss")
    engine.write_bytes(engine.read_bytes()[:1000])
    assert "is cut off" in refusal(open_index, Vectors(copy))
    assert len(open_index(Vectors(copy), Build(copy, rebuild=True))) == 90
    assert len(open_index(Vectors(copy))) == 90


def test_an_index_in_memory_outlives_its_files(pooled, tmp_path):
    """A process whose mapped file is cut off, as `cp` does first, is ended by a signal."""
    copy = Path(shutil.copytree(pooled.folder, tmp_path / "v"))
    mapped, read = (open_index(Vectors(copy), mapped=is_mapped) for is_mapped in (True, False))
    found = mapped.search(Vectors(copy)[:3], 5)
    del mapped
    for file in index_folder(Vectors(copy)).iterdir():
        file.write_bytes(b"")
    assert (read.search(Vectors(copy)[:3], 5).ids == found.ids).all()
