import json
import os
import struct

import pytest
import torch
from safetensors.torch import save_file

from pretrain.command import UserError
from pretrain.files import read_tensors, sole_writer, write_json, write_tensors, write_whole

TENSORS = {"weight": torch.randn(3, 4), "count": torch.tensor(7), "view": torch.arange(6).reshape(2, 3).T}
METADATA = {"name": "größe", "levels": ["a", "b"], "rate": 1e-4, "none": None}


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
def test_a_folder_in_the_way_is_refused(folder, tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder"):
        write_whole(tmp_path / folder, b"data")


def test_json_is_indented_and_whole(tmp_path):
    write_json(tmp_path / "new" / "metadata.json", {"threshold": 0.5, "names": ["a"]})
    text = (tmp_path / "new" / "metadata.json").read_text()
    assert json.loads(text) == {"threshold": 0.5, "names": ["a"]}
    assert text.startswith("{\n  ") and text.endswith("}\n")


def test_round_trip_is_exact(tmp_path):
    path = tmp_path / "new" / "file.safetensors"
    write_tensors(path, TENSORS, METADATA)
    tensors, metadata = read_tensors(path)
    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()
    assert all(
        torch.equal(tensors[name], TENSORS[name]) and tensors[name].dtype == TENSORS[name].dtype for name in TENSORS
    )
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.safetensors"
    write_tensors(path, TENSORS, METADATA)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_tensors(path, {}, {})
    assert read_tensors(path)[1] == METADATA
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_has_one_writer_at_a_time(tmp_path):
    folder = tmp_path / "made" / "here"
    with (
        sole_writer(folder),
        pytest.raises(UserError, match=f"^another process trains in {folder}: wait for it, or choose another --out.$"),
        sole_writer(folder, "trains in", "another --out"),
    ):
        pytest.fail("two writers")
    with sole_writer(folder):
        pass


def test_damaged_foreign_and_missing_files_are_refused(tmp_path):
    path = tmp_path / "file.safetensors"
    write_tensors(path, TENSORS, METADATA)
    whole = path.read_bytes()
    for content in (b"", whole[:5], whole[:-1], b"\x80\x04pickle", struct.pack("<Q", 1 << 60) + whole[8:]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="damaged or no safetensors file"):
            read_tensors(path)
    save_file(TENSORS | {"view": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="not written by heldout"):
        read_tensors(path)
    save_file({"a": torch.zeros(1)}, path, {"heldout": json.dumps([1, 2])})
    with pytest.raises(UserError, match="not written by heldout"):
        read_tensors(path)
    with pytest.raises(UserError, match="there is no file"):
        read_tensors(tmp_path / "none")
