"""A part on its way through a station: its frames, its deadline, and the one right to say what became of it."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from itertools import pairwise

from downstream.inspection.inspection import Inspection
from downstream.stations.contract import Frame
from downstream.stations.frames import Opened
from downstream.stations.outbox import Begun
from downstream.stations.signal import Signal, id_of, new_id


class Part:
    """Begins at `began_s`, of `time.monotonic`; `key` tells it from others where its source can. `signal` is done when
    its signal is on disk, and `seen` what the verdict is of. It has a number once it `is_begun`."""

    def __init__(self, station: str, name: str, began_s: float, budget_ms: float, frames: Sequence[Frame] = ()) -> None:
        self.key = frames[0].key if frames else ""
        self.id = id_of(station, self.key) if self.key else new_id()
        # Half a character, from JSON or a file's name that is no UTF-8, could go onto no disk and out of no sink.
        self.name = name.encode(errors="replace").decode()
        self.station, self.frames, self.number = station, [*frames], 0
        self.began_s, self.budget_ms, self.signal = began_s, budget_ms, Future()
        self.seen: tuple[Opened, Inspection] | None = None
        self._moments_s: list[float] = []
        self._lock, self._is_over = threading.Lock(), False

    @property
    def deadline_s(self) -> float:
        return self.began_s + self.budget_ms / 1e3

    @property
    def is_begun(self) -> bool:
        return self.number > 0

    @property
    def is_over(self) -> bool:
        return self._is_over

    @property
    def time(self) -> str:
        """When it began, as signals have it."""
        began = datetime.fromtimestamp(time.time() - (time.monotonic() - self.began_s), UTC)
        return began.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def begun(self) -> Begun:
        return Begun(self.id, self.station, self.number, self.name, self.time)

    def claim(self) -> bool:
        """Whether whoever asks may say what became of it: the first, and nobody else."""
        with self._lock:
            is_first, self._is_over = not self._is_over, True
            return is_first

    def fault(self, reason: str) -> Signal:
        """Nothing can be said of it, and why."""
        latency_ms = round(1e3 * (time.monotonic() - self.began_s), 3)
        return Signal(self.id, self.station, self.number, self.name, "fault", reason, None, None, None, None, self.time,
                      latency_ms, frames=len(self.frames))  # fmt: skip

    def ends_step(self) -> None:
        """Of those that a tally has, the next one is done."""
        self._moments_s.append(time.monotonic())

    def steps_ms(self) -> list[float]:
        """How long each took."""
        return [1e3 * (end_s - start_s) for start_s, end_s in pairwise([self.began_s, *self._moments_s])]

    def settle(self, signal: Signal) -> None:
        """Its signal is on disk."""
        self.signal.set_result(signal)
