"""Processes that work for this one and never outlive it."""

import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import current_process, get_context, parent_process


def usable_cores() -> int:
    """Cores that this process may use: in a container, often fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def refuse_import_by_worker() -> None:
    """Raise RuntimeError in a worker that is importing the script which started it, and so comes by the same place."""
    if getattr(current_process(), "_inheriting", False):
        raise RuntimeError('put what your script does under `if __name__ == "__main__":`; its workers import it.')


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """A pool of processes; spawned, not forked, since this process may hold torch's threads."""
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_follow_parent)


def _follow_parent() -> None:
    """Leave Ctrl-C to the parent, and end with it, also when it is killed and can tell nobody."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=lambda: (parent_process().join(), os._exit(1)), daemon=True).start()
