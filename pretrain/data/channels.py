"""How images of a camera become what a method sees: the range of their values, and the lights of one part.

Images of 8 bits, one of each part, are read as they are (decode.py). Of those with more bits a range counts
(levels.py), which good images tell. Lights are pages of a TIFF, or files NAME_light1.png, NAME_light2.png and so on:
each brings three channels, and may have a range of its own, as one of heat has beside one of color.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from pretrain.command import UserError
from pretrain.data.decode import Decoded, Unreadable, bytes_of, decode
from pretrain.data.images import SUFFIXES, Record
from pretrain.data.levels import Range, as_range, in_range, is_deep, pages_of, read_levels, without_range
from pretrain.data.size import Size

MAX_LIGHTS = 64
OF_A_LIGHT = re.compile(r"(.+)_light(\d+)")
# Images, spread over all, that tell the range, and values of each.
MAX_MEASURED, VALUES_OF_EACH = 64, 2**16
# In percent of values, at either end: dead and hot pixels do not make the range. What is darker or brighter than all
# good images is what is sought: so much of the width is left for it at either end.
LEFT_OUT, ROOM = 0.1, 0.1


class Channels(NamedTuple):
    """Of each light of a part the range of its values, or none where it has 8 bits."""

    ranges: tuple[Range | None, ...] = (None,)

    @property
    def lights(self) -> int:
        return len(self.ranges)

    @property
    def suffix(self) -> str:
        """What tells a cache of such images from others: nothing, of plain ones."""
        return "" if self == PLAIN else f"-c{blake2b(repr(self.as_json()).encode(), digest_size=6).hexdigest()}"

    def __str__(self) -> str:
        ranges = ["8 bits" if each is None else f"values from {each}" for each in self.ranges]
        return ranges[0] if self.lights == 1 else f"{self.lights} lights ({', '.join(ranges)})"

    def as_json(self) -> list:
        return [each and list(each) for each in self.ranges]

    @classmethod
    def from_json(cls, stored: object) -> Self:
        """Raises ValueError for what is none."""
        if not isinstance(stored, list) or not 1 <= len(stored) <= MAX_LIGHTS:
            raise ValueError(f"channels are {stored!r:.40}")
        return cls(tuple(None if each is None else as_range(each) for each in stored))


# 8 bits, and one light.
PLAIN = Channels()


@dataclass(frozen=True)
class ToFind:
    """Channels that good images are to tell: whether these are lights of parts, and the range where one was typed."""

    lights: bool = False
    typed: Range | None = None

    def found(self, paths: Sequence[Path]) -> Channels:
        """Of images, most of which are alike. Raises UserError where there are no lights, or no range."""
        spread = np.linspace(0, len(paths) - 1, min(len(paths), MAX_MEASURED)).astype(int)
        parts = [paths[position] for position in spread]
        lights = _usual_lights(parts) if self.lights else 1
        ranges = tuple(self._range_of([_light_of(part, number, lights) for part in parts]) for number in range(lights))
        if self.typed and not any(ranges):
            raise UserError("--range is for images of more than 8 bits a channel, and these have 8: leave it out.")
        return Channels(ranges)

    def _range_of(self, pages: Sequence[tuple[Path, int]]) -> Range | None:
        """Of one light, by the files and pages that hold it; none where most have 8 bits."""
        deep = [each for each in pages if is_deep(*each)]
        if 2 * len(deep) <= len(pages):
            return None
        return self.typed or usual_range(deep)


def typed_range(typed: Sequence[str]) -> Range | None:
    """As a user types it; none where nothing is typed. Raises UserError for what is no range."""
    try:
        return as_range([float(value) for value in typed]) if typed else None
    except ValueError:
        raise UserError(
            f"--range {','.join(typed)} is none: give the lowest and the highest value, such as 0,4095."
        ) from None


def usual_range(pages: Iterable[tuple[Path, int]]) -> Range:
    """The range of what files show at those pages."""

    def readable() -> Iterator[np.ndarray]:
        for path, page in pages:
            with suppress(Unreadable):  # it is named where it is decoded
                yield read_levels(bytes_of(path), page)

    return range_of(readable())


def range_of(images: Iterable[np.ndarray]) -> Range:
    """The range of the values of images, of some of each."""
    values, limits = [np.zeros(0, np.float32)], None
    for levels in images:
        limits = np.iinfo(levels.dtype) if np.issubdtype(levels.dtype, np.integer) else None
        flat = levels.ravel()
        part = flat[:: max(1, len(flat) // VALUES_OF_EACH) | 1].astype(np.float32)
        values.append(part[np.isfinite(part)])
    known = np.concatenate(values)
    if not len(known):
        raise UserError("no image shows a value that could tell the range: give it by --range LOW,HIGH.")
    low, high = (float(value) for value in np.percentile(known, (LEFT_OUT, 100 - LEFT_OUT)))
    room = ROOM * (high - low) or 1.0
    low, high = low - room, high + room
    return Range(low, high) if limits is None else Range(max(low, limits.min), min(high, limits.max))


def as_parts(records: Iterable[Record]) -> list[Record]:
    """One record a part, that of its first light; a stack is a part by itself."""
    parts = {}
    for record in records:
        first = light_file(record.path, 1)
        parts.setdefault(first, replace(record, path=first))
    return list(parts.values())


def light_file(path: Path, number: int) -> Path:
    """The file of a light of the part of which `path` is one; of a stack, the stack."""
    if not (match := OF_A_LIGHT.fullmatch(path.stem)):
        return path
    suffixes = [path.suffix, *sorted(SUFFIXES)]  # a camera of heat may write other files than one of color
    files = [path.with_name(f"{match[1]}_light{number}{suffix}") for suffix in suffixes]
    return next((file for file in files if file.exists()), files[0])


def files_of(path: Path, channels: Channels) -> list[Path]:
    """The files that a part consists of."""
    return list(dict.fromkeys(_light_of(path, number, channels.lights)[0] for number in range(channels.lights)))


def read_image(path: Path, size_px: Size | None = None, channels: Channels = PLAIN) -> Decoded:
    """What `decode` gives, of all lights of a part: uint8 (h, w, 3 x lights). Raises Unreadable, also for an image that
    is not of such channels."""
    if channels == PLAIN:
        return decode(path, size_px)
    contents = {file: _light_bytes(file, number) for number, file in enumerate(files_of(path, channels), 1)}
    if channels.lights > 1:
        _check_lights(path, contents, channels.lights)
    pages = [_light_of(path, number, channels.lights) for number in range(channels.lights)]
    decoded = joined([read_levels(contents[file], page) for file, page in pages], size_px, channels)
    return decoded._replace(file_digest=digest_of(contents.values()))


def digest_of(contents: Iterable[bytes]) -> bytes:
    """Of the files of a part."""
    return blake2b(b"".join(blake2b(content, digest_size=16).digest() for content in contents)).digest()[:16]


def joined(lights: Sequence[np.ndarray], size_px: Size | None, channels: Channels) -> Decoded:
    """The same of what each light gives, (h, w) or (h, w, 3)."""
    if len(lights) != channels.lights:
        raise Unreadable(f"has {len(lights)} lights, where {channels.lights} are expected")
    if len(sizes := {levels.shape[:2] for levels in lights}) > 1:
        raise Unreadable(f"has lights of {len(sizes)} sizes")
    pairs = zip(lights, channels.ranges, strict=True)
    parts = [
        in_range(levels, limits, size_px) if limits else without_range(levels, size_px) for levels, limits in pairs
    ]
    return Decoded(np.concatenate(parts, axis=2) if len(parts) > 1 else parts[0], *lights[0].shape[:2])


def _light_of(path: Path, number: int, lights: int) -> tuple[Path, int]:
    """The file and the page that hold a light, counted from 0, of as many."""
    if lights > 1 and OF_A_LIGHT.fullmatch(path.stem):
        return light_file(path, number + 1), 0
    return path, number


def _light_bytes(file: Path, number: int) -> bytes:
    try:
        return bytes_of(file)
    except Unreadable as unreadable:
        raise Unreadable(f"light {number}, {file.name}: {unreadable}" if number > 1 else str(unreadable)) from None


def _check_lights(path: Path, contents: dict[Path, bytes], lights: int) -> None:
    """Raise Unreadable for a part with fewer or more of them."""
    if len(contents) > 1:
        if (further := light_file(path, lights + 1)).exists():
            raise Unreadable(f"has a further light, {further.name}, where {lights} are expected")
    elif (pages := pages_of(contents[path])) != lights:
        raise Unreadable(f"has {pages} {'page' if pages == 1 else 'pages'}, where {lights} lights are expected")


def _usual_lights(parts: Sequence[Path]) -> int:
    """How many lights parts have. Raises UserError where they have one."""
    counts = Counter(_count_lights(part) for part in parts)
    lights = counts.most_common(1)[0][0]
    if not 1 < lights <= MAX_LIGHTS:
        raise UserError(
            f"--lights takes parts of 2 to {MAX_LIGHTS} lights, pages of a TIFF or files NAME_light1.png, "
            f"NAME_light2.png and so on; {parts[0].name} is one of {_count_lights(parts[0])}."
        )
    return lights


def _count_lights(part: Path) -> int:
    if OF_A_LIGHT.fullmatch(part.stem):
        return next(number for number in range(1, MAX_LIGHTS + 2) if not light_file(part, number + 1).exists())
    try:
        return pages_of(bytes_of(part))
    except Unreadable:
        return 1
