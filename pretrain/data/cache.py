"""Decode once: every image as one row of a memory-mapped uint8 array, keyed by path, size and time of change.

A store is a folder of its own, outside the data: `pixels.u8`, rows one after another, each written once and never
again; `index.sqlite`, which says whose row is where and gains an entry only once the row is safely on disk; `lock`,
held by the one process that may add to it. So a build that is killed, or runs out of disk, keeps all that it had
finished, and one that reads beside it sees whole rows only.
"""

import errno
import math
import mmap
import os
import shutil
import sqlite3
import stat
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pretrain.command import UserError
from pretrain.data.channels import PLAIN, Channels, files_of
from pretrain.data.decode_pool import decode_rows, pixel_digest
from pretrain.data.images import Problem
from pretrain.data.size import Size, named, sides
from pretrain.files import alone
from pretrain.progress import Progress
from pretrain.workers import refuse_import_by_worker

# Part of every store's name: a change in how images are decoded or stretched must not meet rows made before it.
VERSION = 3
# Often, so that the last one, which nothing else runs beside, has little left to write.
SECONDS_BETWEEN_COMMITS = 0.25

SCHEMA = """CREATE TABLE IF NOT EXISTS images (
    path BLOB PRIMARY KEY, bytes INTEGER, changed_ns INTEGER,
    row INTEGER UNIQUE, height INTEGER, width INTEGER, digest BLOB, file_digest BLOB) WITHOUT ROWID"""

Key = tuple[int, int]  # a file's bytes and time of change; of several files their sums


class Entry(NamedTuple):
    """Where an image's pixels are, its height and width on disk, and two digests: of its pixels as they were cached,
    equal for copies in any format, and of its file, which depends on no cache size and no decoder."""

    row: int
    height: int
    width: int
    digest: bytes
    file_digest: bytes


class Cached(NamedTuple):
    """`pixels` uint8 (rows, height, width, 3 x lights), read-only and mapped; an entry or a problem for every
    path asked."""

    pixels: np.ndarray
    entries: dict[Path, Entry]
    problems: list[Problem]


def cache_root() -> Path:
    """Where stores lie: $HELDOUT_CACHE, or the user's cache folder. Safe to delete at any time."""
    if chosen := os.environ.get("HELDOUT_CACHE"):
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "heldout"
    except RuntimeError:
        raise UserError("this user has no home folder to cache images in: name a folder in HELDOUT_CACHE.") from None


def store_folder(folder: Path, size_px: Size, channels: Channels = PLAIN) -> Path:
    """The store of an image folder at a size, of such channels."""
    resolved = folder.resolve()
    name = blake2b(bytes(resolved), digest_size=4).hexdigest()
    return cache_root() / f"{resolved.name}-{name}-{named(size_px)}px-v{VERSION}{channels.suffix}"


def let_go(pixels: np.ndarray) -> None:
    """Give back the memory of mapped pixels that were read: it counts as this process's until others need it."""
    mapped = getattr(pixels, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def open_cached(
    folder: Path,
    paths: Sequence[Path],
    size_px: Size,
    workers: int | None = None,
    check: bool = False,
    channels: Channels = PLAIN,
) -> Cached:
    """Pixels of the images at `paths`, all below `folder`; those not yet cached, or changed, are decoded first. With
    `check` also those of which a bit was changed in the cache, which takes a second a gigabyte to find out.

    Raises UserError if the store cannot be written or its disk is full; what was decoded by then is kept.
    """
    refuse_import_by_worker()  # it would wait for the lock that its parent holds
    store_path = store_folder(folder, size_px, channels)
    try:
        store_path.mkdir(parents=True, exist_ok=True)
        try:
            return _open(store_path, folder, paths, size_px, workers, check, channels)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            print(f"the cache in {store_path} is damaged ({error}); making it anew.", file=sys.stderr)
            with _sole_writer(store_path):
                for name in ("index.sqlite", "index.sqlite-journal", "pixels.u8"):
                    (store_path / name).unlink(missing_ok=True)
            return _open(store_path, folder, paths, size_px, workers, check, channels)
    except (OSError, sqlite3.OperationalError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "disk is full" in str(error):
            raise UserError(
                f"no space left for the cache in {store_path}: free some, or name a folder on another disk in "
                "HELDOUT_CACHE; the same command then goes on where this one stopped."
            ) from None
        raise UserError(
            f"the cache in {store_path} cannot be used ({error}); name another folder in HELDOUT_CACHE."
        ) from None


def _open(
    store_path: Path,
    folder: Path,
    paths: Sequence[Path],
    size_px: Size,
    workers: int | None,
    check: bool,
    channels: Channels,
) -> Cached:
    keys, problems = _keys(paths, channels)
    with closing(_Store(store_path, folder, size_px, channels)) as store:
        entries = store.entries(keys)
        if check and (changed := store.changed(entries)):
            print(
                f"{len(changed)} images in the cache in {store_path} were damaged; decoding them again.",
                file=sys.stderr,
            )
            with _sole_writer(store_path):
                store.forget(changed)
            entries = store.entries(keys)
        if len(entries) < len(keys):
            with _sole_writer(store_path):
                entries = store.entries(keys)  # another process may have filled it while this one waited
                problems += store.fill(keys, [path for path in keys if path not in entries], workers)
                entries = store.entries(keys)
        return Cached(store.pixels(), entries, problems)


def _keys(paths: Sequence[Path], channels: Channels = PLAIN) -> tuple[dict[Path, Key], list[Problem]]:
    keys, problems = {}, []
    for path in paths:
        try:
            found = [file.stat() for file in files_of(path, channels.lights)]
            if all(stat.S_ISREG(status.st_mode) for status in found):
                changed_ns = sum(status.st_mtime_ns for status in found) % 2**63  # SQLite's numbers end there
                keys[path] = (sum(status.st_size for status in found), changed_ns)
            else:  # reading a pipe or a device could wait for ever
                problems.append(Problem(path, "not a file"))
        except OSError as error:
            reason = error.strerror or str(error)
            missing = error.filename != str(path) and Path(error.filename or path).name
            problems.append(Problem(path, f"its light {missing}: {reason}" if missing else reason))
    return keys, problems


def _sole_writer(store_path: Path) -> AbstractContextManager[None]:
    """The right to append to a store."""
    return alone(store_path / "lock", f"another process is filling the cache in {store_path}; waiting for it.")


class _Store:
    """The rows and the index of one image folder at one size, of such channels."""

    def __init__(self, store_path: Path, folder: Path, size_px: Size, channels: Channels = PLAIN) -> None:
        self._path, self._folder, self._size_px, self._channels = store_path, folder, size_px, channels
        self._shape = (*sides(size_px), 3 * channels.lights)
        self._row_bytes = math.prod(self._shape)
        self._pixel_file = store_path / "pixels.u8"
        self._index = sqlite3.connect(store_path / "index.sqlite", timeout=60.0)
        self._index.execute(SCHEMA)

    def close(self) -> None:
        self._index.close()

    def entries(self, keys: Mapping[Path, Key]) -> dict[Path, Entry]:
        """Those of the images that are cached as they are on disk now."""
        rows_on_disk = self._rows_on_disk()
        stored = {row[0]: row[1:] for row in self._index.execute("SELECT * FROM images")}
        entries = {}
        for path, key in keys.items():
            *cached_key, row, height, width, digest, file_digest = stored.get(self._name(path), (None,) * 7)
            if tuple(cached_key) == key and row < rows_on_disk:
                entries[path] = Entry(row, height, width, digest, file_digest)
        return entries

    def changed(self, entries: Mapping[Path, Entry]) -> list[Path]:
        """Those whose pixels are no longer what was cached."""
        pixels = self.pixels()
        return [path for path, entry in entries.items() if pixel_digest(pixels[entry.row]) != entry.digest]

    def forget(self, paths: Collection[Path]) -> None:
        """The lock is held."""
        with self._index:
            self._index.executemany("DELETE FROM images WHERE path = ?", [(self._name(path),) for path in paths])

    def pixels(self) -> np.ndarray:
        shape = (self._rows_on_disk(), *self._shape)
        return np.memmap(self._pixel_file, np.uint8, "r", shape=shape) if shape[0] else np.empty(shape, np.uint8)

    def fill(self, keys: Mapping[Path, Key], missing: Collection[Path], workers: int | None) -> list[Problem]:
        """Decode and append `missing`; the lock is held. Returns the files that hold no image."""
        if not missing:
            return []
        self._check_space(len(missing))
        problems: list[Problem] = []
        ready: list[tuple] = []
        with self._index:  # of a file that was cut short or is gone: the new rows take their places
            self._index.execute("DELETE FROM images WHERE row >= ?", (self._rows_on_disk(),))
        # Rows that this call gives out lie behind all that were ever given out, also to workers of a killed process.
        # Those of unreadable images stay holes, which take no room.
        first_row = self._rows_on_disk()
        last_commit_s = time.monotonic()
        with open(self._pixel_file, "ab") as file:
            file.truncate((first_row + len(missing)) * self._row_bytes)
            try:
                with Progress("decoding", len(missing)) as progress:
                    for path, outcome in decode_rows(
                        list(missing), self._pixel_file, first_row, self._size_px, workers, self._channels
                    ):
                        if isinstance(outcome, str):
                            problems.append(Problem(path, outcome))
                        else:
                            ready.append((self._name(path), *keys[path], *outcome))
                        progress.advance(note=f"{len(problems)} unreadable" if problems else "")
                        if time.monotonic() - last_commit_s > SECONDS_BETWEEN_COMMITS:
                            self._commit(file, ready)
                            last_commit_s = time.monotonic()
            finally:
                self._commit(file, ready)
        return problems

    def _commit(self, file, ready: list[tuple]) -> None:
        """Rows first, then the entries that point to them: an entry never points to what is not on disk."""
        os.fsync(file.fileno())
        with self._index:
            self._index.executemany("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?)", ready)
        ready.clear()

    def _check_space(self, count: int) -> None:
        free, needed = shutil.disk_usage(self._path).free, count * self._row_bytes
        if needed > free:
            raise OSError(errno.ENOSPC, f"{needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")

    def _rows_on_disk(self) -> int:
        return self._pixel_file.stat().st_size // self._row_bytes if self._pixel_file.exists() else 0

    def _name(self, path: Path) -> bytes:
        return os.fsencode(path.relative_to(self._folder))
