"""New files only, whole ones only, each once, whatever is restarted."""

import errno
import os
import threading
import time
from pathlib import Path

import pytest
from dying import has_room
from line_here import surroundings, until

from downstream.stations.contract import Frame
from downstream.stations.sources.config import Folder
from downstream.stations.sources.folder import FolderSource, unused


@pytest.fixture
def watching(tmp_path):
    """`watching()` gives a source and the list of frames that it has given, growing in a thread."""
    sources = []

    def watch(**options) -> tuple[FolderSource, list]:
        given = {"path": tmp_path / "in", "settle_s": 0.2, "every_s": 0.02, **options}
        source, frames = FolderSource(Folder(**given), surroundings(tmp_path)), []
        sources.append(source)
        threading.Thread(target=lambda: [frames.append(frame) for frame in source.frames()], daemon=True).start()
        return source, frames

    (tmp_path / "in").mkdir()
    yield watch
    for source in sources:
        source.stop()


def test_images_come_once_in_the_order_they_were_written(watching, tmp_path):
    for number, name in enumerate(("b.png", "a.jpg", "notes.txt", ".hidden.png", "c.PNG")):
        (tmp_path / "in" / name).write_bytes(b"x")
        os.utime(tmp_path / "in" / name, (1e9 + number, 1e9 + number))
    (tmp_path / "in" / "folder.png").mkdir()
    _, frames = watching()
    until(lambda: len(frames) == 3)
    time.sleep(0.1)
    assert [frame.name for frame in frames] == ["b.png", "a.jpg", "c.PNG"]
    assert len({frame.key for frame in frames}) == 3 and frames[0].path == tmp_path / "in" / "b.png"


def test_one_that_is_still_written_is_waited_for(watching, tmp_path):
    _, frames = watching(settle_s=1.0)
    with open(tmp_path / "in" / "slow.png", "wb") as file:
        for _ in range(8):
            file.write(b"part")
            file.flush()
            time.sleep(0.1)
            assert not frames
    until(lambda: frames)
    assert frames[0].key.split()[1] == "32"


def test_one_that_is_written_over_is_another_part(watching, tmp_path):
    _, frames = watching()
    (tmp_path / "in" / "current.png").write_bytes(b"first")
    until(lambda: len(frames) == 1)
    (tmp_path / "in" / "current.png").write_bytes(b"second")
    until(lambda: len(frames) == 2)
    assert frames[0].key != frames[1].key


def test_judged_ones_are_moved_and_none_is_written_over(watching, tmp_path):
    source, frames = watching(done=tmp_path / "done")
    assert not source.stays
    for _ in range(2):
        count = len(frames)
        (tmp_path / "in" / "a.png").write_bytes(b"x")
        until(lambda count=count: len(frames) == count + 1)
        source.settled(frames[-1])
    assert sorted(path.name for path in (tmp_path / "done").iterdir()) == ["a.1.png", "a.png"]
    source.settled(frames[0])  # taken away meanwhile
    assert unused(tmp_path / "done" / "a.png").name == "a.2.png"


def test_what_cannot_be_moved_is_said_and_tried_again(watching, tmp_path):
    (tmp_path / "done").write_text("a file in the way")
    source, frames = watching(done=tmp_path / "done")
    (tmp_path / "in" / "a.png").write_bytes(b"x")
    until(lambda: frames)
    source.settled(frames[0])
    assert "cannot be moved" in source.problem
    (tmp_path / "done").unlink()
    until(lambda: source.problem is None)
    assert len(frames) == 1 and (tmp_path / "done" / "a.png").is_file()


@pytest.fixture
def on_another_disk(monkeypatch, tmp_path) -> tuple[FolderSource, Frame]:
    """The folder of those that are judged, and an image."""

    def to_another_disk(*_) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(Path, "rename", to_another_disk)
    monkeypatch.setattr(os, "rename", to_another_disk)
    source = FolderSource(Folder(path=tmp_path / "in", done=tmp_path / "done"), surroundings(tmp_path))
    (tmp_path / "in" / "a.png").write_bytes(bytes(1000))
    return source, Frame("a.png", 0.0, "a", tmp_path / "in" / "a.png")


def test_another_disk_that_is_full_gets_no_half_images(on_another_disk, tmp_path):
    """Each try, five a second, left another one there."""
    source, frame = on_another_disk
    assert has_room(100, lambda: [source.settled(frame) for _ in range(3)])
    assert not list((tmp_path / "done").iterdir()) and frame.path.stat().st_size == 1000
    source.settled(frame)
    assert [path.stat().st_size for path in (tmp_path / "done").iterdir()] == [1000] and not frame.path.exists()


def test_a_folder_that_may_only_be_read_gets_no_copies_moved_out_of_it(on_another_disk, tmp_path, monkeypatch):
    source, frame = on_another_disk
    unlink = Path.unlink

    def refused(path: Path, **options) -> None:
        if path == frame.path:
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", refused)
    for _ in range(3):
        source.settled(frame)
    assert not list((tmp_path / "done").iterdir()) and frame.path.exists() and "Read-only" in source.problem


def test_keys_are_the_same_after_a_restart(watching, tmp_path):
    (tmp_path / "in" / "a.png").write_bytes(b"x")
    first, second = watching(), watching()
    until(lambda: first[1] and second[1])
    assert first[1][0].key == second[1][0].key and first[0].present() == {first[1][0].key}
    assert first[0].stays


def test_a_folder_that_is_away_is_waited_for(watching, tmp_path):
    source, frames = watching()
    (tmp_path / "in").rmdir()
    until(lambda: source.problem)
    assert "cannot be read" in source.problem
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"x")
    until(lambda: frames and source.problem is None)
