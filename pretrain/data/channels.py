"""How images of a camera become what a method sees: the range of their values, and the lights of one part.

Images of 8 bits, one of each part, are read as they are (decode.py). Of those with more bits a range counts
(levels.py), which good images tell. Lights are pages of a TIFF, bands of its pages (bands.py), or files
NAME_light1.png, NAME_light2.png and so on: each brings three channels, and may have a range of its own, as one of heat
has beside one of color.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from pretrain.command import UserError
from pretrain.data.decode import Decoded, Unreadable, bytes_of, decode, decode_bytes
from pretrain.data.images import SUFFIXES, Record, some_of
from pretrain.data.levels import Range, as_range, check_alone, held_in, in_range, is_deep, read_levels, without_range
from pretrain.data.size import Size

MAX_LIGHTS = 64
TIFF = (".tif", ".tiff")
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
        parts = [paths[position] for position in some_of(len(paths), MAX_MEASURED)]
        lights = _usual_lights(parts) if self.lights else 1
        deep = [_are_deep(part, lights) for part in parts]
        has_range = [2 * sum(of_light) > len(parts) for of_light in zip(*deep, strict=True)] or [False] * lights
        if self.typed and not any(has_range):
            raise UserError("--range is for images of more than 8 bits a channel, and these have 8: leave it out.")
        if self.typed or not any(has_range):
            return Channels(tuple(self.typed if each else None for each in has_range))
        shown = [part for part, of_part in zip(parts, deep, strict=True) if any(of_part)]
        return Channels(usual_ranges(shown, has_range))


def typed_range(typed: Sequence[str]) -> Range | None:
    """As a user types it; none where nothing is typed. Raises UserError for what is no range."""
    try:
        return as_range([float(value) for value in typed]) if typed else None
    except ValueError:
        raise UserError(
            f"--range {','.join(typed)} is none: give the lowest and the highest value, such as 0,4095."
        ) from None


def usual_ranges(parts: Iterable[Path], has_range: Sequence[bool]) -> tuple[Range | None, ...]:
    """Of parts, that of each light that has one, by what images of more than 8 bits show."""
    shown = {light: Shown() for light, each in enumerate(has_range) if each}
    for part in parts:
        with suppress(Unreadable):  # it is named where it is decoded
            for of_light, levels in zip(shown.values(), _levels_of(part, len(has_range), [*shown]), strict=True):
                if levels.dtype != np.uint8:
                    of_light.add(levels)
    return tuple(shown[light].range() if each else None for light, each in enumerate(has_range))


def range_of(images: Iterable[np.ndarray]) -> Range:
    """The range of the values of images."""
    shown = Shown()
    for levels in images:
        shown.add(levels)
    return shown.range()


class Shown:
    """Some of the values of images, as they come, and the range that they tell."""

    def __init__(self) -> None:
        self._values, self._limits = [np.zeros(0, np.float32)], None

    def add(self, levels: np.ndarray) -> None:
        self._limits = np.iinfo(levels.dtype) if np.issubdtype(levels.dtype, np.integer) else None
        flat = levels.ravel()
        part = flat[:: max(1, len(flat) // VALUES_OF_EACH) | 1].astype(np.float32)
        self._values.append(part[np.isfinite(part)])

    def range(self) -> Range:
        """Raises UserError where nothing tells it."""
        known = np.concatenate(self._values)
        if not len(known):
            raise UserError("no image shows a value that could tell the range: give it by --range LOW,HIGH.")
        low, high = (float(value) for value in np.percentile(known, (LEFT_OUT, 100 - LEFT_OUT)))
        room = ROOM * (high - low) or 1.0
        low, high = low - room, high + room
        limits = self._limits
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


def files_of(path: Path, lights: int) -> list[Path]:
    """The files that a part of as many lights consists of: one of all of them, or each of one."""
    if lights > 1 and OF_A_LIGHT.fullmatch(path.stem):
        return [light_file(path, number) for number in range(1, lights + 1)]
    return [path]


def unseen_of(path: Path) -> str:
    """What of a part is not seen where it is taken as one image, in words; nothing of an image that is whole, and of
    what cannot be read."""
    first, second = light_file(path, 1), light_file(path, 2)
    if first != second and first.exists() and second.exists():
        return f"{first.name} and {second.name} are taken as an image each: --lights takes them as one part"
    if path.suffix.lower() not in TIFF or not path.is_file():
        return ""
    try:
        count, in_words = held_in(bytes_of(path))
    except Unreadable:
        return ""
    return f"{path.name} holds {in_words}, and the first alone is seen: --lights sees each" if count > 1 else ""


def read_image(path: Path, size_px: Size | None = None, channels: Channels = PLAIN) -> Decoded:
    """What `decode` gives, of all lights of a part: uint8 (h, w, 3 x lights). Raises Unreadable, also for an image that
    is not of such channels."""
    if channels == PLAIN:
        return decode(path, size_px)
    contents = [_light_bytes(file, number) for number, file in enumerate(files_of(path, channels.lights), 1)]
    if len(contents) > 1 and (further := light_file(path, channels.lights + 1)).exists():
        raise Unreadable(f"has a further light, {further.name}, where {channels.lights} are expected")
    return read_contents(contents, size_px, channels)


def read_contents(contents: Sequence[bytes], size_px: Size | None, channels: Channels) -> Decoded:
    """The same of what the files of a part hold: one of all lights, or each of one."""
    if channels == PLAIN:
        return decode_bytes(contents[0], size_px)
    if len(contents) > 1:
        lights = [levels for content in contents for levels in _levels_alone(content)]
    else:
        lights = _stacked(contents[0], channels.lights)
    return joined(lights, size_px, channels)._replace(file_digest=digest_of(contents))


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


def _are_deep(part: Path, lights: int) -> list[bool]:
    """Whether each light of a part has more than 8 bits."""
    files = files_of(part, lights)
    return is_deep(part, range(lights)) if len(files) == 1 else [is_deep(file)[0] for file in files]


def _levels_of(part: Path, lights: int, wanted: Sequence[int]) -> list[np.ndarray]:
    """What some of the lights of a part show. Raises Unreadable."""
    files = files_of(part, lights)
    if len(files) == 1:
        return read_levels(bytes_of(part), wanted)
    return [levels for light in wanted for levels in read_levels(bytes_of(files[light]))]


def _levels_alone(content: bytes) -> list[np.ndarray]:
    """What a file of one light shows. Raises Unreadable for one of several bands."""
    check_alone(content)
    return read_levels(content)


def _stacked(content: bytes, lights: int) -> list[np.ndarray]:
    """What a file of all lights shows. Raises Unreadable for one of fewer or more."""
    if lights == 1:
        return _levels_alone(content)
    count, in_words = held_in(content)
    if count != lights:
        raise Unreadable(f"has {in_words}, where {lights} lights are expected")
    return read_levels(content, range(lights))


def _light_bytes(file: Path, number: int) -> bytes:
    try:
        return bytes_of(file)
    except Unreadable as unreadable:
        raise Unreadable(f"light {number}, {file.name}: {unreadable}" if number > 1 else str(unreadable)) from None


def _usual_lights(parts: Sequence[Path]) -> int:
    """How many lights parts have. Raises UserError where they have one."""
    counts = Counter(_count_lights(part) for part in parts)
    lights = counts.most_common(1)[0][0]
    if not 1 < lights <= MAX_LIGHTS:
        raise UserError(
            f"--lights takes parts of 2 to {MAX_LIGHTS} lights, pages or bands of a TIFF or files NAME_light1.png, "
            f"NAME_light2.png and so on; {parts[0].name} is one of {_count_lights(parts[0])}."
        )
    return lights


def _count_lights(part: Path) -> int:
    if OF_A_LIGHT.fullmatch(part.stem):
        return next(number for number in range(1, MAX_LIGHTS + 2) if not light_file(part, number + 1).exists())
    try:
        return held_in(bytes_of(part))[0]
    except Unreadable:
        return 1
