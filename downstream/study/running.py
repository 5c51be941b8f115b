"""What each worker of a study computes now: a file for each of them in the study's folder.

A worker that dies leaves its file. What it says counts no more as soon as another worker has the cell, or the cell is
finished. One that lives gives a sign every few seconds, so of one that is frozen it is said that it is silent.
"""

import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

from rich.table import Table

from pretrain.files import write_json
from pretrain.progress import duration
from pretrain.reading import read_json

FOLDER = "running"
SECONDS_BETWEEN_LOOKS, SECONDS_BETWEEN_SIGNS, SILENT_FROM_S = 1.0, 5.0, 20.0


class Running(NamedTuple):
    """A cell by the name of its file, the worker that computes it, by machine and process, since when, and when it last
    gave a sign of life (Unix time)."""

    cell: str
    worker: str
    since_s: float
    sign_s: float

    def silence(self) -> str:
        """For how long it gives no sign; nothing where it does."""
        silent_s = time.time() - self.sign_s
        return duration(silent_s) if silent_s > SILENT_FROM_S else ""


@contextmanager
def said_to_run(out: Path, cell: str) -> Iterator[None]:
    """Say, while the context lasts, that this process computes a cell."""
    file = out / FOLDER / f"{socket.gethostname()}-{os.getpid()}.json"
    write_json(file, {"cell": cell, "since_s": time.time()})
    ended = Event()
    signs = Thread(target=_give_signs, args=(file, ended), daemon=True)
    signs.start()
    try:
        yield
    finally:
        ended.set()
        signs.join()
        file.unlink(missing_ok=True)


def _give_signs(file: Path, ended: Event) -> None:
    while not ended.wait(SECONDS_BETWEEN_SIGNS):
        with suppress(OSError):  # the study may have ended without this worker
            os.utime(file)


class Board:
    """What runs, looked up once a second. A context, outside of which there is nothing of it in the folder."""

    def __init__(self, out: Path) -> None:
        self._out, self._running, self._looked_s = out, [], -SECONDS_BETWEEN_LOOKS

    def __enter__(self) -> "Board":
        shutil.rmtree(self._out / FOLDER, ignore_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._out / FOLDER, ignore_errors=True)

    def running(self) -> list[Running]:
        """What has run longest comes first."""
        if time.monotonic() - self._looked_s >= SECONDS_BETWEEN_LOOKS:
            self._running, self._looked_s = self._look(), time.monotonic()
        return self._running

    def _look(self) -> list[Running]:
        newest: dict[str, Running] = {}
        for file in (self._out / FOLDER).glob("*.json"):
            try:
                said, sign_s = read_json(file, {"cell": str, "since_s": float}), file.stat().st_mtime
            except (OSError, ValueError):  # it ended between two looks
                continue
            running = Running(said["cell"], file.stem, said["since_s"], sign_s)
            if running.cell not in newest or newest[running.cell].since_s < running.since_s:
                newest[running.cell] = running
        return sorted(
            (each for each in newest.values() if not (self._out / each.cell).exists()), key=lambda r: r.since_s
        )

    def table(self) -> Table:
        """For a terminal."""
        table = Table("cell", "worker", "for", "silent for", box=None, padding=(0, 2))
        for each in self.running():
            table.add_row(shown(each.cell), each.worker, duration(max(0.0, time.time() - each.since_s)), each.silence())
        return table

    def in_words(self) -> str:
        """For a line: the one that has run longest, how many there are, and how many of them are silent."""
        running = self.running()
        if not running:
            return "none runs"
        longest, silent = running[0], [each for each in running if each.silence()]
        words = f"{len(running)} run, longest {shown(longest.cell)} on {longest.worker}, "
        words += duration(max(0.0, time.time() - longest.since_s))
        return words + (f"; {len(silent)} silent, as {silent[0].worker}, for {silent[0].silence()}" if silent else "")


def shown(cell: str) -> str:
    """A cell by its category and row, without the digest."""
    path = Path(cell)
    return f"{path.parent.name}/{path.stem.rpartition('-')[0]}"
