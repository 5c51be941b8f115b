"""A folder of large files that are replaced all at once: a reader sees all the old ones or all the new ones.

`current.json` names the current generation, the size and checksum of its files, and the caller's metadata; it is
written last. A writer that is killed leaves files that nobody reads; the next one removes them.
"""

import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from secrets import token_hex

from pretrain.command import UserError
from pretrain.files import sealed, sole_writer, unsealed, write_json
from pretrain.reading import open_regular, read_json

CURRENT, DAMAGED = "current.json", "damaged"
BLOCK_BYTES = 1 << 24


def read_current(folder: Path) -> dict:
    """What `current.json` says. Raises UserError where there is none, or it is damaged."""
    path = folder / CURRENT
    try:
        metadata = unsealed(read_json(path, {"generation": str, "files": dict[str, dict[str, int]]}))
    except FileNotFoundError:
        raise UserError(
            f"there is no index in {folder}: python embeddings/build.py --help says how to build one."
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): remove {folder} and build the index again.") from None
    return metadata


def checked_file(folder: Path, metadata: dict, name: str, thoroughly: bool = True) -> Path:
    """The file `name` of the generation in `metadata`. Raises UserError if it is gone, cut short, or (asked thoroughly,
    which reads all of it) altered."""
    path = folder / _file_name(metadata["generation"], name)
    if not path.is_file():
        if _current_name(folder) not in (None, DAMAGED, metadata["generation"]):
            raise UserError(f"{folder} holds another index by now, which another process saved: load it again.")
        raise UserError(f"{path} is gone: remove {folder} and build the index again.")
    expected, size = metadata["files"][name], path.stat().st_size
    if size != expected["bytes"]:
        raise UserError(
            f"{path} is cut off ({size} of {expected['bytes']} bytes): remove {folder} and build the index again."
        )
    if thoroughly and _checksum(path) != expected["crc32"]:
        raise UserError(f"{path} is damaged (its checksum differs): remove {folder} and build the index again.")
    return path


def write_file(folder: Path, generation: str, name: str, write: Callable[[Path], None]) -> dict[str, int]:
    """Write a file of a generation by `write`, and give its size and checksum."""
    path = folder / _file_name(generation, name)
    write(path)
    # On disk before current.json names it: after a power cut the name must not lead to an empty file.
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
    return {"bytes": path.stat().st_size, "crc32": _checksum(path)}


def write_generation(
    folder: Path,
    metadata: dict,
    write_files: Callable[[str], Mapping[str, dict[str, int]]],
    follows: str | None,
    replace: bool = False,
) -> dict:
    """Write a new generation, whose name `write_files` takes and whose files it gives, each as `write_file` does; make
    it the current one, and return what `read_current` would.

    Raises UserError, and changes nothing, if another process is writing, or if the current generation is not the one
    that the new one `follows` (None: there is none), unless it is to be replaced whatever it is.
    """
    with sole_writer(folder):
        # Two writers that loaded the same index would otherwise lose the changes of the first.
        if not replace and (current := _current_name(folder)) != follows:
            raise UserError(
                f"{folder} was {'changed' if current and follows else 'written' if current else 'removed'} by another "
                "process meanwhile: load it again and repeat the change, or save to another folder."
            )
        generation = token_hex(6)
        try:
            metadata = {**metadata, "generation": generation, "files": dict(write_files(generation))}
            write_json(folder / CURRENT, sealed(metadata))
        except BaseException:
            _remove_others(folder, _current_name(folder))
            raise
        _remove_others(folder, generation)
    return metadata


def _current_name(folder: Path) -> str | None:
    """The current generation; a damaged one has a name that nothing follows."""
    if not (folder / CURRENT).exists():
        return None
    try:
        return read_current(folder)["generation"]
    except UserError:
        return DAMAGED


def _remove_others(folder: Path, generation: str | None) -> None:
    """Remove the files of other generations. A process that has mapped one keeps it until it lets go."""
    for path in folder.glob("generation-*"):
        if generation is None or not path.name.startswith(f"generation-{generation}."):
            path.unlink(missing_ok=True)


def _file_name(generation: str, name: str) -> str:
    return f"generation-{generation}.{name}"


def _checksum(path: Path) -> int:
    checksum = 0
    with open_regular(path) as file:
        while block := file.read(BLOCK_BYTES):
            checksum = zlib.crc32(block, checksum)
    return checksum
