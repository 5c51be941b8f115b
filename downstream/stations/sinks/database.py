"""Signals as the service's results, where its page, its review and its drift watch find them, with their images."""

import shutil
import threading
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from downstream.service.database import Database, ResultFilter, StoredImage, StoredResult, as_moment, is_damaged
from downstream.stations.contract import NotDelivered, Sink, Surroundings
from downstream.stations.kept_images import awaited
from downstream.stations.signal import Signal
from downstream.stations.sinks import config
from pretrain.files import write_whole


class DatabaseSink(Sink):
    """Fulfills the contract. A signal that was written already, before a kill, is known by its moment and its name."""

    def __init__(self, options: config.Database, surroundings: Surroundings) -> None:
        self.options, self._surroundings, self._database = options, surroundings, None
        self.wants_images, self._is_closing = options.kept_images is not None and bool(options.keep), threading.Event()

    def send(self, signal: Signal) -> None:
        if signal.verdict == "fault" or signal.score is None:
            return
        wanted = self.wants_images and signal.verdict in self.options.keep
        image = awaited(self._surroundings, signal, self._is_closing) if wanted else None
        try:
            if self._database is None:  # not in open(): one that is away is no reason not to start
                password = self.options.password
                self._database = Database(self.options.results, password.value() if password else None)
            if not self._is_there(result := result_of(signal)):
                folder = self.options.kept_images
                digest = self._kept(image, folder, self._database) if image and folder else None
                self._database.add_results([result._replace(digest=digest, is_kept=True) if digest else result])
        except SQLAlchemyError as error:
            what = "is damaged" if is_damaged(error) else "does not answer"
            raise NotDelivered(f"the database {what} ({type(error).__name__})") from None

    def close(self) -> None:
        self._is_closing.set()
        if self._database is not None:
            self._database.close()

    def _is_there(self, result: StoredResult) -> bool:
        until = as_moment(datetime.fromisoformat(result.created) + timedelta(milliseconds=1))
        same = ResultFilter(since=result.created, until=until)
        return any(other.name == result.name for other in self._database.first_results(same, 1000))

    def _kept(self, image: Path, folder: Path, database: Database) -> str | None:
        """The digest under which the service finds the image; none where the disk has no room for it, and for one that
        was removed this moment."""
        try:
            data = image.read_bytes()
        except FileNotFoundError:
            return None
        try:
            folder.mkdir(parents=True, exist_ok=True)  # whose disk it is can only be told of one that is there
            if shutil.disk_usage(folder).free < self.options.free_gb * 2**30 + len(data):
                return None
            digest = sha256(data).hexdigest()
            if not (kept := folder / f"{digest}{image.suffix}").exists():
                write_whole(kept, data)
        except OSError as error:
            raise NotDelivered(f"no image can be kept in {folder} ({error.strerror})") from None
        database.add_image(StoredImage(digest, kept.name, "", b""))
        return digest


def result_of(signal: Signal) -> StoredResult:
    """A signal as the service keeps results."""
    name = f"{signal.station} {signal.part}" + (f" {signal.name}" if signal.name else "")
    return StoredResult(
        signal.time, signal.model or "", signal.model or "", name, signal.digest or "", signal.width or 0,
        signal.height or 0, signal.score, signal.threshold, signal.verdict == "fail", signal.confidence or 0.5,
        signal.regions, signal.latency_ms, model_version=signal.version or "",
    )  # fmt: skip
