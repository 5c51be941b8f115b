"""The watchdog: calls what has not been called off by its deadline, from a thread that waits for nothing else."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable

from downstream.service.monitoring import LOG

# It looks so often whether or not anything is due: whoever reads `looked_s` sees that it lives.
LOOK_S = 0.25


class Deadlines:
    """One for a line."""

    def __init__(self) -> None:
        self.looked_s = time.monotonic()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers, self._changed, self._is_stopping = itertools.count(), threading.Condition(), False
        self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
        self._thread.start()

    def add(self, at_s: float, missed: Callable[[], None]) -> None:
        """Call `missed` at that time of `time.monotonic`: it finds out whether there is still something to do, and may
        not wait."""
        with self._changed:
            heapq.heappush(self._due, (at_s, next(self._numbers), missed))
            if self._due[0][0] == at_s:
                self._changed.notify()

    def is_awake(self) -> bool:
        return time.monotonic() - self.looked_s < 4 * LOOK_S

    def stop(self) -> None:
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        self._thread.join(1.0)

    def _run(self) -> None:
        while not self._is_stopping:
            self.looked_s = now_s = time.monotonic()
            with self._changed:
                due = []
                while self._due and self._due[0][0] <= now_s:
                    due.append(heapq.heappop(self._due)[2])
                if not due:
                    self._changed.wait(min(LOOK_S, self._due[0][0] - now_s if self._due else LOOK_S))
            for missed in due:
                try:
                    missed()
                except Exception:
                    LOG.exception("a fault of the watchdog")
