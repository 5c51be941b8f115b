"""Parts between a station's source and its model: a queue with a bound, in which the newest may win."""

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from downstream.stations.part import Part


class Full(Exception):
    """As many parts wait as may."""


class Waiting:
    """At most `limit` parts. `dropped` counts frames of samples that newer ones took the place of."""

    def __init__(self, limit: int) -> None:
        self._limit, self._parts, self._changed = limit, deque(), threading.Condition()
        self._is_closed, self.dropped = False, 0

    def __len__(self) -> int:
        return len(self._parts)

    def put(self, part: "Part") -> None:
        """Behind all others. Raises Full."""
        with self._changed:
            if len(self._parts) >= self._limit:
                raise Full
            self._parts.append(part)
            self._changed.notify_all()

    def put_newest(self, part: "Part") -> None:
        """In place of the samples that wait; none of them was begun, so none is missed."""
        with self._changed:
            stale = [other for other in self._parts if not other.is_begun]
            self._parts = deque(other for other in self._parts if other.is_begun)
            self.dropped += sum(len(other.frames) for other in stale)
            self._parts.append(part)
            self._changed.notify_all()

    def put_when_empty(self, part: "Part") -> None:
        """Wait for room first: the source has time."""
        with self._changed:
            self._changed.wait_for(lambda: not self._parts or self._is_closed)
            if not self._is_closed:
                self._parts.append(part)
                self._changed.notify_all()

    def take(self) -> "Part | None":
        """The next part, when there is one; None when it is time to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._parts or self._is_closed)
            part = self._parts.popleft() if self._parts else None
            self._changed.notify_all()
            return part

    def close(self) -> None:
        """What waits is still taken."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
