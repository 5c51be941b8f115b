"""From a map to the regions that are above its threshold: where a defect is, how large, and how clear.

A region is a set of pixels above the threshold that touch by a side or a corner. Maps have the size of the square that
the model sees; areas, boxes and places are given in pixels of the original picture, which was stretched to it.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from baselines.threshold import is_anomalous

TOUCHING = np.ones((3, 3), dtype=bool)


class Region(NamedTuple):
    """Pixels are the original picture's. `box` is (left, top, right, bottom), right and bottom not included; `peak` the
    highest map value, `centre` the pixel (x, y) where it is."""

    area_px: int
    box: tuple[int, int, int, int]
    peak: float
    centre: tuple[int, int]


def regions(
    anomaly_map: ArrayLike,
    threshold: float,
    minimum_area_px: float = 0,
    original_size: tuple[int, int] | None = None,
) -> list[Region]:
    """The regions of a map (h, w) of at least `minimum_area_px` pixels of the original picture, highest peak first.

    `original_size` is the picture's (height, width), the map's own by default. Raises Mistake for values not finite.
    """
    from scipy.ndimage import find_objects

    values = np.asarray(anomaly_map)
    labels, areas_px = _labelled(values, threshold, minimum_area_px, original_size)
    if not len(areas_px):
        return []
    (h, w), (height, width) = values.shape, original_size or values.shape
    rows, columns = np.nonzero(labels)
    numbers, heights = labels[rows, columns], values[rows, columns]
    # Pixels by region, highest first, of equals the one that is read first: the first of each region is its peak.
    order = np.lexsort((-heights, numbers))
    peaks = order[np.searchsorted(numbers[order], np.arange(1, len(areas_px) + 1))]
    found = []
    for area_px, peak, (y, x) in zip(areas_px, peaks, find_objects(labels), strict=True):
        # Whole numbers throughout: left and top rounded down, right and bottom up.
        box = (x.start * width // w, y.start * height // h, -(-x.stop * width // w), -(-y.stop * height // h))
        centre = ((2 * columns[peak] + 1) * width // (2 * w), (2 * rows[peak] + 1) * height // (2 * h))
        found.append(Region(int(area_px), box, float(heights[peak]), (int(centre[0]), int(centre[1]))))
    return sorted(found, key=lambda region: -region.peak)


def region_mask(
    anomaly_map: ArrayLike,
    threshold: float,
    minimum_area_px: float = 0,
    original_size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Bool (h, w), the map's size: the pixels of the regions that `regions` gives."""
    return _labelled(np.asarray(anomaly_map), threshold, minimum_area_px, original_size)[0] > 0


def _labelled(
    values: np.ndarray, threshold: float, minimum_area_px: float, original_size: tuple[int, int] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels int (h, w), 0 or the number of a region that is large enough, from 1, and their areas (regions,)."""
    from scipy.ndimage import label

    if values.ndim != 2:
        raise ValueError(f"a map must be (h, w), not {values.shape}.")
    labels, count = label(is_anomalous(values, threshold), TOUCHING)
    original_pixels = math.prod(original_size or values.shape) / max(1, values.size)  # in each pixel of the map
    areas_px = np.rint(np.bincount(labels.ravel(), minlength=count + 1) * original_pixels).clip(min=1).astype(int)
    is_large = areas_px >= minimum_area_px
    is_large[0] = False  # what is in no region
    renumbered = np.where(is_large, np.cumsum(is_large), 0)
    return renumbered[labels], areas_px[is_large]
