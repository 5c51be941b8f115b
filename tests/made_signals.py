"""Signals and parts as a station would make them."""

from downstream.stations.outbox import Begun
from downstream.stations.signal import Signal, id_of

TIME = "2026-01-31T23:59:59.123Z"


def verdict(part: int, said: str = "pass", station: str = "cap", **more: object) -> Signal:
    """The same part has the same id."""
    values = dict(id=id_of(station, str(part)), station=station, part=part, name=str(part), verdict=said, reason="",
                  score=0.5, threshold=1.0, model="m", version="v", time=TIME, latency_ms=10.0)  # fmt: skip
    return Signal(**values | more)


def begun(part: int, station: str = "cap") -> Begun:
    return Begun(id_of(station, str(part)), station, part, str(part), TIME)
