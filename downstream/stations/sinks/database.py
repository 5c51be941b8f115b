"""Signals as rows of the service's results, where its dashboard, its review and its drift watch find them."""

from sqlalchemy.exc import SQLAlchemyError

from downstream.service.database import Database, ResultFilter, StoredResult
from downstream.stations.contract import NotDelivered, Sink, Surroundings
from downstream.stations.signal import Signal
from downstream.stations.sinks import config


class DatabaseSink(Sink):
    """Fulfills the contract. A signal that was written already, before a kill, is known by its image and its name."""

    def __init__(self, options: config.Database, surroundings: Surroundings) -> None:
        self.options, self._database = options, None

    def send(self, signal: Signal) -> None:
        if signal.verdict == "fault" or signal.score is None:
            return
        try:
            if self._database is None:  # not in open(): one that is away is no reason not to start
                password = self.options.password
                self._database = Database(self.options.results, password.value() if password else None)
            result = result_of(signal)
            same = ResultFilter(digest=result.digest, since=result.created)
            if not any(other.name == result.name for other in self._database.first_results(same, 100)):
                self._database.add_results([result])
        except SQLAlchemyError as error:
            raise NotDelivered(f"the database does not answer ({type(error).__name__})") from None

    def close(self) -> None:
        if self._database is not None:
            self._database.close()


def result_of(signal: Signal) -> StoredResult:
    """A signal as the service keeps results."""
    name = f"{signal.station} {signal.part}" + (f" {signal.name}" if signal.name else "")
    return StoredResult(
        signal.time, signal.model or "", signal.model or "", name, signal.digest or "", signal.width or 0,
        signal.height or 0, signal.score, signal.threshold, signal.verdict == "fail", signal.confidence or 0.5,
        signal.regions, signal.latency_ms, model_version=signal.version or "",
    )  # fmt: skip
