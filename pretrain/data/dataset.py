"""The data set a command works on: which folder, which images of it, and their pixels."""

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pretrain.command import UserError
from pretrain.data.cache import Entry, let_go, open_cached
from pretrain.data.channels import PLAIN, Channels, ToFind, as_parts
from pretrain.data.decode import Unreadable, read_mask, size_on_disk
from pretrain.data.images import LayoutName, Problem, Record, same_content, some_of, split_records
from pretrain.data.layouts import LAYOUTS, has_layout, scan, scan_plain
from pretrain.data.size import DEFAULT_PX, Asked, Size, default_px, distorts, keeping_aspect, named, sides
from pretrain.demo import is_demo, make

REAL_DATA = Path("data/mvtec")
DEMO_DATA = Path("data/demo")
MIN_PX, MAX_PX = 8, 16384
# Of images that were copied: the memory that holds them a second time is worth giving back.
LARGE_BYTES = 1 << 26
# Images whose sizes are read to know the usual one.
MAX_MEASURED = 64


@dataclass(frozen=True)
class ImageSet:
    """Records, and which row of the mapped store `pixels`, uint8 (rows, height, width, 3 x lights), holds each
    one, as `channels` has it.

    `problems` are the files of the same folder that cannot be used.
    """

    folder: Path
    size_px: Size
    records: tuple[Record, ...]
    entries: tuple[Entry, ...]
    pixels: np.ndarray
    problems: tuple[Problem, ...] = ()
    channels: Channels = PLAIN

    def __len__(self) -> int:
        return len(self.records)

    def batch(self, positions: Sequence[int]) -> np.ndarray:
        """Copies of the images at `positions`: uint8 (b, height, width, 3), RGB, of several lights three
        channels each."""
        pixels = self.pixels[[self.entries[position].row for position in positions]]
        if pixels.nbytes > LARGE_BYTES:
            let_go(self.pixels)
        return pixels

    def subset(self, positions: Sequence[int]) -> "ImageSet":
        """The images at `positions` alone."""
        records = tuple(self.records[position] for position in positions)
        return replace(self, records=records, entries=tuple(self.entries[position] for position in positions))

    @property
    def categories(self) -> list[str]:
        """Names in alphabetical order."""
        return sorted({record.category for record in self.records})

    def of(self, category: str) -> "ImageSet":
        """The images of one category alone."""
        return self.subset([i for i, record in enumerate(self.records) if record.category == category])

    def split(self, fractions: Mapping[str, float], seed: int) -> dict[str, "ImageSet"]:
        """Disjoint parts, stratified by category and defect; copies of an image stay together."""
        digests, file_digests = zip(*((entry.digest, entry.file_digest) for entry in self.entries), strict=True)
        parts = split_records(self.records, digests, file_digests, fractions, seed)
        return {part: self.subset(positions) for part, positions in parts.items()}

    def copies(self) -> list[list[Record]]:
        """Groups of records whose images are the same, pixel for pixel, as they were cached."""
        groups = same_content([entry.digest for entry in self.entries])
        return [[self.records[position] for position in group] for group in groups]


def choose_folder(data: Path | None) -> Path:
    """The folder that was typed, else data/mvtec, else demo data, made if need be; says so in one line."""
    if data is not None:
        return data
    if any(REAL_DATA.glob("*/train")):  # an unfinished download has none
        return REAL_DATA
    print(f"no --data given and no {REAL_DATA} here: using generated demo data in {DEMO_DATA}", file=sys.stderr)
    if not is_demo(DEMO_DATA):
        make(DEMO_DATA)
    return DEMO_DATA


def data_name(folder: Path) -> str:
    """What to call a folder in the title of whatever is computed on it."""
    return f"demo data ({folder})" if is_demo(folder) else str(folder)


def layout_of(data: Path, asked: LayoutName | None, metadata: Mapping[str, object]) -> LayoutName | None:
    """How a folder is laid out: as was typed, else as was typed when a model of this `metadata` was fitted to it."""
    kept = metadata.get("layout") if metadata.get("data") == data_name(data) else None
    return asked or (kept if kept in [*LAYOUTS] else None)


def load(
    folder: Path,
    size_px: Asked,
    categories: Collection[str] = (),
    normals_only: bool = False,
    strict: bool = False,
    workers: int | None = None,
    allow_plain: bool = False,
    check_cache: bool = False,
    layout: LayoutName | None = None,
    keep_aspect: bool = False,
    channels: Channels | ToFind = PLAIN,
) -> ImageSet:
    """The images of a folder, cached. With `normals_only` nothing but train/good is opened; with `allow_plain` the
    folder need not be laid out by category and split; with `check_cache` damaged images there are decoded again.
    `layout` says how the folder is laid out, where that is not to be found out. With `keep_aspect` a square of
    `size_px` gives way to a rectangle of as many pixels where images usually are one; with no `size_px` they stay as
    large as they usually are, with "auto" they tell it (size.py). `channels` say how files become images, or are found.

    Every file that cannot be used is named on stderr and left out; with `strict`, that is a UserError.
    """
    if workers is not None and workers < 1:
        raise UserError(f"{workers} workers cannot decode: give 1 or more, or leave it out for one per core.")
    is_plain = allow_plain and folder.is_dir() and not has_layout(folder, layout)
    scanned = scan_plain(folder, categories) if is_plain else scan(folder, categories, normals_only, layout)
    if isinstance(channels, ToFind):
        records = as_parts(scanned.records) if channels.lights else scanned.records
        channels = channels.found([record.path for record in records])
    if channels.lights > 1:
        scanned = scanned._replace(records=tuple(as_parts(scanned.records)))
    if keep_aspect or size_px is None or size_px == "auto":
        size_px = usual_size([record.path for record in scanned.records], size_px)
    check_size(size_px)
    cached = open_cached(folder, [record.path for record in scanned.records], size_px, workers, check_cache, channels)
    records = tuple(record for record in scanned.records if record.path in cached.entries)
    records, mask_problems = _with_fitting_masks(records, cached.entries)
    problems = (*scanned.problems, *cached.problems, *mask_problems)
    if problems:
        print(f"{len(problems)} files in {folder} cannot be used:", file=sys.stderr)
    for problem in problems:
        print(f"  {problem.path.relative_to(folder)}: {problem.reason}", file=sys.stderr)
    if strict and problems:
        raise UserError(f"{len(problems)} files cannot be used and --strict was given: mend or remove them.")
    if not records:
        raise UserError(f"none of the {len(problems)} images in {folder} can be read.")
    entries = tuple(cached.entries[record.path] for record in records)
    height, width = sides(size_px)
    if stretched := sum(distorts(width / height, entry.height, entry.width) for entry in entries):
        print(f"{stretched} of {len(entries)} images in {folder} are stretched to {width}x{height} px", file=sys.stderr)
    return ImageSet(folder, size_px, records, entries, cached.pixels, problems, channels)


def check_size(size_px: Size) -> None:
    """Raise UserError for a size that no image is stretched to."""
    if not MIN_PX <= min(sides(size_px)) <= max(sides(size_px)) <= MAX_PX:
        raise UserError(f"images cannot be cached at {named(size_px)} px: choose from {MIN_PX} to {MAX_PX}.")


def usual_size(images: Sequence, size_px: Asked, measure: Callable[[Any], tuple[int, int]] = size_on_disk) -> Size:
    """What images usually are: their median height and width, or with `size_px` the size of as many pixels as such a
    square and of their aspect; with "auto" they tell that side. Of some, spread over all: paths, or whatever `measure`
    gives (height, width) of."""
    measured = []
    for position in some_of(len(images), MAX_MEASURED):
        with suppress(Unreadable):  # it is named where it is decoded
            measured.append(measure(images[position]))
    if not measured:
        return DEFAULT_PX if size_px == "auto" else size_px or MIN_PX
    height, width = (int(side) for side in np.median(measured, axis=0))
    if size_px == "auto":
        size_px = default_px(height, width)
    if size_px:
        return keeping_aspect(size_px, width / height)
    return height if height == width else (height, width)


def _with_fitting_masks(
    records: Sequence[Record], entries: Mapping[Path, Entry]
) -> tuple[tuple[Record, ...], list[Problem]]:
    """The records without the masks that cannot be used, each of which is read once to know."""

    def misfit(record: Record) -> str | None:
        if record.mask is None:
            return None
        try:
            height, width = read_mask(record.mask).shape
        except Unreadable as unreadable:
            return str(unreadable)
        entry = entries[record.path]
        if (height, width) != (entry.height, entry.width):
            return f"the mask is {width}x{height}, its image {entry.width}x{entry.height}"
        return None

    with ThreadPoolExecutor() as pool:  # Pillow lets go of Python's lock
        reasons = list(pool.map(misfit, records))
    fitting = tuple(
        replace(record, mask=None) if reason else record for record, reason in zip(records, reasons, strict=True)
    )
    return fitting, [Problem(record.mask, reason) for record, reason in zip(records, reasons, strict=True) if reason]
