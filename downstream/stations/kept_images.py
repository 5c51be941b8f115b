"""Images that wait for sinks which want them: a folder with a bound, however long a sink is away."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from downstream.service.monitoring import LOG
from downstream.stations.contract import Frame, Surroundings
from downstream.stations.frames import keep_image
from downstream.stations.signal import Signal

# An image is written a moment after its signal; one of which nothing came is waited for no longer.
WAIT_S, LOOK_S = 3.0, 0.02
# Of an image that no signal has: its part may still be judged.
ORPHAN_S = 3600.0


class KeptImages:
    """In `folder`, each under its part's id, at most `limit_bytes` of them: the oldest go first, and their signals go
    out without. `removed` counts those. From any thread."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        folder.mkdir(exist_ok=True)
        self._folder, self._limit, self._lock, self.removed = folder, limit_bytes, threading.Lock(), 0
        found = {path: path.stat() for path in folder.glob("[!.]*.*")}
        self._sizes = {path: found[path].st_size for path in sorted(found, key=lambda path: found[path].st_mtime)}
        self._bytes = sum(self._sizes.values())

    def keep(self, frame: Frame, part_id: str) -> None:
        """Raises OSError, and Unreadable for what is no image."""
        path = keep_image(frame, self._folder, part_id)
        with self._lock:
            self._bytes -= self._sizes.pop(path, 0)
            self._sizes[path] = path.stat().st_size
            self._bytes += self._sizes[path]
            while self._bytes > self._limit and len(self._sizes) > 1:
                if self.removed == 0:
                    LOG.warning("images that wait for sinks are too many", extra={"metadata": {"bytes": self._limit}})
                self._remove(next(iter(self._sizes)))
                self.removed += 1

    def remove_delivered(self, place: int, number_of: Callable[[str], int | None]) -> None:
        """What every sink that wants images has; `place` is how far the last of them has come, and `number_of` the
        place of a part's signal."""
        for path in list(self._sizes):
            number = number_of(path.stem)
            if number is not None and number > place:
                return  # and all that are newer
            if number is not None or time.time() - path.stat().st_mtime > ORPHAN_S:
                with self._lock:
                    self._remove(path)

    def _remove(self, path: Path) -> None:
        self._bytes -= self._sizes.pop(path, 0)
        path.unlink(missing_ok=True)


def awaited(surroundings: Surroundings, signal: Signal, is_closing: threading.Event) -> Path | None:
    """The kept image of a signal, for a sink. None for a part without frames, and for one whose image did not come."""
    until_s = time.monotonic() + (min(WAIT_S, WAIT_S - signal.age_s()) if signal.frames else 0.0)
    while (image := surroundings.image_of(signal)) is None and time.monotonic() < until_s:
        if is_closing.wait(LOOK_S):
            break
    return image
