"""Where to look: a region of interest, drawn as a mask or as polygons on an image of the product.

As a mask, any image of the size of the product's images: what is bright counts. As JSON, polygons in pixels of these
images, one area or several zones, each of which decides by its own threshold (zones.py):

    {"include": [[[x, y], ...], ...], "ignore": [...]}
    {"format": 1, "image_size": [640, 480], "ignore": [...],
     "zones": [{"name": "thread", "include": [...], "false_alarm_rate": 0.02, "min_area_px": 30}, ...]}

Without `include` and `zones` all counts but what is ignored. Of zones that overlap the later one counts. `image_size`,
width and height, says on what the polygons were drawn; without it, on images of the size of the product's.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from PIL import Image, ImageDraw

from pretrain.command import UserError, nearest
from pretrain.data.decode import Unreadable, read_mask
from pretrain.data.size import Size, distorts, named, sides
from pretrain.reading import read_json

FORMAT = 1
FEWEST_POINTS = 3
MAX_ZONES, MAX_POLYGONS, MAX_POINTS, MAX_NAME = 64, 1000, 10_000, 60
MAX_PX = 2**20  # of a coordinate
# As a share of the side, how far a line may be drawn across the border of an image.
ACROSS = 0.1
# Of the drawing before it is reduced to what a method sees: more would take gigabytes and change no pixel.
MAX_DRAWN_PX = 4096
KEYS = ("format", "image_size", "include", "ignore", "zones")
ZONE_KEYS = ("name", "include", "threshold", "false_alarm_rate", "min_area_px")
EXPECTED = 'give {"include": [[[x, y], ...], ...], "ignore": [...]}, or zones, as docs/detection.md shows them'

Polygon = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Zone:
    """A part of the product that is judged for itself. `threshold` of the map, or `false_alarm_rate`, or none of the
    two: then it has its part of the rate of all; with `min_area_px`, smaller regions are dropped."""

    name: str
    include: tuple[Polygon, ...]
    threshold: float | None = None
    false_alarm_rate: float | None = None
    min_area_px: int | None = None


@dataclass(frozen=True)
class DrawnRoi:
    """Polygons, as roi.json has them. `image_size` is (height, width) of what they were drawn on, none if not known."""

    include: tuple[Polygon, ...] = ()
    ignore: tuple[Polygon, ...] = ()
    zones: tuple[Zone, ...] = ()
    image_size: tuple[int, int] | None = None

    @classmethod
    def from_json(cls, stored: Mapping) -> Self:
        """Raises ValueError or TypeError, with a reason that can be read, for anything else."""
        _check_keys(stored, KEYS, "roi.json")
        if (number := stored.get("format", FORMAT)) != FORMAT or isinstance(number, bool):
            raise ValueError(f"its format is {number!r:.20}, and this heldout reads {FORMAT}")
        zones = stored.get("zones", ())
        if not isinstance(zones, list | tuple) or len(zones) > MAX_ZONES:
            raise ValueError(f"its zones are no list of at most {MAX_ZONES}")
        if zones and stored.get("include"):
            raise ValueError("it has include and zones: what zones include is all that counts, so leave include out")
        drawn = cls(
            _polygons(stored.get("include", ()), "include"),
            _polygons(stored.get("ignore", ()), "ignore"),
            tuple(_zone(zone, number) for number, zone in enumerate(zones, 1)),
            _image_size(stored["image_size"]) if "image_size" in stored else None,
        )
        names = [zone.name for zone in drawn.zones]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two zones are called {repeated[0]!r}: give each its own name")
        return drawn

    def as_json(self) -> dict:
        """What `from_json` reads."""
        size = {} if self.image_size is None else {"image_size": list(self.image_size[::-1])}
        zones = [{name: value for name, value in vars(zone).items() if value is not None} for zone in self.zones]
        areas = {"zones": zones} if zones else {"include": self.include} if self.include else {}
        return {"format": FORMAT, **size, **areas, **({"ignore": self.ignore} if self.ignore else {})}

    def drawn_on(self, image_size: tuple[int, int]) -> Self:
        """The same with its image size, `image_size` (height, width) where it says none. Raises ValueError if the image
        is of another shape than the one that it was drawn on, or of another size, as far as points tell it."""
        if self.image_size is None:
            if beyond := next((each for each in self.polygons if _leads_beyond(each, *image_size)), None):
                x, y = (max(each) for each in zip(*beyond, strict=True))
                raise ValueError(
                    f"a polygon reaches to {x:g}, {y:g}, and the images have {named(image_size)} px: say by image_size "
                    "what it was drawn on"
                )
            return DrawnRoi(self.include, self.ignore, self.zones, image_size)
        if distorts(self.image_size[1] / self.image_size[0], *image_size):
            raise ValueError(
                f"it was drawn on {named(self.image_size)} px, and the images have {named(image_size)}: draw it on one "
                "of them"
            )
        return self

    @property
    def polygons(self) -> list[Polygon]:
        return [*self.include, *self.ignore, *(polygon for zone in self.zones for polygon in zone.include)]

    def labels(self, size_px: Size) -> np.ndarray:
        """uint8 (h, w) of `size_px`: 0 where nothing counts, n in the n-th zone; 1 wherever it counts without zones.
        A pixel counts if half of it is covered, and belongs to the zone that covers most of it."""
        scale = min(1, MAX_DRAWN_PX / max(self.image_size))
        height, width = (max(1, round(side * scale)) for side in self.image_size)
        drawn = Image.new("L", (width, height), 0 if self.include or self.zones else 1)
        zones = [zone.include for zone in self.zones] or [self.include]
        for value, polygons in (*enumerate(zones, 1), (0, self.ignore)):
            for polygon in polygons:
                ImageDraw.Draw(drawn).polygon([(x * scale, y * scale) for x, y in polygon], fill=value)
        pixels = np.asarray(drawn)
        inside = _covered(pixels > 0, size_px) >= 0.5
        if len(zones) == 1:
            return inside.astype(np.uint8)
        covers = np.stack([_covered(pixels == number, size_px) for number in range(1, len(zones) + 1)])
        return np.where(inside, covers.argmax(0) + 1, 0).astype(np.uint8)


class Roi(NamedTuple):
    """Where to look: `mask` bool (h, w) of what a method sees, and what it was drawn as, none of a mask."""

    mask: np.ndarray
    drawn: DrawnRoi | None


def read_roi(path: Path, image_size: tuple[int, int], size_px: Size, minimum_area_px: int = 0) -> Roi:
    """The region in a file, drawn on images of `image_size` (height, width), as a method sees it at `size_px`. Raises
    UserError where it cannot be read, fits no such image, or leaves nothing to look at, as `roi_of` does."""
    if path.suffix.lower() == ".json":
        return roi_of(_read_drawn(path, image_size), path, image_size, size_px, minimum_area_px)
    roi = Roi(_covered(_mask(path, image_size), size_px) >= 0.5, None)
    _check_is_left(roi.mask, path, image_size)
    return roi


def roi_of(drawn: DrawnRoi, name: object, image_size: tuple[int, int], size_px: Size, minimum_area_px: int = 0) -> Roi:
    """A drawn region, which messages call `name`, as a method sees it. Raises UserError where it or one of its zones
    leaves nothing to look at or is smaller than its minimum area: `minimum_area_px`, where it has none of its own."""
    labels = drawn.labels(size_px)
    _check_is_left(labels > 0, name, image_size)
    for number, zone in enumerate(drawn.zones, 1):
        area_px = round(float((labels == number).mean()) * math.prod(image_size))
        if not area_px:
            raise UserError(
                f"nothing is left of zone {zone.name!r} of {name}: it lies outside of the images of "
                f"{named(image_size)} px, is ignored, or is covered by later zones."
            )
        least, named_by = zone.min_area_px, "its min_area_px"
        if least is None:
            least, named_by = minimum_area_px, "the --minimum-area"
        if area_px < least:
            raise UserError(
                f"zone {zone.name!r} of {name} has {area_px} px, so no defect in it could have {named_by} of {least}: "
                "give less, to all or to this zone as min_area_px."
            )
    return Roi(labels > 0, drawn)


def _read_drawn(path: Path, image_size: tuple[int, int]) -> DrawnRoi:
    try:
        drawn = DrawnRoi.from_json(read_json(path))
        if not drawn.polygons:
            raise ValueError("there is no polygon in it")
        return drawn.drawn_on(image_size)
    except (OSError, ValueError, TypeError, ArithmeticError) as error:
        raise UserError(f"the region of interest {path} cannot be used ({error}): {EXPECTED}.") from None


def _leads_beyond(polygon: Polygon, height: int, width: int) -> bool:
    """Whether it begins on an image of that size and leads far out of it: then it was drawn on a larger one."""
    begins = any(0 <= x <= width and 0 <= y <= height for x, y in polygon)
    return begins and any(x > (1 + ACROSS) * width or y > (1 + ACROSS) * height for x, y in polygon)


def _check_is_left(mask: np.ndarray, name: object, image_size: tuple[int, int]) -> None:
    if not mask.any():
        raise UserError(
            f"{name} leaves nothing of the {named(image_size)} px images to look at: draw it on the product."
        )


def _mask(path: Path, image_size: tuple[int, int]) -> np.ndarray:
    try:
        mask = read_mask(path)
    except Unreadable as unreadable:
        raise UserError(f"the region of interest {path} cannot be used: {unreadable}.") from None
    if distorts(mask.shape[1] / mask.shape[0], *image_size):
        raise UserError(
            f"the region of interest {path} has {named(mask.shape)} px, and the images {named(image_size)}: draw it "
            "on one of them."
        )
    return mask


def _covered(mask: np.ndarray, size_px: Size) -> np.ndarray:
    """How much of each pixel of `size_px` a mask of another size covers: float32 (h, w)."""
    height, width = sides(size_px)
    return np.asarray(Image.fromarray(mask.astype(np.float32)).resize((width, height), Image.Resampling.BOX))


def _check_keys(stored: object, allowed: Sequence[str], what: str) -> None:
    if not isinstance(stored, Mapping):
        raise TypeError(f"{what} is {stored!r:.30}, and no object")
    if unknown := sorted(set(stored) - set(allowed)):
        remedy = nearest(str(unknown[0])[:40], allowed).rstrip(".")
        raise ValueError(f"{what} has no {unknown[0]!r:.40}; {remedy}")


def _zone(stored: object, number: int) -> Zone:
    what = f"zone {number}"
    _check_keys(stored, ZONE_KEYS, what)
    name = stored.get("name")
    if not isinstance(name, str) or not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise ValueError(f"{what} has no name: give one of 1 to {MAX_NAME} printable characters")
    what, name = f"zone {name.strip()!r}", name.strip()
    include = _polygons(stored.get("include", ()), what)
    if not include:
        raise ValueError(f"{what} includes no polygon")
    threshold, rate, area = (stored.get(key) for key in ZONE_KEYS[2:])
    if threshold is not None and rate is not None:
        raise ValueError(f"{what} has a threshold and a false_alarm_rate, which finds one: give one of the two")
    if threshold is not None and not _number(threshold, f"the threshold of {what}") > 0:
        raise ValueError(f"the threshold of {what} is {threshold:g}: give a number above 0")
    if rate is not None and not 0 < _number(rate, f"the false_alarm_rate of {what}") < 1:
        raise ValueError(f"the false_alarm_rate of {what} is {rate:g}: give a share above 0 and below 1, such as 0.02")
    if area is not None and (type(area) is not int or not 0 <= area <= MAX_PX**2):
        raise ValueError(f"the min_area_px of {what} is {area!r:.20}: give a whole number of pixels")
    return Zone(
        name, include, None if threshold is None else float(threshold), None if rate is None else float(rate), area
    )


def _polygons(stored: object, what: str) -> tuple[Polygon, ...]:
    if not isinstance(stored, list | tuple) or len(stored) > MAX_POLYGONS:
        raise ValueError(f"{what} is no list of at most {MAX_POLYGONS} polygons")
    return tuple(_points(polygon, f"polygon {number} of {what}") for number, polygon in enumerate(stored, 1))


def _points(stored: object, what: str) -> Polygon:
    if not isinstance(stored, list | tuple) or not FEWEST_POINTS <= len(stored) <= MAX_POINTS:
        raise ValueError(f"{what} is no list of {FEWEST_POINTS} points [x, y] and more")
    points = []
    for point in stored:
        if not isinstance(point, list | tuple) or len(point) != 2:
            raise ValueError(f"{what} has a point that is not [x, y]")
        points.append((_number(point[0], what), _number(point[1], what)))
    return tuple(points)


def _number(value: object, what: str) -> float:
    if type(value) not in (int, float) or not abs(value) <= MAX_PX:
        raise ValueError(f"{what} has {value!r:.20}, which is no number of at most {MAX_PX}")
    return float(value)


def _image_size(stored: object) -> tuple[int, int]:
    is_size = isinstance(stored, list | tuple) and len(stored) == 2
    if not is_size or not all(type(side) is int and 0 < side <= MAX_PX for side in stored):
        raise ValueError(f"its image_size is {stored!r:.40}, and not [width, height] in pixels")
    return stored[1], stored[0]
