"""Images sorted into folders by their verdict, each with its signal beside it."""

import re
import threading
from contextlib import suppress
from pathlib import Path

from downstream.stations.contract import Sink, Surroundings, image_beside
from downstream.stations.kept_images import awaited
from downstream.stations.signal import Signal
from downstream.stations.sinks.config import Images
from pretrain.files import link_or_copy, write_whole
from pretrain.reading import read_regular


class ImagesSink(Sink):
    """Fulfills the contract. Writes PATH/STATION/VERDICT/PART-NAME.png and .json; a second delivery writes the same."""

    wants_images = True

    def __init__(self, options: Images, surroundings: Surroundings) -> None:
        self.options, self._surroundings = options, surroundings
        self._is_closing = threading.Event()

    def send(self, signal: Signal) -> None:
        if signal.verdict not in self.options.verdicts:
            return
        image = awaited(self._surroundings, signal, self._is_closing)
        stem = self._stem(signal)
        stem.parent.mkdir(parents=True, exist_ok=True)
        if image is not None:
            copy = stem.with_name(stem.name + image.suffix)
            copy.unlink(missing_ok=True)
            link_or_copy(image, copy)
        write_whole(stem.with_name(f"{stem.name}.json"), signal.to_json().encode() + b"\n")

    def kept_image(self, signal: Signal) -> Path | None:
        stem = self._stem(signal)
        with suppress(OSError, ValueError, TypeError):  # none, or a file of somebody else's
            beside = Signal.from_json(read_regular(stem.with_name(f"{stem.name}.json")))
            if beside.id == signal.id:  # parts of another state have the same numbers
                return image_beside(stem.parent, stem.name)
        return None

    def close(self) -> None:
        self._is_closing.set()

    def _stem(self, signal: Signal) -> Path:
        """Of its files: without a suffix."""
        name = f"{signal.part:08d}-{plain(signal.name)}" if signal.name else f"{signal.part:08d}"
        return self.options.path / signal.station / signal.verdict / name


def plain(name: str) -> str:
    """As a file may be called, whoever named the part."""
    return re.sub(r"[^\w.-]+", "_", Path(name).stem, flags=re.ASCII)[:80] or "part"
