"""Tasks for the tests of tests/test_on_ray.py: a worker imports them by the name of this module."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from pretrain.command import UserError


def squared(number: int) -> tuple[int, int]:
    """A square, and who computed it."""
    return number * number, os.getpid()


def squared_or_hung(seconds: int) -> tuple[int, int]:
    """As `squared`, at once for a second."""
    time.sleep(seconds - 1)
    return squared(seconds)


def wrong(number: int) -> int:
    raise UserError(f"{number} is wrong")


def dies_at_first(marks: str) -> str:
    """Ends its worker the first time, and the second time does not."""
    mark = Path(marks, "died")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def refused(number: int) -> None:
    raise ConnectionRefusedError(f"{number} was refused")


def fills(file: str) -> None:
    Path(file).write_text("more than there is room for")


def freezes(marks: str) -> str:
    """Freezes its worker the first time: it does not even end itself then. The second time it does not."""
    mark = Path(marks, "frozen")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGSTOP)
    return "done"


class Counter:
    """Counts in an actor; of copies the first has no room for one more, or none has."""

    def __init__(self, number: int) -> None:
        self.count, self.unit = 0, "pieces"

    def told(self, unit: str) -> None:
        self.unit = unit

    def said(self) -> str:
        return f"{self.count} {self.unit}"

    def add(self, marks: str, times: int) -> int:
        for mark in range(times):
            with suppress(FileExistsError):
                open(Path(marks, str(mark)), "x").close()
                raise MemoryError("no room for one more")
        self.count += 1
        return self.count


def large(number: int) -> np.ndarray:
    """30 MB; the first comes last."""
    time.sleep(0.5 * (number == 0))
    return np.full(30 * 2**20, number, np.uint8)


def hangs(seconds: float) -> None:
    time.sleep(seconds)
