"""A part when somebody asks for it over the line's HTTP, which calls the station itself."""

from downstream.stations.contract import Surroundings, Trigger
from downstream.stations.triggers import config


class Call(Trigger):
    """Begins nothing by itself."""

    def __init__(self, options: config.Call, surroundings: Surroundings) -> None:
        self.delay_ms = options.delay_ms
