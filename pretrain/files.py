"""Files that a reader finds whole: the old one or the new one, never half."""

import errno
import json
import os
from pathlib import Path


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
