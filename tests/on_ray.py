"""Tasks for the tests of tests/test_on_ray.py: a worker imports them by the name of this module."""

import os
import signal
import time
from pathlib import Path

import numpy as np

from pretrain.command import UserError


def squared(number: int) -> tuple[int, int]:
    """A square, and who computed it."""
    return number * number, os.getpid()


def wrong(number: int) -> int:
    raise UserError(f"{number} is wrong")


def dies_at_first(marks: str) -> str:
    """Ends its worker the first time, and the second time does not."""
    mark = Path(marks, "died")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def large(number: int) -> np.ndarray:
    """30 MB; the first comes last."""
    time.sleep(0.5 * (number == 0))
    return np.full(30 * 2**20, number, np.uint8)


def hangs(seconds: float) -> None:
    time.sleep(seconds)
