"""The models that the service may load: the folders in one folder, by name, and never by a path."""

import threading
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from downstream.inspection.inspector import FILE, Inspector
from pretrain.command import UserError, nearest

# What downstream/export.py writes: a model in one file.
EXPORTED = (".onnx",)
# The one in use, and the one before it for those who still wait for an answer of it.
MODELS_REMEMBERED = 2


class NoSuchModel(Exception):
    """No model has that name."""


@dataclass(frozen=True)
class Loaded:
    """A model in memory. `written_ns` tells whether it was written again since, `fingerprint` whether it is the same
    model, also where it was copied."""

    name: str
    inspector: Inspector
    written_ns: int
    fingerprint: str

    @property
    def method(self) -> str:
        return str(self.inspector.metadata.get("method") or type(self.inspector.method).__name__)

    @property
    def device(self) -> str:
        """Where its network is; what has none of its own works on the CPU."""
        network = getattr(self.inspector.method, "network_", None)
        return "cpu" if network is None else str(next(network.parameters()).device)

    @property
    def reconstructs(self) -> bool:
        """Whether a score is how far an image is from its reconstruction."""
        return hasattr(self.inspector.method, "reconstruct")


class Shelf:
    """The models in `folder`, folders and exported files, or the one that `folder` itself is. Raises UserError where
    there is none."""

    def __init__(self, folder: Path, batch: int) -> None:
        self._folder, self._batch, self._lock = folder, batch, threading.Lock()
        self._loaded: dict[str, Loaded] = {}
        if not self.names():
            raise UserError(f"there is no model in {folder}; python downstream/detect.py fit makes one.")

    def names(self) -> list[str]:
        return sorted(self._places())

    def place_of(self, name: str) -> Path:
        """Its folder or exported file. Raises NoSuchModel."""
        places = self._places()
        if name not in places:
            raise NoSuchModel(f"there is no model of that name; {nearest(name, places)}")
        return places[name]

    def load(self, name: str) -> Loaded:
        """From memory, or from its place if that is new. One that is gone from there, or is being written just now,
        goes on as it was. Raises NoSuchModel, and UserError for a damaged one."""
        with self._lock:
            loaded = self._loaded.pop(name, None)
            try:
                place = self.place_of(name)
                written_ns = decision_file(place).stat().st_mtime_ns
            except (NoSuchModel, FileNotFoundError):
                if loaded is None:
                    raise
            else:
                if loaded is None or loaded.written_ns != written_ns:
                    loaded = self._read(name, place, written_ns)
            self._loaded[name] = loaded
            while len(self._loaded) > MODELS_REMEMBERED:
                del self._loaded[next(iter(self._loaded))]
            return loaded

    def _read(self, name: str, place: Path, written_ns: int) -> Loaded:
        fingerprint = sha256(decision_file(place).read_bytes()).hexdigest()[:16]
        inspector = Inspector.load(place)
        inspector.method.batch_size = self._batch
        return Loaded(name, inspector, written_ns, fingerprint)

    def _places(self) -> dict[str, Path]:
        if is_model(self._folder):
            return {self._folder.resolve().name: self._folder}
        if not self._folder.is_dir():
            return {}
        return {place.name: place for place in self._folder.iterdir() if is_model(place)}


def is_model(place: Path) -> bool:
    """Whether a folder or file looks like a model."""
    return place.suffix in EXPORTED if place.is_file() else (place / FILE).is_file()


def decision_file(place: Path) -> Path:
    """The file that is written last, and says how the model decides."""
    return place if place.is_file() else place / FILE
