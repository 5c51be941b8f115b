"""Images that other programs post to the line's HTTP, which hands them to the station itself."""

import threading
from collections.abc import Iterator

from downstream.stations.contract import Frame, Source, Surroundings
from downstream.stations.sources.config import Push


class PushSource(Source):
    """Fulfills the contract, and gives nothing by itself."""

    names_parts = True

    def __init__(self, options: Push, surroundings: Surroundings) -> None:
        self.options, self._stopped = options, threading.Event()

    def frames(self) -> Iterator[Frame]:
        self._stopped.wait()
        yield from ()

    def stop(self) -> None:
        self._stopped.set()
