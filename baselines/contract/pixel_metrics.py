"""How maps are evaluated where masks are known: AUROC, AP, AUPRO, and at a threshold IoU and SegF1.

All pixels of all images count alike. Images are added one by one and may differ in size; memory does not grow with
their number: what is kept is how many pixels have which value. A value is float32, and the pixels of up to MAX_LEVELS
different values are counted exactly. Where there are more, the values' last bits are dropped until so few are left, and
values that are equal then count as equal. Which bits is a matter of all values together, so neither the order of images
nor how they are divided among processes changes a figure.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import label

from baselines.contract.regions import TOUCHING
from baselines.contract.threshold import finite, is_anomalous

# Above 30 % false positives a map is of no use (Bergmann et al. 2021, https://doi.org/10.1007/s11263-020-01400-4);
# where defects are small 30 % of an image hold many of them, so newer data sets go to 5 % (MVTec AD 2, LOCO).
AUPRO_LIMIT, STRICT_AUPRO_LIMIT = 0.3, 0.05
# 4 bytes and three sums each: 15 MB. Of maps that range over four powers of two the last 6 of 23 bits go, and figures
# move by less than 1e-6, which a test measures.
MAX_LEVELS = 2**19
COUNTED_AT_ONCE_PX = 2**22
GOOD, DEFECTIVE, OVERLAP = range(3)


class PixelFigures(NamedTuple):
    """Of maps with masks. None where there is no defective or no good pixel, or no threshold.

    `aupro` is the mean overlap of defective regions at false-positive rates up to 30 %, `aupro_5` up to 5 %. `iou`, and
    `f1`, which MVTec AD 2 calls SegF1, are at a frozen threshold; `oracle_f1`, F1-max, at the best one for these very
    pixels, which nobody can choose without their masks. `defective_share` p, of all pixels, is the trivial answer's
    average precision and IoU; its F1 is 2p / (1 + p), its AUROC 0.5, its AUPRO half of the limit.
    """

    auroc: float | None
    average_precision: float | None
    aupro: float | None
    aupro_5: float | None
    iou: float | None
    f1: float | None
    oracle_f1: float | None
    defective_share: float | None


class PixelCounts:
    """How many good and defective pixels have which value, of any number of maps."""

    def __init__(self, threshold: float | None = None) -> None:
        self.threshold = threshold
        # Values as whole numbers in the same order, from low to high, without their last `_dropped_bits`; and of the
        # pixels that have each: (good ones, defective ones, sum of their shares of regions).
        self._levels, self._sums = np.zeros(0, np.uint32), np.zeros((3, 0))
        self._dropped_bits = 0
        self._waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._waiting_px = 0
        self._regions = self._called_px = self._overlap_px = 0

    def add(self, anomaly_map: ArrayLike, mask: ArrayLike, shares: ArrayLike | None = None, regions: int = 0) -> None:
        """Count a map (h, w) with its mask, bool (h, w), empty for a good image.

        `shares` (defective pixels,) say what each adds to the overlap of its regions, of which there are `regions`; by
        default regions are pixels that touch, and each pixel adds 1 / (pixels of its region). Raises UserError where
        the map is not finite, ValueError for shapes that do not fit.
        """
        values, is_defect = finite(anomaly_map).astype(np.float32, copy=False), np.asarray(mask, dtype=bool)
        if values.shape != is_defect.shape or values.ndim != 2:
            raise ValueError(f"a map and its mask must be (h, w) alike, not {values.shape} and {is_defect.shape}.")
        if shares is None:
            shares, regions = region_shares(is_defect)
        self._regions += regions
        if self.threshold is not None:
            called = is_anomalous(values, self.threshold)
            self._called_px += int(called.sum())
            self._overlap_px += int((called & is_defect).sum())
        done = 0
        for start in range(0, values.size, COUNTED_AT_ONCE_PX):  # a single map may have a hundred megapixels
            piece = slice(start, start + COUNTED_AT_ONCE_PX)
            levels, is_bad = _ordered(values.ravel()[piece]), is_defect.ravel()[piece]
            defective = levels[is_bad]
            self._waiting.append((levels[~is_bad], defective, np.asarray(shares)[done : done + len(defective)]))
            done += len(defective)
            self._waiting_px += len(levels)
            if self._waiting_px >= COUNTED_AT_ONCE_PX:
                self._count()

    def figures(self) -> PixelFigures:
        """The figures of all that was added."""
        self._count()
        # From the highest value down, after each: good, defective pixels and overlap so far.
        good, defective, _ = self._sums[:, ::-1].cumsum(axis=1)
        total, defects = (good[-1] + defective[-1], defective[-1]) if len(good) else (0, 0)
        share = float(defects / total) if total else None
        if defects in (0, total):
            return PixelFigures(*[None] * 7, share)
        found, precision = defective / defects, defective / (defective + good)
        either = self._called_px + defects - self._overlap_px
        is_decided = self.threshold is not None
        return PixelFigures(
            auroc=float(np.trapezoid(np.append(0, found), np.append(0, good / good[-1]))),
            average_precision=float((np.diff(found, prepend=0) * precision).sum()),
            aupro=self.overlap_to(AUPRO_LIMIT),
            aupro_5=self.overlap_to(STRICT_AUPRO_LIMIT),
            iou=float(self._overlap_px / either) if is_decided else None,
            f1=float(2 * self._overlap_px / (self._called_px + defects)) if is_decided else None,
            oracle_f1=float((2 * defective / (defective + good + defects)).max()),
            defective_share=share,
        )

    def overlap_to(self, limit: float) -> float | None:
        """The area under the curve of the mean overlap of regions over the false-positive rate, from 0 to `limit`,
        divided by it; None without regions or good pixels."""
        self._count()
        good, _, overlap = self._sums[:, ::-1].cumsum(axis=1)
        if not self._regions or not good[-1]:
            return None
        # A line from point to point: where good and defective pixels are equal both rise together.
        rates, overlaps = np.append(0, good / good[-1]), np.append(0, overlap / self._regions)
        inside = int(np.searchsorted(rates, limit, side="right"))  # of the points, those up to the limit
        at_limit = np.interp(limit, rates[inside - 1 : inside + 1], overlaps[inside - 1 : inside + 1])
        return float(np.trapezoid(np.append(overlaps[:inside], at_limit), np.append(rates[:inside], limit)) / limit)

    def _count(self) -> None:
        """Move what waits into the sums."""
        if not self._waiting:
            return
        good, defective, shares = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting, self._waiting_px = [], 0
        good >>= self._dropped_bits
        good.sort()  # without positions, which takes a tenth of the time
        while len(starts := _starts(good)) > MAX_LEVELS:
            good >>= 1
            self._drop_a_bit()
        sums = np.zeros((3, len(starts) + len(defective)))
        sums[GOOD, : len(starts)] = np.diff(starts, append=len(good))
        sums[DEFECTIVE, len(starts) :], sums[OVERLAP, len(starts) :] = 1, shares
        levels = np.concatenate([self._levels, good[starts], defective >> self._dropped_bits])
        self._levels, self._sums = _summed(levels, np.concatenate([self._sums, sums], axis=1))
        while len(self._levels) > MAX_LEVELS:
            self._drop_a_bit()

    def _drop_a_bit(self) -> None:
        self._dropped_bits += 1
        self._levels, self._sums = _summed(self._levels >> 1, self._sums)


def pixel_figures(maps: Iterable[ArrayLike], masks: Iterable[ArrayLike], threshold: float | None) -> PixelFigures:
    """Figures of `maps` (n, h, w) float, or (h, w) of any size each, with `masks` bool alike, empty for good images.

    A defective image whose mask is not known must be left out. Raises UserError where a map is not finite, ValueError
    for shapes that do not fit.
    """
    counts = PixelCounts(threshold)
    for anomaly_map, mask in zip(maps, masks, strict=True):
        counts.add(anomaly_map, mask)
    return counts.figures()


def trivial_pixels(defective_share: float) -> PixelFigures:
    """The figures of maps that are the same everywhere, and everywhere above the threshold."""
    share, f1 = defective_share, 2 * defective_share / (1 + defective_share)
    return PixelFigures(0.5, share, AUPRO_LIMIT / 2, STRICT_AUPRO_LIMIT / 2, share, f1, f1, share)


def region_shares(is_defect: np.ndarray) -> tuple[np.ndarray, int]:
    """(h, w) -> (defective pixels,): for each, in their order, its share of its region; and the number of regions."""
    if not is_defect.any():
        return np.zeros(0), 0
    labels, count = label(is_defect, TOUCHING)
    numbers = labels[is_defect]
    return 1 / np.bincount(numbers)[numbers], count


def _ordered(values: np.ndarray) -> np.ndarray:
    """float32 -> uint32 in the same order: the bits of IEEE 754, the lower ones of negative numbers turned around."""
    bits = (values + np.float32(0)).view(np.uint32)  # -0 becomes 0
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _starts(ordered: np.ndarray) -> np.ndarray:
    """Where each value of an ordered array begins."""
    return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])


def _summed(levels: np.ndarray, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The levels (k,) in their order, each once, and the sums (3, k) of equal ones."""
    order = np.argsort(levels, kind="stable")  # mostly ordered parts, which a stable sort merges
    levels = levels[order]
    starts = _starts(levels)
    return levels[starts], np.stack([np.add.reduceat(row[order], starts) for row in sums])
