"""The models that the service may load: the folders in one folder, by name, and never by a path."""

import math
import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
from scipy.special import stdtrit

from downstream.inspection.inspector import FILE, Inspector
from downstream.service.monitoring import LOG
from pretrain.command import UserError, nearest
from pretrain.data.decode import Decoded
from pretrain.data.size import sides
from pretrain.reading import read_regular

# What downstream/export.py writes: a model in one file.
EXPORTED = (".onnx",)
# So that many that are asked for at once do not take far more memory than they may.
READ_AT_ONCE = 2
# Of methods/fused.py: read when a model learns, and never to judge.
FOR_LEARNING = "memory.safetensors"
# Points of `confidence_curve`, closer where the page shows a digit more: lines between them are less than 5e-5 off.
CONFIDENCES = (*np.linspace(0.5, 0.9, 101), *np.linspace(0.901, 0.99, 90), *np.linspace(0.9902, 0.9998, 49))


class NoSuchModel(Exception):
    """No model has that name."""


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory. `written_ns` tells whether it was written again since, `fingerprint` whether it is the same
    model, also where it was copied; `size_bytes` is that of its files, about what it takes in memory."""

    name: str
    inspector: Inspector
    written_ns: int
    fingerprint: str
    size_bytes: int

    @property
    def method(self) -> str:
        return str(self.inspector.metadata.get("method") or type(self.inspector.method).__name__)

    @property
    def device(self) -> str:
        return str(self.inspector.method.device)

    @cached_property
    def confidence_curve(self) -> list[tuple[float, float]]:
        return confidence_curve(self.inspector.decision_scores)

    @property
    def reconstructs(self) -> bool:
        """Whether a score is how far an image is from its reconstruction."""
        return hasattr(self.inspector.method, "reconstruct")

    def gray(self) -> Decoded:
        """An image as it sees them, to try it out on."""
        height, width = sides(self.inspector.size_px)
        return Decoded(np.full((height, width, 3), 127, np.uint8), height, width)


class Models:
    """The models in `folder`, folders and exported files, or the one that `folder` itself is. Those used last stay in
    memory, as many as fit into `memory_bytes`, and one in any case. Raises UserError where there is none."""

    def __init__(self, folder: Path, batch_size: int, device: str = "cpu", memory_bytes: int = 1 << 31) -> None:
        self._folder, self._batch_size, self._device, self._lock = folder, batch_size, device, threading.Lock()
        self._few = threading.Semaphore(READ_AT_ONCE)
        self._memory_bytes = memory_bytes
        self._loaded: dict[str, LoadedModel] = {}
        self._failed: dict[str, list] = {}  # the files of those that could not be read
        # For each that is asked for just now: clients may ask for any name.
        self._reading: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        if not self.names():
            raise UserError(f"there is no model in {folder}; python downstream/detect.py fit makes one.")

    def names(self) -> list[str]:
        return sorted(self._paths())

    def path_of(self, name: str) -> Path:
        """Its folder or exported file. Raises NoSuchModel."""
        paths = self._paths()
        if name not in paths:
            raise NoSuchModel(f"there is no model of that name; {nearest(name, paths)}")
        return paths[name]

    def fingerprints(self) -> dict[str, str]:
        """Of all that can be read, by name, without loading one."""
        found = {}
        for name, path in sorted(self._paths().items()):
            try:
                found[name] = fingerprint_of(path)
            except OSError as error:
                LOG.warning("a model cannot be read", extra={"metadata": {"model": name, "reason": str(error)}})
        return found

    def gone(self, names: Iterable[str]) -> list[str]:
        """Those that are no models any more; of a folder that cannot be looked into, nobody knows."""
        there = self._paths()
        paths = {name: self._folder / name for name in sorted(names) if name not in there}
        return [name for name, path in paths.items() if not path.is_dir() or os.access(path, os.R_OK | os.X_OK)]

    def in_memory(self, name: str) -> LoadedModel | None:
        """As it was loaded last; none where it is not, or not any more. Waits for no other one that is loaded."""
        return self._loaded.get(name)

    def is_well(self, name: str) -> bool:
        """Whether a model can be had. It is read for that once, after it was written anew; not because it only had to
        make room in memory, nor again where it could not be read."""
        loaded, failed = self._loaded.get(name), self._failed.get(name)
        try:
            path = self.path_of(name)
            if failed is not None:
                return failed != files_of(path) and bool(self.load(name))
            is_known = loaded is None or loaded.written_ns == decision_file(path).stat().st_mtime_ns
            return is_known or bool(self.load(name))
        except (NoSuchModel, FileNotFoundError):
            return loaded is not None
        except (UserError, OSError):
            return False

    def all_in_memory(self) -> list[LoadedModel]:
        return list(self._loaded.values())

    def load(self, name: str) -> LoadedModel:
        """From memory, or from its path if that is new; one that is read makes nobody wait for another. One that is
        gone from there, or is being written just now, goes on as it was. Raises NoSuchModel, and UserError for a
        damaged one."""
        with self._lock:
            reading = self._reading.setdefault(name, threading.Lock())
        with reading:
            loaded = self._loaded.get(name)
            try:
                path = self.path_of(name)
                written_ns = decision_file(path).stat().st_mtime_ns
            except (NoSuchModel, FileNotFoundError):
                if loaded is None:
                    raise
            else:
                if loaded is None or loaded.written_ns != written_ns:
                    with self._few:
                        loaded = self._read_whole(name, path, written_ns)
            self._keep(loaded)
            return loaded

    def _keep(self, loaded: LoadedModel) -> None:
        """As the one used last. Whoever still waits for an answer of one that goes for it holds that until then."""
        with self._lock:
            self._loaded.pop(loaded.name, None)
            self._loaded[loaded.name] = loaded
            while len(self._loaded) > 1 and sum(one.size_bytes for one in self._loaded.values()) > self._memory_bytes:
                del self._loaded[next(iter(self._loaded))]

    def _read_whole(self, name: str, path: Path, written_ns: int) -> LoadedModel:
        files = files_of(path)
        try:
            loaded = self._read(name, path, written_ns)
        except (UserError, OSError):
            self._failed[name] = files
            raise
        self._failed.pop(name, None)
        return loaded

    def _read(self, name: str, path: Path, written_ns: int) -> LoadedModel:
        try:
            fingerprint = fingerprint_of(path)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror or error}): put it back, or fit again.") from None
        inspector = Inspector.load(path, self._device)
        if inspector.channels.lights > 1:
            raise UserError(f"{path} is of {inspector.channels}, which the service does not read: run it by detect.py.")
        inspector.method.batch_size = self._batch_size
        files = [path] if path.is_file() else filter(Path.is_file, path.iterdir())
        size_bytes = sum(file.stat().st_size for file in files if file.name != FOR_LEARNING)
        return LoadedModel(name, inspector, written_ns, fingerprint, size_bytes)

    def _paths(self) -> dict[str, Path]:
        if is_model(self._folder):
            return {self._folder.resolve().name: self._folder}
        if not self._folder.is_dir():
            return {}
        # A hidden one is being written, and nobody can ask for one whose name is no text.
        paths = [path for path in self._folder.iterdir() if not path.name.startswith(".") and is_utf8(path.name)]
        return {path.name: path for path in paths if is_model(path)}


def is_model(path: Path) -> bool:
    """Whether a folder or file looks like a model."""
    try:
        return path.suffix in EXPORTED if path.is_file() else (path / FILE).is_file()
    except PermissionError:  # such as lost+found of a disk
        return False


def is_utf8(name: str) -> bool:
    """File names are bytes, and those that are no text come as half of a character."""
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def files_of(path: Path) -> list[tuple]:
    """The files of a model as they are now: another list, as soon as one of them is replaced or may be read."""
    try:
        files = [path] if path.is_file() else sorted(path.iterdir())
        return [(file.name, status.st_size, status.st_ctime_ns) for file in files for status in [file.stat()]]
    except OSError:
        return []


def decision_file(path: Path) -> Path:
    """The file that is written last, and says how the model decides."""
    return path if path.is_file() else path / FILE


def fingerprint_of(path: Path) -> str:
    """Another one when a model was fitted again, or decides otherwise."""
    return sha256(read_regular(decision_file(path))).hexdigest()[:16]


def confidence_curve(normal_scores: Sequence[float]) -> list[tuple[float, float]]:
    """`threshold.confidence` as pairs of distance to the threshold and confidence, so that a page can decide again
    without Student's t; empty where confidence is 0.5, not known, at every distance."""
    normals = np.asarray(normal_scores, np.float64)
    deviation = normals.std(ddof=1) if len(normals) > 1 else 0.0
    if deviation == 0:
        return []
    unit = deviation * math.sqrt(1 + 1 / len(normals))
    distances = unit * stdtrit(len(normals) - 1, CONFIDENCES)
    return [(float(f"{d:.6g}"), round(float(c), 4)) for d, c in zip(distances, CONFIDENCES, strict=True)]
