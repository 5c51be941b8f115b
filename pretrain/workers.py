"""Processes that work for this one and never outlive it."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import current_process, parent_process
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType


def usable_cores() -> int:
    """Cores that this process may use: in a container, often fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def refuse_import_by_worker() -> None:
    """Raise RuntimeError in a worker that is importing the script which started it, and so comes by the same place."""
    if getattr(current_process(), "_inheriting", False):
        raise RuntimeError('put what your script does under `if __name__ == "__main__":`; its workers import it.')


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """A pool of processes for functions of modules; spawned, not forked, since this process may hold torch's threads.
    They do not import the script that this process runs, so it needs no `if __name__ == "__main__":`."""
    return ProcessPoolExecutor(workers, mp_context=_Context(), initializer=_follow_parent)


@contextmanager
def without_script() -> Iterator[None]:
    """Processes that are spawned meanwhile do not import the script that this process runs: a spawned one is told to
    import whatever bears its name, by its file, and this has none."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


class _Worker(SpawnProcess):
    _one_at_a_time = threading.Lock()

    def start(self) -> None:
        with self._one_at_a_time, without_script():
            super().start()


class _Context(SpawnContext):
    Process = _Worker


def _follow_parent() -> None:
    """Leave Ctrl-C to the parent, and end with it, also when it is killed and can tell nobody."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=lambda: (parent_process().join(), os._exit(1)), daemon=True).start()
