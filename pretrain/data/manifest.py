"""A manifest: the images below a place, listed once into a Parquet file that any number of workers read in parts.

Columns are `path`, `size` and `version` (an etag, a checksum or a time: what changes with the file), in the order of
paths; the place itself is named beside them. It is written and read a group of rows at a time, so that ten million
names never lie in memory.

A part is a run of rows, and ends where a path says so by itself: an image that is added or gone changes one part, and
what was made of all others stays good.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from importlib import import_module
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from pretrain.command import UserError, installed_by
from pretrain.data.images import SUFFIXES
from pretrain.data.places import Listed, Place
from pretrain.files import whole_file

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

SUFFIX, PLACE = ".parquet", "heldout.place"
COLUMNS = {"path": "string", "size": "int64", "version": "string"}
ROWS_AT_ONCE = 2**15
# Of the images of a part, on average: it has at least a quarter of them, and at most four times as many.
SPREAD = 4


class Part(NamedTuple):
    """Rows that are worked on together, and what they are known by: a digest of their paths, sizes and versions."""

    rows: tuple[Listed, ...]
    digest: str


class Changes(NamedTuple):
    """What is listed now, and how that differs from an earlier list."""

    images: int
    new: int
    changed: int
    gone: int

    def in_words(self) -> str:
        return f"{self.images} images, {self.new} of them new, {self.changed} changed; {self.gone} are gone"


def write_manifest(place: Place, file: Path) -> Changes:
    """List the images below a place, in place of an earlier list. Raises UserError where there are none."""
    parquet, arrow = import_parquet(), import_module("pyarrow")
    columns = [(name, getattr(arrow, kind)()) for name, kind in COLUMNS.items()]
    counted = _Counted(place.listed(SUFFIXES), _readable_rows(file))
    rows = iter(counted)
    with whole_file(file) as unfinished, _in_unicode():
        schema = arrow.schema(columns, metadata={PLACE: place.url})
        with parquet.ParquetWriter(unfinished, schema) as writer:
            while group := list(islice(rows, ROWS_AT_ONCE)):
                writer.write_table(arrow.table(list(map(list, zip(*group, strict=True))), schema=schema))
        if not counted.images:
            raise UserError(f"there is no image in {place} ({', '.join(sorted(SUFFIXES))}).")
    return Changes(counted.images, counted.new, counted.changed, counted.gone)


@contextmanager
def _in_unicode() -> Iterator[None]:
    """A name that is no UTF-8, which Parquet cannot hold, is a UserError."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise UserError(f"the name {error.object!r} is not UTF-8, and a manifest cannot hold it: rename it.") from None


def _readable_rows(file: Path) -> Iterator[Listed]:
    """The rows of an earlier list, as far as it can be read: it is being replaced."""
    with suppress(UserError):
        yield from read_rows(file)


class _Counted:
    """Rows as they are, counted beside those of an earlier list: both are in the order of paths."""

    def __init__(self, rows: Iterable[Listed], before: Iterable[Listed]) -> None:
        self._rows, self._before = rows, iter(before)
        self.images = self.new = self.changed = self.gone = 0

    def __iter__(self) -> Iterator[Listed]:
        known = next(self._before, None)
        for row in self._rows:
            while known and known.path < row.path:
                self.gone, known = self.gone + 1, next(self._before, None)
            is_known = known is not None and known.path == row.path
            self.images, self.new = self.images + 1, self.new + (not is_known)
            if is_known:
                self.changed, known = self.changed + (known != row), next(self._before, None)
            yield row
        self.gone += (known is not None) + sum(1 for _ in self._before)


def count_rows(file: Path) -> int:
    """How many images a manifest lists."""
    with _opened(file) as manifest:
        return manifest.metadata.num_rows


def place_of(file: Path) -> Place:
    """Where the images of a manifest lie; where it does not say so, beside it."""
    with _opened(file) as manifest:
        told = (manifest.schema_arrow.metadata or {}).get(PLACE.encode())
    return Place.of(told.decode() if told else str(file.resolve().parent))


def read_rows(file: Path) -> Iterator[Listed]:
    """The rows of a manifest, or of any Parquet file that has a column `path`. Raises UserError for any other."""
    with _opened(file) as manifest:
        names = [name for name in COLUMNS if name in manifest.schema_arrow.names]
        batches = manifest.iter_batches(ROWS_AT_ONCE, columns=names)
        while columns := _next_columns(file, batches, names):
            count = len(columns["path"])
            for path in columns["path"]:
                _check_path(file, path)
            sizes, versions = columns.get("size", [0] * count), columns.get("version", [""] * count)
            yield from map(Listed, columns["path"], sizes, versions)


def _next_columns(file: Path, batches: Iterator, names: list[str]) -> dict[str, list] | None:
    """Some rows by their columns; none at the end. Raises UserError for what is damaged."""
    try:
        if (batch := next(batches, None)) is None:
            return None
        return {name: batch.column(name).to_pylist() for name in names}
    except (OSError, ValueError) as error:  # pyarrow's own are such
        raise UserError(f"{file} is damaged ({error}): make the manifest again.") from None


def _check_path(file: Path, path: object) -> None:
    """Raise UserError for what names nothing below a place."""
    if not isinstance(path, str) or not path or path.startswith("/") or ".." in path.split("/"):
        raise UserError(f"{file} names {path!r}, which is no path below a folder: give paths such as day/1.png.")


def parts_of(rows: Iterable[Listed], images: int) -> Iterator[Part]:
    """Rows in parts, of so many images on average."""
    part: list[Listed] = []
    for row in rows:
        part.append(row)
        is_end = crc32(row.path.encode("utf-8", "surrogatepass")) % images == 0
        if len(part) >= SPREAD * images or (is_end and len(part) * SPREAD >= images):
            yield _part(part)
            part = []
    if part:
        yield _part(part)


def _part(rows: list[Listed]) -> Part:
    if len({row.path for row in rows}) < len(rows):
        twice = next(path for path, count in Counter(row.path for row in rows).items() if count > 1)
        raise UserError(f"{twice} is in the manifest twice: name each image once.")
    return Part(tuple(rows), _digest(rows))


def _digest(rows: Iterable[Listed]) -> str:
    digest = blake2b(digest_size=12)
    for row in rows:
        digest.update(repr(tuple(row)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def import_parquet() -> ModuleType:
    """pyarrow's module for Parquet files: half a second, and of an optional package. Raises UserError without it."""
    try:
        return import_module("pyarrow.parquet")
    except ImportError:
        raise UserError(f"a manifest is read by pyarrow, which is not installed: {installed_by('ray')}.") from None


def _opened(file: Path) -> "ParquetFile":
    parquet = import_parquet()
    try:
        manifest = parquet.ParquetFile(file)
    except FileNotFoundError:
        raise UserError(f"there is no manifest {file}: heldout manifest makes one.") from None
    except (OSError, ValueError) as error:  # pyarrow's own are such
        raise UserError(f"{file} is no Parquet file, or damaged ({error}): make the manifest again.") from None
    if "path" not in manifest.schema_arrow.names:
        manifest.close()
        raise UserError(f"{file} has no column path: a manifest names images by it.")
    return manifest
