"""Triggers that count: every frame, or one every so many milliseconds."""

from downstream.stations.contract import Frame, Surroundings, Trigger
from downstream.stations.triggers import config


class Every(Trigger):
    """Each frame is a part."""

    is_sampling = True

    def __init__(self, options: config.Every, surroundings: Surroundings) -> None:
        pass

    def begins(self, frame: Frame) -> bool:
        return True


class Interval(Trigger):
    """The first frame after each interval; intervals do not drift."""

    is_sampling = True

    def __init__(self, options: config.Interval, surroundings: Surroundings) -> None:
        self._step_s = options.ms / 1e3
        self._next_s: float | None = None

    def begins(self, frame: Frame) -> bool:
        if self._next_s is None:
            self._next_s = frame.arrived_s
        if frame.arrived_s < self._next_s:
            return False
        missed = (frame.arrived_s - self._next_s) // self._step_s
        self._next_s += (missed + 1) * self._step_s
        return True
