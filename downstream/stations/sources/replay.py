"""Images of a folder at a rate, as a camera gives them."""

import threading
import time
from collections.abc import Iterator
from itertools import count

from downstream.stations.contract import Frame, Source, Surroundings
from downstream.stations.sources.config import Replay
from pretrain.command import UserError
from pretrain.data.images import SUFFIXES


class ReplaySource(Source):
    """Fulfills the contract; ends after its loops."""

    def __init__(self, options: Replay, surroundings: Surroundings) -> None:
        self.options, self.is_live, self._stopped = options, not options.waits, threading.Event()
        self._paths = sorted(path for path in options.path.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not self._paths:
            raise UserError(f"there is no image in {options.path}.")

    def frames(self) -> Iterator[Frame]:
        next_s = time.monotonic()
        for _ in range(self.options.loops) if self.options.loops else count():
            for path in self._paths:
                if self._stopped.wait(max(0.0, next_s - time.monotonic())):
                    return
                yield Frame(path.name, time.monotonic(), path=path)
                # One that waited for the model does not hurry afterwards.
                next_s = max(next_s + 1 / self.options.rate, time.monotonic() if not self.is_live else next_s)

    def stop(self) -> None:
        self._stopped.set()
