"""Images that wait for sinks which want them: a folder with a bound, however long a sink is away."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from downstream.service.monitoring import LOG
from downstream.stations.contract import Frame, Surroundings
from downstream.stations.frames import keep_image
from downstream.stations.signal import Signal

# An image is written a moment after its signal; one of which nothing came is waited for no longer.
WAIT_S, LOOK_S = 3.0, 0.02
# Of an image that no signal has: its part may still be judged.
ORPHAN_S = 3600.0


class Kept(NamedTuple):
    """What was known of an image when it was written; somebody may have taken it away since."""

    written_s: float
    size: int


class KeptImages:
    """In `folder`, each under its part's id, at most `limit_bytes` of them: the oldest go first, and their signals go
    out without. `removed` counts those that a sink still wanted. `place` is how far the last of the sinks that want
    images has come, and `number_of` the place of a part's signal. From any thread."""

    def __init__(
        self, folder: Path, limit_bytes: int, place: Callable[[], int], number_of: Callable[[str], int | None]
    ) -> None:
        folder.mkdir(exist_ok=True)
        self._folder, self._limit, self._lock, self.removed = folder, limit_bytes, threading.Lock(), 0
        self._place, self._number_of = place, number_of
        found: dict[Path, Kept] = {}
        for path in folder.glob("[!.]*.*"):
            with suppress(FileNotFoundError):
                found[path] = _kept(path)
        self._kept = {path: found[path] for path in sorted(found, key=lambda path: found[path].written_s)}
        self._bytes = sum(kept.size for kept in found.values())

    def keep(self, frame: Frame, part_id: str) -> None:
        """Raises OSError, and Unreadable for what is no image."""
        path = keep_image(frame, self._folder, part_id)
        with self._lock:
            self._forget(path)
            self._kept[path] = _kept(path)
            self._bytes += self._kept[path].size
            while self._bytes > self._limit and len(self._kept) > 1:
                oldest = next(iter(self._kept))
                if self._is_wanted(oldest):
                    if self.removed == 0:
                        metadata = {"bytes": self._limit}
                        LOG.warning("images that wait for sinks are too many", extra={"metadata": metadata})
                    self.removed += 1
                self._remove(oldest)

    def remove_delivered(self) -> None:
        """What every sink that wants images has."""
        place = self._place()
        for path, kept in list(self._kept.items()):
            number = self._number_of(path.stem)
            if number is not None and number > place:
                return  # and all that are newer
            if number is not None or time.time() - kept.written_s > ORPHAN_S:
                with self._lock:
                    self._remove(path)

    def _is_wanted(self, path: Path) -> bool:
        try:
            number = self._number_of(path.stem)
        except Exception:  # of the outbox's disk, which is not the image's fault
            number = None
        return path.exists() and (number is None or number > self._place())

    def _remove(self, path: Path) -> None:
        self._forget(path)
        path.unlink(missing_ok=True)

    def _forget(self, path: Path) -> None:
        if (kept := self._kept.pop(path, None)) is not None:
            self._bytes -= kept.size


def _kept(path: Path) -> Kept:
    status = path.stat()
    return Kept(status.st_mtime, status.st_size)


def awaited(surroundings: Surroundings, signal: Signal, is_closing: threading.Event) -> Path | None:
    """The kept image of a signal, for a sink. None for a part without frames, and for one whose image did not come."""
    until_s = time.monotonic() + (min(WAIT_S, WAIT_S - signal.age_s()) if signal.frames else 0.0)
    while (image := surroundings.image_of(signal)) is None and time.monotonic() < until_s:
        if is_closing.wait(LOOK_S):
            break
    return image
