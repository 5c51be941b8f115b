"""Children that are killed, or have no room, while they write. Whoever forks them should have no threads."""

import os
import resource
import signal
from collections.abc import Callable

from pretrain import files

STEPS = ("mkdir", "link", "rename", "replace", "fsync", "unlink", "rmdir")


def dies_at(step: int, work: Callable[[], object]) -> bool:
    """Whether a process that does `work` got to a step, one that makes, links, renames, flushes or removes a file or
    folder, or follows an exchange of two; there it was killed. Raises AssertionError if it failed."""
    done = iter(range(step))

    def counted(function: Callable) -> Callable:
        def call(*arguments, **more):
            if next(done, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **more)

        return call

    def counting() -> None:
        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))
        exchange = files._exchange
        files._exchange = lambda *folders: (exchange(*folders), counted(os.getpid)())
        work()

    status = _forked(counting)
    assert os.WIFSIGNALED(status) or status == 0, "it failed by itself"
    return os.WIFSIGNALED(status)


def has_room(room_bytes: int, work: Callable[[], object]) -> bool:
    """Whether a process does `work` to its end with so much room for each file."""

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # what is too much is an OSError
        resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, room_bytes))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        work()

    return _forked(limited) == 0


def _forked(work: Callable[[], object]) -> int:
    """How a child ended that did it, as waitpid says it."""
    if child := os.fork():
        return os.waitpid(child, 0)[1]
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)
