"""Files that a reader finds whole, the old one or the new one and never half; the lock of their one writer; tensors."""

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from pretrain.command import UserError

if TYPE_CHECKING:
    from torch import Tensor

# In the header of our safetensors files: without it a file is another program's.
HEADER_KEY = "heldout"


def write_whole(path: Path, data: bytes) -> None:
    """Write under another name, make sure that it is on disk, and move it to its place. Makes the folder.

    Raises OSError where there is a folder of that name.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; a file is to be written there", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(unfinished, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, metadata: object) -> None:
    """`metadata` as indented JSON, by `write_whole`."""
    write_whole(path, (json.dumps(metadata, indent=2) + "\n").encode())


@contextmanager
def sole_writer(folder: Path, does: str = "writes into", choose: str = "another folder") -> Iterator[None]:
    """Make a folder, and hold the right to write into it. Raises UserError at once if another process has it: what it
    `does` there, and what to `choose` instead. The system frees it when its holder dies."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"another process {does} {folder}: wait for it, or choose {choose}.") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def alone(path: Path, waiting: str) -> Iterator[None]:
    """Hold the lock file `path`; say `waiting` if another process has it. The system frees it when its holder dies."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(waiting, file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write_tensors(path: Path, tensors: "dict[str, Tensor]", metadata: dict) -> None:
    """Write `tensors`, and `metadata` as JSON in the header. A reader finds the old file or the new one, never half."""
    from safetensors.torch import save  # not above: a run of an exported model does without torch and its 1.5 s

    data = save({name: tensor.contiguous() for name, tensor in tensors.items()}, {HEADER_KEY: json.dumps(metadata)})
    write_whole(path, data)


def is_foreign(path: Path) -> bool:
    """Whether this is a whole safetensors file that something else wrote."""
    try:
        with safe_open(path, framework="pt") as file:
            return HEADER_KEY not in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def read_tensors(path: Path) -> "tuple[dict[str, Tensor], dict]":
    """The tensors and the metadata of a file written by `write_tensors`. Raises UserError for any other file."""
    if not path.is_file():
        raise UserError(f"there is no file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            metadata = json.loads(header.get(HEADER_KEY, "null"))
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, ValueError, OSError) as error:
        raise UserError(f"{path} is damaged or no safetensors file ({error}).") from None
    if not isinstance(metadata, dict):
        raise UserError(f"{path} was not written by heldout: its header says nothing of what it holds.")
    return tensors, metadata
