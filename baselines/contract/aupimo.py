"""AUPIMO: how much of the defect of each single image is found where hardly a pixel of a normal image is wrong.

Of each defective image, the share of its mask that is found, averaged over the logarithm of the false-positive rate of
pixels of NORMAL images between 1 in 100 000 and 1 in 10 000 (Bertoldo et al. 2024, https://arxiv.org/abs/2401.01984).
An image of one figure each: a mean hides which images are missed, and large defects count no more than small ones.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from baselines.contract.threshold import finite

BOUNDS = (1e-5, 1e-4)


def aupimo(
    good_maps: Sequence[ArrayLike],
    defective_maps: Iterable[ArrayLike],
    masks: Iterable[ArrayLike],
    bounds: tuple[float, float] = BOUNDS,
) -> np.ndarray | None:
    """Float64 (defective images,), NaN where a mask is empty. Maps and masks are (h, w), of any size.

    At a rate the threshold is the lowest at which no larger share of normal pixels is above it. So a map that is the
    same everywhere has 0, and a random one 4e-5. None where normal pixels are so few that a single one is more than the
    upper bound: 10 000 of them, of which one image of 100 x 100 px has enough. Raises UserError for values not finite.
    """
    lower, upper = bounds
    if sum(np.size(anomaly_map) for anomaly_map in good_maps) * upper < 1 - 1e-9:
        return None
    thresholds, rates = _tail(good_maps, upper)
    # Threshold k is the lowest for rates from rates[k] to rates[k + 1].
    steps = np.diff(np.log(np.clip(np.append(rates, 1), lower, upper))) / math.log(upper / lower)
    overlaps = []
    for anomaly_map, mask in zip(defective_maps, masks, strict=True):
        inside = np.sort(finite(anomaly_map).astype(np.float32, copy=False)[np.asarray(mask, dtype=bool)])
        above = len(inside) - np.searchsorted(inside, thresholds, side="right")
        overlaps.append(float((above * steps).sum() / len(inside)) if len(inside) else math.nan)
    return np.array(overlaps)


def _tail(good_maps: Sequence[ArrayLike], upper: float) -> tuple[np.ndarray, np.ndarray]:
    """The highest values of normal images, from the highest down, and what share of normal pixels is above each: the
    mean over images, as they may differ in size. No more than the values at which that share is up to `upper`."""
    values, weights = [], []
    for anomaly_map in good_maps:
        pixels = finite(anomaly_map).astype(np.float32, copy=False).ravel()
        # An image alone may hold all that is above: of so many pixels, and with all that equal the last, none is lost.
        kept = min(len(pixels), int(upper * len(good_maps) * len(pixels)) + 1)
        limit = np.partition(pixels, len(pixels) - kept)[len(pixels) - kept]
        levels, counts = np.unique(pixels[pixels >= limit], return_counts=True)
        values.append(levels)
        weights.append(counts / len(pixels) / len(good_maps))
    levels, level = np.unique(-np.concatenate(values), return_inverse=True)
    reached = np.bincount(level, np.concatenate(weights)).cumsum()
    above = np.append(0, reached[:-1])
    return -levels[above <= upper], above[above <= upper]
