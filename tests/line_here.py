"""A line in this process, which starts at once: what most tests of stations, sources and sinks run."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from downstream.stations.checks import check
from downstream.stations.config import Config
from downstream.stations.contract import Surroundings
from downstream.stations.reading_config import read_line
from downstream.stations.signal import Signal
from downstream.stations.station import Station
from downstream.stations.supervisor import Supervisor


class Here(NamedTuple):
    """A line that runs in a thread of this process."""

    line: Supervisor
    client: httpx.Client | None
    ended: threading.Event

    def station(self, name: str) -> Station:
        return next(station for station in self.line.stations if station.name == name)

    def signals(self) -> list[Signal]:
        """All so far, the oldest first."""
        return self.line._outbox.last_signals(10**6)[::-1]

    def wait_for(self, count: int, seconds: float = 20) -> list[Signal]:
        """So many signals at least."""
        until(lambda: len(self.signals()) >= count, seconds)
        return self.signals()


@contextmanager
def running(
    models: Path, folder: Path, stations: Sequence[dict], sinks: Sequence[dict] = (), **options: object
) -> Iterator[Here]:
    """A line with its state in `folder`, stopped and drained at the end."""
    config = Config(stations=list(stations), sinks=list(sinks), models=models, state=folder / "state",
                    **{"device": "cpu", **options})  # fmt: skip
    line = read_line(config)
    check(config, line)
    supervisor, started, ended = Supervisor(config, line), threading.Event(), threading.Event()

    def run() -> None:
        try:
            supervisor.run(started.set)
        finally:
            ended.set()
            started.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(30)
    client = None
    if supervisor.http:
        client = httpx.Client(base_url=f"http://127.0.0.1:{supervisor.http.port}", timeout=30, verify=False)
    try:
        yield Here(supervisor, client, ended)
    finally:
        if client:
            client.close()
        supervisor.stop()
        thread.join(30)
        assert not thread.is_alive()


def until(holds: Callable[[], object], seconds: float = 20) -> None:
    """Wait until it does. Fails where it does not in time."""
    end_s = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end_s, "it did not come to that in time"
        time.sleep(0.01)


def surroundings(folder: Path, station: str | None = None) -> Surroundings:
    """For a part that is tried by itself."""
    (folder / "images").mkdir(exist_ok=True)
    return Surroundings(station, ("cap",), folder, folder / "images")
