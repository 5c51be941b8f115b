"""A part that came and stopped, told from the frames alone."""

import numpy as np

from downstream.stations.contract import Frame, Surroundings, Trigger
from downstream.stations.frames import Unreadable, opened
from downstream.stations.triggers import config

# Frames are compared at so many points a side.
POINTS = 48


class Motion(Trigger):
    """After motion, the first frame of rest. What lies there when the line starts is no part that came."""

    def __init__(self, options: config.Motion, surroundings: Surroundings) -> None:
        self._options, self._has_moved, self._rested = options, False, 0
        self._before: np.ndarray | None = None

    def begins(self, frame: Frame) -> bool:
        gray = gray_points(frame)
        if gray is None or self._before is None or gray.shape != self._before.shape:
            self._before = gray
            return False
        difference = change(self._before, gray)
        self._before = gray
        if difference > self._options.moving:
            self._has_moved, self._rested = True, 0
            return False
        self._rested += 1
        if self._has_moved and self._rested >= self._options.rest_frames:
            self._has_moved = False
            return True
        return False


def change(before: np.ndarray, after: np.ndarray) -> float:
    """Mean difference of gray values over the quarter of the points that differ most: a part may be small."""
    differences = np.abs(after - before).ravel()
    return float(np.partition(differences, -(len(differences) // 4))[-(len(differences) // 4) :].mean())


def gray_points(frame: Frame) -> np.ndarray | None:
    """float32 (h, w), a mean of the channels at points of a grid; None for what is no image."""
    if frame.pixels is None:
        try:
            return opened(frame, POINTS).decoded.pixels.mean(axis=2, dtype=np.float32)
        except Unreadable:
            return None
    step = max(1, min(frame.pixels.shape[:2]) // POINTS)
    return frame.pixels[::step, ::step].mean(axis=2, dtype=np.float32)
