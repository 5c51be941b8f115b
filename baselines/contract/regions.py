"""From a map to the regions that are above its threshold: where a defect is, how large, and how clear.

A region is a set of pixels above the threshold that touch by a side or a corner. Maps have the size of the square that
the model sees; areas, boxes and peaks are given in pixels of the original image, which was stretched to it.

With a minimum area an image is defective if a region of at least that area is above the threshold. The threshold up to
which an image is so is its score for that area (`area_score`): decisions by area are decisions by score.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import find_objects, label

from baselines.contract.threshold import finite, is_anomalous
from pretrain.command import UserError

# By a side or a corner.
TOUCHING = np.ones((3, 3), dtype=bool)
# Of a map, where each is sorted or counted.
PIXELS_AT_ONCE = 2**22


class Region(NamedTuple):
    """Pixels are the original image's. `box` is (left, top, right, bottom), right and bottom not included; `peak` the
    highest map value, `center` the pixel (x, y) where it is; `zone` the name of the zone that it lies in, where a
    model has zones."""

    area_px: int
    box: tuple[int, int, int, int]
    peak: float
    center: tuple[int, int]
    zone: str | None = None

    def as_json(self) -> dict:
        """By its names; without a zone where there are none."""
        return {name: value for name, value in self._asdict().items() if name != "zone" or value is not None}


def regions(
    anomaly_map: ArrayLike,
    threshold: float,
    minimum_area_px: float = 0,
    original_size: tuple[int, int] | None = None,
) -> list[Region]:
    """The regions of a map (h, w) of at least `minimum_area_px` pixels of the original image, highest peak first.

    `original_size` is the image's (height, width), the map's own by default. Raises UserError for values not finite.
    """
    values = np.asarray(anomaly_map)
    labels, areas_px = _labeled(values, threshold, minimum_area_px, original_size)
    if not len(areas_px):
        return []
    (h, w), (height, width) = values.shape, original_size or values.shape
    found = []
    for area_px, (row, column), (y, x) in zip(
        areas_px, _peaks(values, labels, len(areas_px)), find_objects(labels), strict=True
    ):
        # Whole numbers throughout: left and top rounded down, right and bottom up.
        box = (x.start * width // w, y.start * height // h, -(-x.stop * width // w), -(-y.stop * height // h))
        center = ((2 * column + 1) * width // (2 * w), (2 * row + 1) * height // (2 * h))
        found.append(Region(int(area_px), box, float(values[row, column]), center))
    return sorted(found, key=lambda region: -region.peak)


def region_mask(
    anomaly_map: ArrayLike,
    threshold: float,
    minimum_area_px: float = 0,
    original_size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Bool (h, w), the map's size: the pixels of the regions that `regions` gives."""
    return _labeled(np.asarray(anomaly_map), threshold, minimum_area_px, original_size)[0] > 0


def region_areas(anomaly_map: ArrayLike, threshold: float, original_size: tuple[int, int] | None = None) -> np.ndarray:
    """The areas of all regions of a map (h, w), int (regions,), in pixels of the original image."""
    return _labeled(np.asarray(anomaly_map), threshold, 0, original_size)[1]


def area_score(anomaly_map: ArrayLike, minimum_area_px: float, original_size: tuple[int, int] | None = None) -> float:
    """The lowest threshold at which a map (h, w) has no region of at least `minimum_area_px`.

    So `area_score(...) > threshold` if and only if `regions(...)` at that threshold and area finds one. For an area of
    one pixel it is the highest value of the map. Raises UserError like `area_scores`.
    """
    return float(area_scores(anomaly_map, (minimum_area_px,), original_size)[0])


def area_scores(
    anomaly_map: ArrayLike, minimum_areas_px: Sequence[float], original_size: tuple[int, int] | None = None
) -> np.ndarray:
    """`area_score` for several minimum areas: float32 (areas,), never rising with the area.

    Exact: regions only grow and join as a threshold falls, so the largest one is sought by halving the map's own sorted
    values. For 224 x 224 pixels that takes 16 labelings, which several areas share. Raises UserError for an area that
    is larger than the image, of which no region can be, and for values that are not finite.
    """
    values = finite(anomaly_map).astype(np.float32, copy=False)  # as thresholds are compared
    if values.ndim != 2 or not values.size:
        raise ValueError(f"a map must be (h, w) with some pixels, not {values.shape}.")
    height, width = original_size or values.shape
    if max(minimum_areas_px, default=0) > height * width:
        raise UserError(
            f"a minimum area of {max(minimum_areas_px):g} px is more than an image of {width}x{height} has, so no "
            f"defect could be that large: give less than {height * width}."
        )
    ratio = _original_pixels(values, original_size)
    levels = np.unique(values)[::-1]  # from the highest down

    @cache  # the searches of several areas begin with the same ranks
    def largest(rank: int) -> int:
        labels, _ = label(values >= levels[rank], TOUCHING)
        return int(np.bincount(labels.ravel())[1:].max())

    fewest = [_fewest_pixels(area_px, ratio) for area_px in minimum_areas_px]
    return levels[[bisect_left(range(len(levels) - 1), count, key=largest) for count in fewest]]


def _labeled(
    values: np.ndarray, threshold: float, minimum_area_px: float, original_size: tuple[int, int] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels int (h, w), 0 or the number of a region that is large enough, from 1, and their areas (regions,)."""
    if values.ndim != 2:
        raise ValueError(f"a map must be (h, w), not {values.shape}.")
    labels, count = label(is_anomalous(values, threshold), TOUCHING)
    # Of all at once bincount makes numbers of 8 bytes, of a hundred megapixels 800 MB.
    parts = (np.bincount(labels[rows].ravel(), minlength=count + 1) for rows in _some_rows(values))
    counts = sum(parts, np.zeros(count + 1, int))
    areas_px = _areas_px(counts, _original_pixels(values, original_size)).astype(int)
    is_large = areas_px >= minimum_area_px
    is_large[0] = False  # what is in no region
    if not is_large[1:].all():
        renumbered = np.where(is_large, np.cumsum(is_large), 0).astype(labels.dtype)
        for rows in _some_rows(values):
            labels[rows] = renumbered[labels[rows]]
    return labels, areas_px[is_large]


def _peaks(values: np.ndarray, labels: np.ndarray, count: int) -> list[tuple[int, int]]:
    """(row, column) of the highest value of each of `count` regions; of equals the one that is read first."""
    highest, peaks = np.full(count, -np.inf), [(0, 0)] * count
    for some in _some_rows(values):
        rows, columns = np.nonzero(labels[some])
        numbers, heights = labels[some][rows, columns] - 1, values[some][rows, columns]
        order = np.lexsort((-heights, numbers))  # by region, highest first: the first of each is its peak
        there, first = np.unique(numbers[order], return_index=True)
        for number, at in zip(there.tolist(), order[first].tolist(), strict=True):
            if heights[at] > highest[number]:
                highest[number], peaks[number] = heights[at], (some.start + int(rows[at]), int(columns[at]))
    return peaks


def _some_rows(values: np.ndarray) -> list[slice]:
    """All rows of a map, so many at a time that copies of them take little."""
    step = max(1, PIXELS_AT_ONCE // max(1, values.shape[1]))
    return [slice(start, start + step) for start in range(0, len(values), step)]


def _original_pixels(values: np.ndarray, original_size: tuple[int, int] | None) -> float:
    """How many pixels of the original image are in each pixel of the map."""
    return math.prod(original_size or values.shape) / max(1, values.size)


def _areas_px(counts: ArrayLike, ratio: float) -> np.ndarray:
    """Counts of the map's pixels as areas in whole pixels of the original image; a region has one at least."""
    return np.rint(np.asarray(counts) * ratio).clip(min=1)


def _fewest_pixels(area_px: float, ratio: float) -> int:
    """The lowest count of the map's pixels that makes such an area."""
    count = max(1, math.floor((area_px - 1) / ratio))
    while _areas_px(count, ratio) < area_px:
        count += 1
    return count
