"""Where files lie: a folder, or what fsspec reaches by a URL: s3, gs, az, http, the files in a zip or tar.

Credentials come from the environment alone, as the programs of each service have them.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from heapq import merge
from http import HTTPStatus
from itertools import islice
from lzma import LZMAError
from pathlib import Path
from tarfile import TarError
from tempfile import TemporaryFile
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit
from zipfile import BadZipFile
from zlib import error as ZlibError

import fsspec

from pretrain.command import UserError
from pretrain.data.channels import PLAIN, Channels, read_contents, read_image
from pretrain.data.decode import Decoded, Unreadable
from pretrain.data.size import Size
from pretrain.files import write_whole
from pretrain.reading import MAX_BYTES, is_folder

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

ARCHIVES = {".zip": "zip", ".tar": "tar", ".tgz": "tar", ".gz": "tar"}
# A folder without a name, as a store of objects may have one.
NAMELESS = "/"
TOO_LARGE = f"it has more than {MAX_BYTES} bytes"
# How a server of HTTP says that it has no such file.
NOT_THERE = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
# What reading an archive raises where one file in it is damaged, encrypted, or packed as Python cannot unpack.
BROKEN = (BadZipFile, TarError, ZlibError, LZMAError, EOFError, RuntimeError, ValueError, KeyError)
# What changes with a file's content, under the names that file systems have for it; the surest first.
VERSIONS = ("ETag", "etag", "CRC", "md5Hash", "generation", "mtime", "LastModified", "last_modified", "created")


Entry = tuple[str, tuple[int, str]]
# Of a folder of this machine no more are in memory: sorted, they wait on the disk.
NAMES_AT_ONCE = 2**17


class Listed(NamedTuple):
    """A file below a place: its path there, its bytes, and what changes when it does, as text: an etag, a checksum, a
    time."""

    path: str
    size: int
    version: str


@dataclass(frozen=True)
class Place:
    """A folder on some file system, by its URL, or its whole path on this machine."""

    url: str
    files: "AbstractFileSystem"
    root: str
    # fsspec's archives have one position in one open file, and fill their index as it is asked for.
    _lock: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)

    def __reduce__(self) -> tuple:
        return type(self), (self.url, self.files, self.root)

    @classmethod
    def of(cls, url: str) -> "Place":
        """A folder's path, a URL, or an archive of files. Raises UserError for what cannot be reached so."""
        _check_no_password(url)
        suffix = Path(url).suffix.lower()
        if suffix in ARCHIVES and "::" not in url:
            url = f"{ARCHIVES[suffix]}://::{url if '://' in url else Path(url).resolve()}"
        try:
            files, root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise UserError(f"{url} needs a package that is not installed ({error}).") from None
        except MemoryError:
            raise
        except Exception as error:  # of a damaged archive, and of each service's own client
            raise UserError(
                f"{url} cannot be reached ({_told(error)}): name a folder, an archive, or a URL such as s3://."
            ) from None
        return cls(root if "file" in _protocols(files) else url, files, root)

    @property
    def folder(self) -> Path | None:
        """The folder of this machine that it is; none of any other file system."""
        return Path(self.root) if "file" in _protocols(self.files) else None

    def listed(self, suffixes: frozenset[str]) -> Iterator[Listed]:
        """Files with one of the suffixes, in the order of their paths, without hidden ones. Of a folder
        here few names are in memory; of one elsewhere all, as fsspec lists it whole. Raises UserError where nothing is
        there."""
        try:
            yield from self._listed("", suffixes)
        except (OSError, *BROKEN) as error:
            raise UserError(f"{self} cannot be listed ({_told(error)}).") from None

    def _listed(self, below: str, suffixes: frozenset[str]) -> Iterator[Listed]:
        # As if all paths were sorted: a folder by its name with the slash that follows it.
        for name, about in in_order(self._entries(below)):
            if name.startswith(".") and name != "./":  # which tar writes before its names
                continue
            if name == NAMELESS:
                yield from self._listed_nameless(below, suffixes)
            elif name.endswith("/"):
                yield from self._listed(below + name, suffixes)
            elif os.path.splitext(name)[1].lower() in suffixes:
                yield Listed(below + name, *about)

    def _entries(self, below: str) -> Iterator[Entry]:
        """Names in a folder, of folders with a slash at the end, and of files their size and version."""
        if (folder := self.folder) is not None:
            with os.scandir(folder / below) as entries:
                yield from map(_on_this_disk, entries)
            return
        with self._asking(below):
            entries = self.files.ls(self._full(below), detail=True)
            self.files.invalidate_cache()  # it would keep all folders ever listed
        folder = self._full(below).rstrip("/")
        named = [_elsewhere(entry) for entry in entries if entry["name"].rstrip("/") != folder]
        kinds = {entry["type"] for entry in entries if entry["name"] == f"{folder}/"}
        is_store = {"http", "https"}.isdisjoint(_protocols(self.files))
        yield from named + [(NAMELESS, (0, ""))] * (is_store and "directory" in kinds)

    def _listed_nameless(self, below: str, suffixes: frozenset[str]) -> Iterator[Listed]:
        """Of a store of objects, keys such as a//b.png below a: fsspec does not list such a folder by itself."""
        folder = f"{self._full(below)}/"
        with self._asking(below):
            entries = self.files.find(folder, detail=True)
            self.files.invalidate_cache()
        for name in sorted(name for name in entries if name.startswith(f"{folder}/")):
            if os.path.splitext(name)[1].lower() in suffixes:
                yield Listed(below + name.removeprefix(folder), *_elsewhere(entries[name])[1])

    def image(self, path: str, size_px: Size | None = None, channels: Channels = PLAIN) -> Decoded:
        """What `read_image` gives. Raises Unreadable, and UserError where the place does not answer."""
        if (folder := self.folder) is not None:
            return read_image(folder / path, size_px, channels)
        data = self._image_bytes(path)
        return read_contents([data], size_px, channels)

    def _image_bytes(self, path: str) -> bytes:
        """Raises UserError where the place itself does not answer, which is no fault of the image."""
        try:
            with self._asking(path):
                size = self.files.size(self._full(path))
            if size is None:
                return self._read_unsized(path)
            if size > MAX_BYTES:
                raise Unreadable(TOO_LARGE)
            return self.read(path)
        except FileNotFoundError as error:
            if self._answers(error):
                raise Unreadable(error.strerror or f"it is not there ({error})") from None
            raise UserError(f"{self} is not there any more, or may not be seen ({path} is not found).") from None
        except (IsADirectoryError, *BROKEN) as error:
            raise Unreadable(f"it cannot be read ({_told(error)})") from None
        except OSError as error:
            raise UserError(f"{self}/{path} cannot be read now ({error}); later the same command goes on.") from None

    def read(self, path: str) -> bytes:
        """The bytes of a file. Raises OSError."""
        with self._asking(path):
            return self.files.cat_file(self._full(path))

    def _read_unsized(self, path: str) -> bytes:
        """Of a store that does not tell how large a file is. Raises Unreadable for one that is too large."""
        data = bytearray()
        with self._asking(path), self.files.open(self._full(path), "rb") as file:
            while len(data) <= MAX_BYTES and (more := file.read(min(2**20, MAX_BYTES + 1 - len(data)))):
                data += more
        if len(data) > MAX_BYTES:
            raise Unreadable(TOO_LARGE)
        return bytes(data)

    def _answers(self, error: FileNotFoundError) -> bool:
        """Whether what was not found is all that is wrong."""
        if not {"http", "https"}.isdisjoint(_protocols(self.files)):
            # fsspec says the same of a server that is down. One that lists no folder has files all the same.
            return error.__cause__ is None or getattr(error.__cause__, "status", None) in NOT_THERE
        self.files.invalidate_cache()
        return self.has("")

    @property
    def _is_archive(self) -> bool:
        return not {*ARCHIVES.values()}.isdisjoint(_protocols(self.files))

    @contextmanager
    def _asking(self, path: str) -> Iterator[None]:
        """One thread at a time asks an archive. What the client of a service raises of its own is a UserError."""
        known = (OSError, MemoryError, *(BROKEN if self._is_archive else ()))
        with self._lock if self._is_archive else nullcontext():
            try:
                yield
            except known:
                raise
            except Exception as error:
                raise UserError(f"{self}/{path} cannot be reached now ({_told(error)}).") from None

    def write(self, path: str, data: bytes) -> None:
        """A file that a reader finds whole, or not at all: stores of objects put them in one step."""
        if (folder := self.folder) is not None:
            write_whole(folder / path, data)
        else:
            with self._asking(path):
                self.files.pipe_file(self._full(path), data)

    def has(self, path: str) -> bool:
        with self._asking(path):
            return self.files.exists(self._full(path))

    def names(self, below: str) -> list[str]:
        """Of the files in a folder; none where there is no such folder."""
        self.files.invalidate_cache()
        try:
            return [name for name, _ in self._entries(below) if not name.endswith("/")]
        except FileNotFoundError:
            return []

    def remove(self, path: str) -> None:
        """A file. Raises OSError."""
        with self._asking(path):
            self.files.rm_file(self._full(path))

    def _full(self, path: str) -> str:
        return "/".join(filter(None, [self.root.rstrip("/"), path.rstrip("/")]))

    def __str__(self) -> str:
        return self.url


def in_order(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Sorted by name, however many they are."""
    left = iter(entries)
    run = sorted(islice(left, NAMES_AT_ONCE))
    with ExitStack() as opened:
        runs = []
        while len(run) == NAMES_AT_ONCE:
            file = opened.enter_context(TemporaryFile("w+"))
            file.writelines(f"{json.dumps(entry)}\n" for entry in run)
            file.seek(0)
            runs.append((name, tuple(about)) for name, about in map(json.loads, file))
            run = sorted(islice(left, NAMES_AT_ONCE))
        yield from merge(run, *runs)


def _check_no_password(url: str) -> None:
    """Raise UserError for a URL with one: manifests, summaries and pages name the place that they are of."""
    with suppress(ValueError):  # what is no URL has none
        for each in url.split("::"):
            if password := urlsplit(each).password:
                raise UserError(
                    f"{url.replace(password, '...')} holds a password, which would be written beside results: leave it "
                    "out; credentials come from the environment."
                )


def _told(error: Exception) -> str:
    """What an error says, or its name where it says nothing."""
    return str(error) or type(error).__name__


def _protocols(files: "AbstractFileSystem") -> tuple[str, ...]:
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)


def _on_this_disk(entry: os.DirEntry) -> tuple[str, tuple[int, str]]:
    if is_folder(entry):
        return f"{entry.name}/", (0, "")
    try:
        about = entry.stat()
    except OSError:  # a link to nothing is named where it is opened
        return entry.name, (0, "")
    return entry.name, (about.st_size, str(about.st_mtime_ns))


def _elsewhere(entry: Mapping) -> tuple[str, tuple[int, str]]:
    name = entry["name"].rstrip("/").rpartition("/")[2]
    if entry["type"] == "directory":
        return f"{name}/", (0, "")
    version = next((str(entry[key]) for key in VERSIONS if entry.get(key)), "")
    return name, (entry.get("size") or 0, version)
