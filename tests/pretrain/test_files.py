import json
import os

import pytest

from pretrain.files import write_json, write_whole


def test_the_folder_is_made_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "new" / "figures.json"
    write_whole(path, b"first")
    write_whole(path, b"second")
    assert path.read_bytes() == b"second"
    assert [entry.name for entry in path.parent.iterdir()] == ["figures.json"]


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "figures.json"
    write_whole(path, b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["figures.json"]


@pytest.mark.parametrize("folder", ["/", "."])
def test_a_folder_in_the_way_is_told(folder, tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder"):
        write_whole(tmp_path / folder, b"data")


def test_json_is_indented_and_whole(tmp_path):
    write_json(tmp_path / "new" / "metadata.json", {"threshold": 0.5, "names": ["a"]})
    text = (tmp_path / "new" / "metadata.json").read_text()
    assert json.loads(text) == {"threshold": 0.5, "names": ["a"]}
    assert text.startswith("{\n  ") and text.endswith("}\n")
