"""Signals as lines of JSON on standard output, for a program that reads them there."""

from downstream.stations.contract import Sink, Surroundings
from downstream.stations.signal import Signal
from downstream.stations.sinks.config import Stdout


class StdoutSink(Sink):
    """Fulfills the contract."""

    def __init__(self, options: Stdout, surroundings: Surroundings) -> None:
        pass

    def send(self, signal: Signal) -> None:
        print(signal.to_json(), flush=True)
