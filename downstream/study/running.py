"""What each worker of a study computes now: a file for each of them in the study's folder.

A worker that dies leaves its file. What it says counts no more as soon as another worker has the cell, or the cell is
finished.
"""

import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from pretrain.files import write_json
from pretrain.progress import duration
from pretrain.reading import read_json

FOLDER = "running"
SECONDS_BETWEEN_LOOKS = 1.0


class Running(NamedTuple):
    """A cell by the name of its file, the worker that computes it, by machine and process, and since when (Unix
    time)."""

    cell: str
    worker: str
    since_s: float


@contextmanager
def said_to_run(out: Path, cell: str) -> Iterator[None]:
    """Say, while the context lasts, that this process computes a cell."""
    file = out / FOLDER / f"{socket.gethostname()}-{os.getpid()}.json"
    write_json(file, {"cell": cell, "since_s": time.time()})
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


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
                said = read_json(file, {"cell": str, "since_s": float})
            except (OSError, ValueError):  # it ended between two looks
                continue
            running = Running(said["cell"], file.stem, said["since_s"])
            if running.cell not in newest or newest[running.cell].since_s < running.since_s:
                newest[running.cell] = running
        return sorted(
            (each for each in newest.values() if not (self._out / each.cell).exists()), key=lambda r: r.since_s
        )

    def table(self) -> Table:
        """For a terminal."""
        table = Table("cell", "worker", "for", box=None, padding=(0, 2))
        for cell, worker, since_s in self.running():
            table.add_row(shown(cell), worker, duration(max(0.0, time.time() - since_s)))
        return table

    def in_words(self) -> str:
        """For a line: the one that has run longest, and how many there are."""
        running = self.running()
        if not running:
            return "none runs"
        cell, worker, since_s = running[0]
        return f"{len(running)} run, longest {shown(cell)} on {worker}, {duration(max(0.0, time.time() - since_s))}"


def shown(cell: str) -> str:
    """A cell by its category and row, without the digest."""
    path = Path(cell)
    return f"{path.parent.name}/{path.stem.rpartition('-')[0]}"
