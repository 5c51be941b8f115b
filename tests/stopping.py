"""Trainings that are ended in the middle, within this process: spares the seconds that a process takes to start.

That a process may be killed at any moment, `tests/pretrain/test_simclr_resume.py` shows on one; every training keeps
its state by the same Session.
"""

import signal
from collections.abc import Callable

import pytest

from pretrain.training.session import Session


class Killed(BaseException):
    """Ends a training where it stands, as SIGKILL does: nothing more is written."""


def kill() -> None:
    raise Killed


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def stop_after(steps: int, stop: Callable[[], object], patched: pytest.MonkeyPatch) -> None:
    """Calls `stop` once the figures of so many steps are logged."""
    log = Session.log

    def log_and_stop(session: Session, **figures) -> None:
        log(session, **figures)
        if session.step + 1 == steps:
            stop()

    patched.setattr(Session, "log", log_and_stop)
