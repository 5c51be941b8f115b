"""The models that the service may load: the folders in one folder, by name, and never by a path."""

import threading
from dataclasses import dataclass
from pathlib import Path

from downstream.inspector import FILE, Inspector
from pretrain.command import Mistake, nearest

# The one in use, and the one before it for those who still wait for an answer of it.
MODELS_REMEMBERED = 2


class NoSuchModel(Exception):
    """No model has that name."""


@dataclass(frozen=True)
class Loaded:
    """A model in memory; `written_ns` tells whether its folder was written again since."""

    name: str
    inspector: Inspector
    written_ns: int

    @property
    def method(self) -> str:
        return str(self.inspector.facts.get("method") or type(self.inspector.method).__name__)

    @property
    def reconstructs(self) -> bool:
        """Whether a score is how far a picture is from its reconstruction."""
        return hasattr(self.inspector.method, "reconstruct")


class Shelf:
    """The models in `folder`, or the one that `folder` itself is. Raises Mistake where there is none."""

    def __init__(self, folder: Path, batch: int) -> None:
        self._folder, self._batch, self._lock = folder, batch, threading.Lock()
        self._loaded: dict[str, Loaded] = {}
        if not self.names():
            raise Mistake(f"there is no model in {folder}; python downstream/detect.py fit makes one.")

    def names(self) -> list[str]:
        return sorted(self._places())

    def folder_of(self, name: str) -> Path:
        """Raises NoSuchModel."""
        places = self._places()
        if name not in places:
            raise NoSuchModel(f"there is no model of that name; {nearest(name, places)}")
        return places[name]

    def load(self, name: str) -> Loaded:
        """From memory, or from its folder if that is new. Raises NoSuchModel, and Mistake for a damaged one."""
        folder = self.folder_of(name)
        with self._lock:
            written_ns = (folder / FILE).stat().st_mtime_ns
            loaded = self._loaded.pop(name, None)
            if loaded is None or loaded.written_ns != written_ns:
                inspector = Inspector.load(folder)
                inspector.method.batch_size = self._batch
                loaded = Loaded(name, inspector, written_ns)
            self._loaded[name] = loaded
            while len(self._loaded) > MODELS_REMEMBERED:
                del self._loaded[next(iter(self._loaded))]
            return loaded

    def _places(self) -> dict[str, Path]:
        if (self._folder / FILE).is_file():
            return {self._folder.resolve().name: self._folder}
        if not self._folder.is_dir():
            return {}
        return {place.name: place for place in self._folder.iterdir() if (place / FILE).is_file()}
