"""A folder that something writes images into: each whole one is a part, once, whatever is restarted in between."""

import errno
import os
import shutil
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from downstream.stations.contract import Frame, Source, Surroundings
from downstream.stations.sources.config import Folder
from pretrain.data.images import SUFFIXES
from pretrain.files import whole_file


class File(NamedTuple):
    """An image, and what its content is told by without reading it: one that is written over is another part."""

    name: str
    size: int
    written_ns: int

    @property
    def key(self) -> str:
        return f"{self.name} {self.size} {self.written_ns}"


class FolderSource(Source):
    """Fulfills the contract. A file that is still written, by its size or time, waits until it is whole."""

    is_live, repeats, names_parts = False, True, True

    def __init__(self, options: Folder, surroundings: Surroundings) -> None:
        self.options, self._stopped = options, threading.Event()
        self._read_problem: str | None = None
        self._move_problem: str | None = None
        self._judged: dict[str, Path] = {}
        self.stays = options.done is None
        self._given: set[File] = set()
        self._seen_s: dict[File, float] = {}
        options.path.mkdir(parents=True, exist_ok=True)

    def frames(self) -> Iterator[Frame]:
        while not self._stopped.is_set():
            if self.options.done is not None and self._judged:  # where it could not be done at once
                self._put_away(self.options.done)
            for file in self._whole():
                if self._stopped.is_set():
                    return
                self._given.add(file)
                yield Frame(file.name, time.monotonic(), file.key, self.options.path / file.name)
            self._stopped.wait(self.options.every_s)

    def present(self) -> Collection[str]:
        return {file.key for file in self._files()}

    def settled(self, frame: Frame) -> None:
        if self.options.done is not None and frame.path is not None:
            self._judged[frame.key] = frame.path
            self._put_away(self.options.done)

    @property
    def problem(self) -> str | None:
        return self._read_problem or self._move_problem

    def stop(self) -> None:
        self._stopped.set()

    def _put_away(self, done: Path) -> None:
        """Move what was judged. One that cannot be moved is tried again, and never judged again meanwhile."""
        for key, path in list(self._judged.items()):
            try:
                done.mkdir(parents=True, exist_ok=True)
                _move(path, unused(done / path.name))
            except FileNotFoundError:  # somebody took it away meanwhile
                pass
            except OSError as error:
                self._move_problem = f"judged images cannot be moved to {done} ({error.strerror or error})"
                return
            self._judged.pop(key, None)
            self._given = {file for file in self._given if file.key != key}
        self._move_problem = None

    def _whole(self) -> list[File]:
        """Those that did not change for a while and were not given yet, the oldest first."""
        now_s, files = time.monotonic(), self._files()
        self._seen_s = {file: self._seen_s.get(file, now_s) for file in files}
        self._given &= {*files}
        new = [file for file in files if file not in self._given]
        settled = [file for file in new if now_s - self._seen_s[file] >= self._wait_s(file)]
        return sorted(settled, key=lambda file: (file.written_ns, file.name))

    def _wait_s(self, file: File) -> float:
        """One that was written long ago, by the disk's own clock, is whole when it is first seen."""
        age_s = time.time() - file.written_ns / 1e9
        return 0.0 if age_s > 10 * self.options.settle_s + 1 else self.options.settle_s

    def _files(self) -> list[File]:
        found = []
        try:
            with os.scandir(self.options.path) as entries:
                for entry in entries:
                    if not entry.name.startswith(".") and Path(entry.name).suffix.lower() in SUFFIXES:
                        try:
                            status = entry.stat()
                        except OSError:  # gone again
                            continue
                        if entry.is_file():
                            found.append(File(entry.name, status.st_size, status.st_mtime_ns))
            self._read_problem = None
        except OSError as error:
            self._read_problem = f"the folder {self.options.path} cannot be read ({error.strerror})"
        return found


def _move(path: Path, target: Path) -> None:
    """Also to another disk; one that is full there leaves nothing of it, however often it is tried."""
    try:
        path.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with whole_file(target) as unfinished:
            shutil.copy2(path, unfinished)
        try:
            path.unlink()
        except OSError:
            target.unlink()
            raise


def unused(path: Path) -> Path:
    """The path, or one beside it where there is a file of that name."""
    number, free = 1, path
    while free.exists():
        number, free = number + 1, path.with_stem(f"{path.stem}.{number}")
    return free
