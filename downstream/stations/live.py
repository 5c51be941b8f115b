"""What the line is doing just now, for pages and programs that watch it: one object of all, and events as they come."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict

from downstream.stations.delivery import Delivery
from downstream.stations.station import Station

# A watcher that is slower than the line misses the oldest of these.
MAX_EVENTS = 256
ALIVE_S = 15.0


def status(stations: Sequence[Station], deliveries: Sequence[Delivery], heartbeats: Mapping[str, int]) -> dict:
    """As plain JSON. Latencies are of the last parts, from a part's beginning to its signal on disk."""
    return {
        "stations": [station_status(station, heartbeats[station.name]) for station in stations],
        "sinks": [
            {"name": each.name, "stations": [*each.stations], "problem": each.problem, "waiting": each.count_waiting(),
             "delivered": each.delivered, "put_aside": each.put_aside}
            for each in deliveries
        ],
    }  # fmt: skip


def station_status(station: Station, heartbeat: int) -> dict:
    newest, loaded = station.newest, station.model.loaded
    return {
        **station.state(heartbeat).to_dict(),
        "budget_ms": station.options.budget_ms,
        "latency_ms": {"p50": station.tally.latency_ms(0.5), "p99": station.tally.latency_ms(0.99)},
        "steps_ms": {"p50": station.tally.steps_ms(0.5), "p99": station.tally.steps_ms(0.99)},
        "rate_per_s": station.tally.rate_per_s(),
        "waiting": len(station.waiting),
        "model": loaded.name,
        "model_version": loaded.fingerprint,
        "newest": newest and asdict(newest.signal),
    }


class Events:
    """Hands what happens to everybody who listens, from any thread."""

    def __init__(self) -> None:
        self._listening: dict[asyncio.Queue[str | None], asyncio.AbstractEventLoop] = {}

    def tell(self, kind: str, what: Mapping) -> None:
        """As server-sent events have it."""
        if self._listening:
            self._tell_all(f"event: {kind}\ndata: {json.dumps(what, separators=(',', ':'))}\n\n")

    def end(self) -> None:
        """Nothing more will happen: who listens is let go."""
        self._tell_all(None)

    def _tell_all(self, text: str | None) -> None:
        for queue, loop in list(self._listening.items()):
            try:
                loop.call_soon_threadsafe(_put, queue, text)
            except RuntimeError:  # the loop has ended
                self._listening.pop(queue, None)

    async def listen(self) -> AsyncIterator[str]:
        """What happens from now on; a comment now and then, so that whoever has gone is noticed."""
        queue: asyncio.Queue[str | None] = asyncio.Queue(MAX_EVENTS)
        self._listening[queue] = asyncio.get_running_loop()
        try:
            while True:
                try:
                    text = await asyncio.wait_for(queue.get(), ALIVE_S)
                except TimeoutError:
                    text = ": alive\n\n"
                if text is None:
                    return
                yield text
        finally:
            self._listening.pop(queue, None)


def _put(queue: asyncio.Queue[str | None], text: str | None) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(text)
