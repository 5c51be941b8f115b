"""What a controller that polls is shown of a station: the newest verdict for as long as it is fresh, else a fault."""

import threading
import time
from dataclasses import dataclass

from downstream.stations.contract import HEARTBEAT_S, StationState
from downstream.stations.signal import Signal

# States come with each heartbeat: without one for so long the line has gone, or hangs.
SILENCE_S = 3 * HEARTBEAT_S
# A part was judged, and its signal is on its way here: so long at most.
WAIT_S = 1.0


@dataclass(frozen=True)
class Shown:
    """At one moment. At most one of passes, fails and faults; the signal is the newest one, however old."""

    passes: bool
    fails: bool
    busy: bool
    faults: bool
    heartbeat: int
    signal: Signal | None


class Lamps:
    """Of one station; `fresh_s` is how long a verdict is shown. From any thread."""

    def __init__(self, fresh_s: float) -> None:
        self._fresh_s, self._lock = fresh_s, threading.Lock()
        self._signal: Signal | None = None
        self._state: StationState | None = None
        self._until_s = self._state_s = self._idle_s = float("-inf")
        self._awaits = False

    def take(self, signal: Signal) -> None:
        """The newest signal. One that waited on disk until the line started again is no word on the part of now."""
        with self._lock:
            self._signal, self._awaits = signal, False
            self._until_s = time.monotonic() + self._fresh_s - max(0.0, signal.age_s())

    def show(self, state: StationState) -> None:
        with self._lock:
            if state.busy and not (self._state and self._state.busy):
                self._awaits = True  # what was said of the part before is not said of this one
            if not state.busy and self._state and self._state.busy:
                self._idle_s = time.monotonic()
            self._state, self._state_s = state, time.monotonic()

    def shown(self) -> Shown:
        with self._lock:
            now_s, state, signal = time.monotonic(), self._state, self._signal
            is_alive = state is not None and state.mode == "running" and now_s - self._state_s < SILENCE_S
            busy = is_alive and (state.busy or (self._awaits and now_s - self._idle_s < WAIT_S))
            is_fresh = is_alive and signal is not None and not self._awaits and now_s < self._until_s
            verdict = signal.verdict if is_fresh and signal else None
            passes, fails = verdict == "pass", verdict == "fail"
            faults = verdict == "fault" or not (passes or fails or busy)
            return Shown(passes, fails, busy, faults, state.heartbeat if state else 0, signal)
