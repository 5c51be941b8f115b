"""Files are read whole, if they are regular ones and not too large; JSON, if it is not nested too deep.

A folder of images may hold a pipe that nobody writes into, a link to a device that never ends, or a file of a terabyte:
each would block a command for ever, or take all memory.
"""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

# An image of the most pixels that are accepted, 16 bits and four channels, is 1.4 GB.
MAX_BYTES = 2**31
MAX_JSON_BYTES = 2**27


def read_regular(path: Path | str, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a file. Raises OSError for anything but a regular file, and for one of more bytes."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise OSError(errno.EFBIG, f"it has {size} bytes, more than {max_bytes}", str(path))
        return file.read(size)


def open_regular(path: Path | str) -> BinaryIO:
    """A file to read from. Raises OSError for anything but a regular one."""
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 - the caller closes it
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "it is no regular file", str(path))


def read_json(path: Path, expected: type = dict) -> Any:
    """What a JSON file holds. Raises OSError, and ValueError for what is damaged or not of the expected type."""
    return parse_json(read_regular(path, MAX_JSON_BYTES), expected)


def parse_json(text: bytes | str, expected: type = dict) -> Any:
    """The same of its text."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("its JSON is nested too deep") from None
    if not isinstance(value, expected):
        raise ValueError(f"its JSON is no {expected.__name__}")
    return value


def _without_waiting(path: str, flags: int) -> int:
    """Open a pipe or a device at once, to see what it is, and not when somebody writes."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
