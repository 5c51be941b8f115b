import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
from contextlib import ExitStack
from threading import Thread

import pytest
import torch
from safetensors.torch import save_file

from pretrain import files
from pretrain.command import UserError
from pretrain.files import (
    read_tensors,
    restore_folder,
    scratch_folder,
    sole_writer,
    stored_digest,
    stored_json,
    whole_folder,
    write_json,
    write_tensors,
    write_whole,
)

TENSORS = {"weight": torch.randn(3, 4), "count": torch.tensor(7), "view": torch.arange(6).reshape(2, 3).T}
METADATA = {"name": "größe", "levels": ["a", "b"], "rate": 1e-4, "none": None}


def test_the_folder_is_made_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "new" / "figures.json"
    write_whole(path, b"first")
    write_whole(path, b"second")
    assert path.read_bytes() == b"second"
    assert [entry.name for entry in path.parent.iterdir()] == ["figures.json"]


def test_the_longest_names_are_written(tmp_path):
    for name in ("a" * 255, "ä" * 127):
        write_whole(tmp_path / name, b"data")
        assert (tmp_path / name).read_bytes() == b"data"


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


def test_no_bit_changes_unnoticed(tmp_path):
    path = tmp_path / "file.safetensors"
    write_tensors(path, TENSORS, METADATA)
    whole, digest = path.read_bytes(), stored_digest(path)
    key = whole.index(b"digest")  # one that is not found is none, and all else is as it was
    for at in {*range(len(whole))} - {*range(key, key + 6)}:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        with pytest.raises(UserError, match="damaged|not written by heldout"):
            read_tensors(path)
    write_tensors(path, TENSORS, METADATA)
    assert path.read_bytes() == whole and stored_digest(path) == digest
    write_tensors(path, {**TENSORS, "count": torch.tensor(8)}, METADATA)
    assert stored_digest(path) != digest


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
    held = ExitStack()
    held.enter_context(sole_writer(folder))
    ending = Thread(target=held.close)  # as a line ends that was made in another
    ending.start()
    ending.join()
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


def test_what_was_read_does_not_change_with_its_file(tmp_path):
    path = tmp_path / "file.safetensors"
    write_tensors(path, {"weight": torch.ones(100_000)}, METADATA)
    tensors, _ = read_tensors(path)
    with open(path, "r+b") as file:  # as `cp` of another file over it does
        file.truncate(1000)
        file.write(bytes(400_000))
    assert torch.equal(tensors["weight"], torch.ones(100_000))


def test_a_header_nested_too_deep_is_damage(tmp_path):
    for header in ({"heldout": "[" * 100_000}, {"heldout": '{"a":' * 100_000}):
        save_file({"a": torch.zeros(1)}, tmp_path / "file.safetensors", header)
        with pytest.raises(UserError, match="damaged"):
            read_tensors(tmp_path / "file.safetensors")


def test_damaged_json_is_said_with_what_to_do(tmp_path):
    (tmp_path / "figures.json").write_text("{")
    with pytest.raises(UserError, match="figures.json is damaged .*: draw it anew"):
        stored_json(tmp_path / "figures.json", "draw it anew")


@pytest.fixture
def old(tmp_path):
    """A folder with two parts that are to be replaced, and what somebody added."""
    folder = tmp_path / "model"
    (folder / "notes").mkdir(parents=True)
    for name in ("method", "encoder", "notes/mine.txt"):
        (folder / name).write_text(f"old {name}")
    return folder


def content(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("exchanges", [True, False], ids=["in one step", "in three"])
def test_a_folder_takes_the_place_of_the_old_one_and_keeps_what_was_added(exchanges, old, tmp_path, monkeypatch):
    if not exchanges:  # another system, or a disk that cannot
        monkeypatch.setattr(files, "RENAME_EXCHANGE", 1 << 30)
    with whole_folder(old, replaced=["method", "encoder"]) as unfinished:
        (unfinished / "method").write_text("new")
        assert content(old)["method"] == "old method"
    assert content(old) == {"method": "new", "notes/mine.txt": "old notes/mine.txt"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    with whole_folder(tmp_path / "another") as unfinished:
        (unfinished / "method").write_text("new")
    assert content(tmp_path / "another") == {"method": "new"}


def test_a_folder_that_is_not_finished_leaves_the_old_one(old, tmp_path):
    before = content(old)
    with pytest.raises(OSError, match="full"), whole_folder(old) as unfinished:
        (unfinished / "method").write_text("half")
        raise OSError(28, "full")
    assert content(old) == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_killed_writer_leaves_the_old_ones_and_its_rest_goes_with_the_next(old, tmp_path):
    before = content(old)
    code = f"""
        import os, signal
        from pathlib import Path
        from pretrain import files
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        with files.whole_folder(Path({str(old)!r})) as unfinished:
            (unfinished / "method").write_text("half")
            files.write_whole(Path({str(old)!r}) / "encoder", b"half")
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = list(tmp_path.rglob(".*.part"))
    assert len(left) == 2 and {name: text for name, text in content(old).items() if name in before} == before
    write_whole(old / "encoder", b"new")
    with whole_folder(old) as unfinished:
        (unfinished / "method").write_text("new")
    assert not list(tmp_path.rglob(".*.part"))
    assert content(old) == {**before, "encoder": "new", "method": "new"}


@pytest.mark.parametrize("renames", [0, 1, 2, 3])
def test_whoever_is_killed_in_an_exchange_of_three_steps_leaves_one_or_the_other(renames, old, tmp_path):
    """At the first one nothing has happened, after the last one all."""
    code = f"""
        import os, signal
        from pathlib import Path
        from pretrain import files
        files.RENAME_EXCHANGE = 1 << 30
        left, rename = iter(range({renames})), Path.rename
        def counted(*names):
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(*names)
        Path.rename = counted
        with files.whole_folder(Path({str(old)!r}), replaced=["method", "encoder"]) as unfinished:
            (unfinished / "method").write_text("new")
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert killed.returncode == (0 if renames == 3 else -signal.SIGKILL)
    assert old.exists() == (renames != 1)
    restore_folder(old)
    assert content(old)["method"] == ("new" if renames > 1 else "old method")
    assert content(old)["notes/mine.txt"] == "old notes/mine.txt"
    assert not list(tmp_path.glob(".*.old"))
    files._clear_away.cache_clear()
    with whole_folder(old) as unfinished:
        (unfinished / "method").write_text("newer")
    assert [path.name for path in tmp_path.iterdir()] == ["model"] and content(old)["method"] == "newer"


def test_what_a_killed_process_left_in_its_scratch_folder_goes_with_the_next(tmp_path, monkeypatch):
    code = """
        import os, signal
        from pretrain.files import scratch_folder
        with scratch_folder("work") as folder:
            (folder / "large").write_bytes(bytes(1000))
            os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    assert subprocess.run(command, check=False, env={**os.environ, "TMPDIR": str(tmp_path)}).returncode == -9
    assert len(list(tmp_path.rglob("large"))) == 1
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch_folder("other") as folder:
        assert list(tmp_path.iterdir()) == [folder] and folder.stat().st_mode & 0o077 == 0
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_of_a_folder_is_refused(tmp_path):
    (tmp_path / "model").write_text("mine")
    with pytest.raises(FileExistsError, match="is a file"), whole_folder(tmp_path / "model"):
        pytest.fail("began")
    assert (tmp_path / "model").read_text() == "mine"
