"""Files are read whole, if they are regular ones and not too large; JSON and YAML, if they are not nested too deep and
are what whoever reads them declares.

A folder of images may hold a pipe that nobody writes into, a link to a device that never ends, or a file of a terabyte:
each would block a command for ever, or take all memory.
"""

import errno
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, BinaryIO, get_args, get_origin

import yaml

# An image of the most pixels that are accepted, 16 bits and four channels, is 1.4 GB.
MAX_BYTES = 2**31
MAX_JSON_BYTES, MAX_YAML_BYTES, MAX_LINE_BYTES = 2**27, 2**20, 2**20
MAX_YAML_VALUES = 2**20
# Nothing that is written here, or that annotations are made of, is nested deeper than ten.
MAX_DEPTH = 100

# What has to stand in JSON: a type, or the types of an object's fields by name, as {"files": dict[str, int]}; one that
# may be None may be missing. Further fields may stand there.
Schema = type | Mapping[str, Any]


def read_regular(path: Path | str, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a file. Raises OSError for anything but a regular file, and for one of more bytes."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise OSError(errno.EFBIG, f"it has {size} bytes, more than {max_bytes}", str(path))
        return file.read(size + 1)  # not of no bytes: what nobody can read, such as /proc/self/mem, says it has none


def open_regular(path: Path | str) -> BinaryIO:
    """A file to read from. Raises OSError for anything but a regular one."""
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 - the caller closes it
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError(errno.EINVAL, "it is no regular file", str(path))


def lines_of(path: Path | str, max_bytes: int = MAX_LINE_BYTES) -> Iterator[bytes]:
    """The lines of a file of any length, one after another. Raises OSError for anything but a regular file, and for a
    line of more bytes."""
    with open_regular(path) as file:
        while line := file.readline(max_bytes + 1):
            if len(line) > max_bytes:
                raise OSError(errno.EFBIG, f"a line of it has more than {max_bytes} bytes", str(path))
            yield line


def is_folder(entry: os.DirEntry) -> bool:
    """Whether an entry of os.scandir is one. A link that leads to itself is none; asked directly it raises OSError."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def real_path(path: Path) -> Path:
    """The path without links, but of a link that leads to itself, for which Path.resolve raises RuntimeError."""
    return Path(os.path.realpath(path))


def check_regular(path: Path | str) -> None:
    """Before a library opens it. Raises OSError for anything but a regular file that can be read."""
    open_regular(path).close()


def read_json(path: Path, expected: Schema = dict) -> Any:
    """What a JSON file holds. Raises OSError, and ValueError for what is damaged or not as expected."""
    return parse_json(read_regular(path, MAX_JSON_BYTES), expected)


def parse_json(text: bytes | str, expected: Schema = dict) -> Any:
    """The same of its text."""
    if len(text) > MAX_JSON_BYTES:
        raise ValueError(f"its JSON has more than {MAX_JSON_BYTES} characters")
    try:
        return _checked(json.loads(text), expected, "JSON")
    except RecursionError:
        raise ValueError("its JSON is nested too deep") from None


def read_yaml(path: Path, expected: Schema = dict) -> Any:
    """What a YAML file holds. Raises OSError, and ValueError for what is damaged or not as expected."""
    return parse_yaml(read_regular(path, MAX_YAML_BYTES), expected)


def parse_yaml(text: bytes | str, expected: Schema = dict) -> Any:
    """The same of its text."""
    check_yaml(text)
    try:
        return _checked(yaml.safe_load(text), expected, "YAML")
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())[:200]) from None
    except (AttributeError, LookupError, OverflowError):  # what PyYAML lets through of `!!bool x`, `!!int ''`, 1:00.5
        raise ValueError("its YAML has a value that is none of its type") from None


def check_yaml(text: bytes | str) -> None:
    """Raise ValueError for what takes minutes or gigabytes to load or to print, as a few lines of nested aliases do."""
    if len(text) > MAX_YAML_BYTES:
        raise ValueError(f"its YAML has more than {MAX_YAML_BYTES} characters")
    sizes, open_ones = {}, [["", 0]]  # values by anchor; those that are not at their end, with what is in them till now
    try:
        for event in yaml.parse(text, yaml.SafeLoader):  # which is slower the deeper it is: 100,000 levels took minutes
            if isinstance(event, yaml.CollectionStartEvent):
                open_ones.append([event.anchor, 1])
                if len(open_ones) > MAX_DEPTH:
                    raise ValueError("its YAML is nested too deep")
                continue
            if isinstance(event, yaml.CollectionEndEvent):
                anchor, size = open_ones.pop()
            elif isinstance(event, yaml.AliasEvent):
                anchor, size = "", sizes.get(event.anchor, MAX_YAML_VALUES)  # one that leads to itself has no end
            else:
                anchor, size = getattr(event, "anchor", ""), int(isinstance(event, yaml.ScalarEvent))
            sizes[anchor] = size
            open_ones[-1][1] += size
            if open_ones[-1][1] > MAX_YAML_VALUES:
                raise ValueError(f"its YAML has aliases, such as *a, that make more than {MAX_YAML_VALUES} values")
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())[:200]) from None


def _checked(value: object, expected: Schema, form: str) -> object:
    if _is_deeper(value, MAX_DEPTH):
        raise ValueError(f"its {form} is nested too deep")
    kind = dict if isinstance(expected, Mapping) else expected
    if not isinstance(value, kind):
        raise ValueError(f"its {form} is no {kind.__name__}")
    for name, hint in expected.items() if isinstance(expected, Mapping) else ():
        if not _is_of(value.get(name), hint):
            raise ValueError(f"its {name} is {value[name]!r:.40}" if name in value else f"it lacks {name}")
    return value


def _is_deeper(value: object, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [inner for outer in level if isinstance(outer, dict | list)
                 for inner in (outer.values() if isinstance(outer, dict) else outer)
                 if isinstance(inner, dict | list)]  # fmt: skip
        if not level:
            return False
    return True


def _is_of(value: object, hint: Any) -> bool:
    """Of the types that JSON has: a whole number is a number, and true is none."""
    if isinstance(hint, UnionType):
        return any(_is_of(value, each) for each in get_args(hint))
    if hint is None:
        return value is None
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin in (int, float):
        return isinstance(value, (int, origin)) and not isinstance(value, bool)
    if not isinstance(value, origin):
        return False
    values = value.values() if isinstance(value, dict) else value if inner else ()
    return not inner or all(_is_of(each, inner[-1]) for each in values)


def _without_waiting(path: str, flags: int) -> int:
    """Open a pipe or a device at once, to see what it is, and not when somebody writes."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
