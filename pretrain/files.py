"""Files that a reader finds whole, the old one or the new one and never half; the lock of their one writer; tensors."""

import ctypes
import errno
import json
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from glob import escape
from hashlib import blake2b
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from pretrain.command import UserError
from pretrain.reading import parse_json, read_json, read_regular

if TYPE_CHECKING:
    from torch import Tensor

# In the header of our safetensors files: without it a file is another program's.
HEADER_KEY = "heldout"
# In what it says there: the digest of the whole file, so that no bit of it changes unnoticed.
DIGEST_KEY, NO_DIGEST = "digest", "0" * 32
MAX_TENSOR_BYTES = 2**36
# Of Linux's renameat2.
AT_FDCWD, RENAME_EXCHANGE = -100, 2
# How hidden names end: of what is being written, and of the old one while it is exchanged.
UNFINISHED, ASIDE = ".part", ".old"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Another name to write under, in the same folder, which is made. In the end what was written takes the place of
    `path` in one step; until then, and where the writer is killed or fails, an old file stays.

    Raises OSError where there is a folder of that name.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; a file is to be written there", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished(path)
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_whole(path: Path, *data: bytes) -> None:
    """Write by `whole_file`, and make sure that all is on disk before it takes the place."""
    with written_aside(path, *data):
        pass


@contextmanager
def written_aside(path: Path, *data: bytes) -> Iterator[None]:
    """The same, but it takes the place when the context ends: whatever else has to fit on the disk comes before."""
    with whole_file(path) as unfinished:
        with open(unfinished, "wb") as file:
            file.writelines(data)
            file.flush()
            os.fsync(file.fileno())
        yield


def append_whole(file: FileIO, data: bytes) -> None:
    """Write at the end of a file that was opened without a buffer: in one write, which no other writer's comes into,
    and onto the disk. Raises OSError where not all of it fits, of which nothing stays then."""
    written = file.write(data)
    if written < len(data):  # what is left of a disk takes a part, which is no error to the system
        end = file.tell()
        if os.fstat(file.fileno()).st_size == end:  # nobody wrote behind it
            file.truncate(end - written)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file.name))
    os.fsync(file.fileno())


@contextmanager
def whole_folder(folder: Path, replaced: Iterable[str] = ()) -> Iterator[Path]:
    """A new folder to write into. In the end it takes the place of `folder` in one step, with the files that only the
    old one has, but for those `replaced`. Until then, and where the writer is killed or fails, the old one stays."""
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(errno.EEXIST, "is a file; a folder is to be written there", str(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    restore_folder(folder)
    unfinished = _unfinished(folder)
    try:
        shutil.rmtree(unfinished, ignore_errors=True)  # of a process that had our number
        unfinished.mkdir()
        yield unfinished
        if folder.is_dir():
            for entry in folder.iterdir():
                if entry.name not in replaced and not (unfinished / entry.name).exists():
                    link_or_copy(entry, unfinished / entry.name)
            _exchange(unfinished, folder)
        else:
            unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def restore_folder(folder: Path) -> None:
    """Put the old folder back where a writer of this machine was killed between two steps of an exchange that a disk
    cannot do in one; where it was killed after the last of them, the old one goes."""
    folder = folder.resolve()
    before, after = f".{_short(folder)}.{platform.node()}-", f"{UNFINISHED}{ASIDE}"
    for aside in folder.parent.glob(f"{escape(before)}*{after}"):
        pid = aside.name.removeprefix(before).removesuffix(after)
        if not pid.isdecimal() or _is_running(int(pid)):
            continue
        if folder.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            with suppress(OSError):  # another reader did it
                aside.rename(folder)


@contextmanager
def scratch_folder(name: str, place: Path | None = None) -> Iterator[Path]:
    """A folder for what is needed only while this process runs, among the system's temporary files or in another place.
    What a killed one left there goes with the next."""
    folder = _unfinished((place or Path(tempfile.gettempdir())) / name)
    shutil.rmtree(folder, ignore_errors=True)  # of a process that had our number
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_json(path: Path, metadata: object) -> None:
    """`metadata` as indented JSON, by `write_whole`."""
    write_whole(path, (json.dumps(metadata, indent=2) + "\n").encode())


def sealed(metadata: dict) -> dict:
    """With the digest of all that it says, for `unsealed` to check where it is read again."""
    return {**metadata, DIGEST_KEY: _seal(metadata)}


def unsealed(metadata: dict) -> dict:
    """Without its digest, which files from before 0.1 lack. Raises ValueError where that is of something else."""
    said = {name: value for name, value in metadata.items() if name != DIGEST_KEY}
    if metadata.get(DIGEST_KEY, "") not in ("", _seal(said)):
        raise ValueError("it is not what its digest says, which whoever changes it by hand removes")
    return said


def _seal(metadata: dict) -> str:
    text = json.dumps(json.loads(json.dumps(metadata)), sort_keys=True)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _unfinished(path: Path) -> Path:
    """Where to write what is to become `path`."""
    _clear_away(path.parent.resolve())
    return path.with_name(f".{_short(path)}.{platform.node()}-{os.getpid()}{UNFINISHED}")


def _short(path: Path) -> str:
    """A disk allows 255 bytes a name, and a host may have 64."""
    name = os.fsencode(path.name)
    return path.name if len(name) < 150 else blake2b(name, digest_size=16).hexdigest()


@cache
def _clear_away(folder: Path) -> None:
    """What killed writers of this machine left in a folder. Once in a process: a folder may hold a million files."""
    unfinished = re.compile(rf"\..+\.{re.escape(platform.node())}-(\d+){re.escape(UNFINISHED)}")
    for left in folder.iterdir():
        match = unfinished.fullmatch(left.name)
        if match and not _is_running(int(match[1])):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def link_or_copy(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where the disk knows no links; of a folder, of all that is in it."""

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError:
            shutil.copy2(source, target, follow_symlinks=False)

    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True, copy_function=link)
    else:
        link(str(source), str(target))


def _exchange(first: Path, second: Path) -> None:
    """Exchange the names of two folders: in one step where Linux and the disk can, else in three."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename and rename(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0:
        return
    aside = first.with_name(f"{first.name}{ASIDE}")
    second.rename(aside)
    first.rename(second)
    aside.rename(first)


def stored_json(file: Path, remedy: str) -> dict:
    """What a JSON file of ours holds. Raises UserError where it is not there or, with the remedy, damaged."""
    try:
        return unsealed(read_json(file))
    except FileNotFoundError:
        raise UserError(f"{file} is not there: name another folder, or call again what writes it.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is damaged ({error}): {remedy}.") from None


@contextmanager
def sole_writer(folder: Path, does: str = "writes into", choose: str = "another folder") -> Iterator[None]:
    """Make a folder, and hold the right to write into it. Raises UserError at once if another process has it: what it
    `does` there, and what to `choose` instead. The system frees it when its holder dies."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock", thread_local=False)  # of the process, whichever thread ends it
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
    lock = FileLock(path, thread_local=False)
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

    header = json.dumps({DIGEST_KEY: NO_DIGEST, **metadata})
    data = save({name: tensor.contiguous() for name, tensor in tensors.items()}, {HEADER_KEY: header})
    start = 8 + int.from_bytes(data[:8], "little")
    named = data[:start].replace(NO_DIGEST.encode(), _digest(data, start, NO_DIGEST).encode(), 1)
    write_whole(path, named, memoryview(data)[start:])


def check_digest(path: Path) -> None:
    """Read a file of ours whole, without torch. Raises UserError unless it is what its header says; of files from
    before 0.1, which lack a digest, nothing can be said."""
    named = stored_digest(path)
    try:
        data = read_regular(path, MAX_TENSOR_BYTES)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}).") from None
    if named is not None and named != _digest(data, 8 + int.from_bytes(data[:8], "little"), named):
        raise UserError(f"{path} is damaged: its digest is not what its header says; copy or make it again.")


def is_foreign(path: Path) -> bool:
    """Whether this is a whole safetensors file that something else wrote."""
    try:
        with safe_open(path, framework="pt") as file:
            return HEADER_KEY not in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def stored_digest(path: Path) -> str | None:
    """What the header of a file of ours says that the digest of the whole is; none in files from before 0.1. That it is
    so, `read_tensors` checks. Raises UserError for any other file."""
    try:
        with safe_open(path, framework="np") as file:
            return parse_json((file.metadata() or {}).get(HEADER_KEY, "{}")).get(DIGEST_KEY)
    except (SafetensorError, ValueError, OSError) as error:
        raise UserError(f"{path} is damaged or no safetensors file ({error}).") from None


def read_tensors(path: Path) -> "tuple[dict[str, Tensor], dict]":
    """The tensors and the metadata of a file written by `write_tensors`. Raises UserError for any other file."""
    if not path.is_file():
        raise UserError(f"there is no file {path}.")
    from safetensors.torch import load  # as above

    try:
        # Not mapped into memory: whatever becomes of the file, what was read stays as it is.
        data = read_regular(path, MAX_TENSOR_BYTES)
        tensors = load(data)
        start = 8 + int.from_bytes(data[:8], "little")
        header = parse_json(data[8:start]).get("__metadata__", {})
        metadata = parse_json(header.get(HEADER_KEY, "null"), object)
    except (SafetensorError, ValueError, OSError) as error:
        raise UserError(f"{path} is damaged or no safetensors file ({error}).") from None
    if not isinstance(metadata, dict):
        raise UserError(f"{path} was not written by heldout: its header says nothing of what it holds.")
    digest = metadata.pop(DIGEST_KEY, None)  # none in files from before 0.1
    if digest is not None and digest != _digest(data, start, digest):
        raise UserError(f"{path} is damaged: its digest is not what its header says; copy or make it again.")
    return tensors, metadata


def _digest(data: bytes, start: int, named: object) -> str:
    """Of a safetensors file whose tensors begin at `start`, as it was before its header `named` its own digest."""
    digest = blake2b(data[:start].replace(str(named).encode(), NO_DIGEST.encode(), 1), digest_size=16)
    digest.update(memoryview(data)[start:])
    return digest.hexdigest()
