"""How methods are evaluated: figures of images, of pixels, and of restored images.

Positive means ANOMALY, and what scores above the threshold is called anomalous (`threshold.is_anomalous`). A figure
that is not defined, for want of good or of defective ones, is None and is shown as 'n/a': never 0, which would be a
verdict, and never NaN, which would spoil a mean.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import label

from baselines.contract.regions import TOUCHING
from baselines.contract.threshold import finite, is_anomalous

if TYPE_CHECKING:
    from torch import Tensor

# Above 30 % false positives a map is of no use (Bergmann et al. 2021, https://doi.org/10.1007/s11263-020-01400-4).
AUPRO_LIMIT = 0.3
SSIM_WINDOW_PX = 11


class ImageFigures(NamedTuple):
    """Of labeled images at a frozen threshold. All but the counts are None where they are not defined.

    `oracle_balanced_accuracy` is the best that any threshold reaches on these very images: nobody can choose it
    without their labels, so it is shown only as 'oracle'. `precision` is None too where nothing is called defective.
    """

    good: int
    defective: int
    true_good: int
    false_alarms: int
    missed: int
    found: int
    auroc: float | None
    average_precision: float | None
    balanced_accuracy: float | None
    oracle_balanced_accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    false_alarm_rate: float | None


class PixelFigures(NamedTuple):
    """Of maps with masks. None where there is no defective or no good pixel. `defective_share`, of all pixels, is the
    trivial answer's average precision and IoU; its AUROC is 0.5 and its AUPRO 0.15."""

    auroc: float | None
    average_precision: float | None
    aupro: float | None
    iou: float | None
    defective_share: float | None


class Interval(NamedTuple):
    low: float
    high: float


def image_figures(labels: ArrayLike, scores: ArrayLike, threshold: float) -> ImageFigures:
    """Figures of images with `labels` (n,), 1 or True for an anomaly, and `scores` (n,).

    Raises UserError where a score is not finite, ValueError for shapes or labels that do not fit.
    """
    is_defective, ranked = _pair(labels, scores)
    is_called = is_anomalous(scores, threshold)
    defective, found = int(is_defective.sum()), int((is_defective & is_called).sum())
    good, false_alarms = len(ranked) - defective, int((~is_defective & is_called).sum())
    called, has_both = found + false_alarms, bool(good and defective)
    auroc = average_precision = oracle = None
    if has_both:
        # 0.7 s that an inspection of unlabeled images does without.
        from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

        auroc = float(roc_auc_score(is_defective, ranked))
        average_precision = float(average_precision_score(is_defective, ranked))
        false_rates, true_rates, _ = roc_curve(is_defective, ranked)
        oracle = float((true_rates + 1 - false_rates).max() / 2)
    return ImageFigures(
        good=good,
        defective=defective,
        true_good=good - false_alarms,
        false_alarms=false_alarms,
        missed=defective - found,
        found=found,
        auroc=auroc,
        average_precision=average_precision,
        balanced_accuracy=(found / defective + 1 - false_alarms / good) / 2 if has_both else None,
        oracle_balanced_accuracy=oracle,
        precision=found / called if has_both and called else None,
        recall=found / defective if defective else None,
        f1=2 * found / (called + defective) if has_both else None,
        false_alarm_rate=false_alarms / good if good else None,
    )


def always_good(labels: ArrayLike) -> ImageFigures:
    """The figures of calling every image good."""
    return image_figures(labels, np.zeros(len(np.asarray(labels))), threshold=0)


def always_anomalous(labels: ArrayLike) -> ImageFigures:
    """The figures of calling every image anomalous."""
    return image_figures(labels, np.ones(len(np.asarray(labels))), threshold=0)


def bootstrap_interval(
    labels: ArrayLike, scores: ArrayLike, seed: int = 0, resamples: int = 2000, confidence: float = 0.95
) -> Interval | None:
    """Between which values the AUROC of a share `confidence` of resampled test sets lies; None where not defined.

    Good and defective images are resampled apart, so that each set has as many of both. It says how much hangs on
    which images were tested, not what another seed of a method would do. Where good and defective ones are fully
    apart it is (1, 1), which no small test set can prove.
    """
    is_defective, ranked = _pair(labels, scores)
    if is_defective.all() or not is_defective.any():
        return None
    _, group = np.unique(ranked, return_inverse=True)  # equal scores together, from low to high
    generator = np.random.default_rng(seed)

    def drawn(members: np.ndarray) -> np.ndarray:
        """How often a group is drawn, (resamples, groups): n draws with replacement are multinomial."""
        counts = np.bincount(members, minlength=group.max() + 1)
        return generator.multinomial(len(members), counts / len(members), resamples)

    good, defective = drawn(group[~is_defective]), drawn(group[is_defective])
    # AUROC is the share of pairs in which the defective one is higher, ties counting half (Mann and Whitney).
    lower = good.cumsum(axis=1) - good / 2
    aurocs = (defective * lower).sum(axis=1) / (is_defective.sum() * (~is_defective).sum())
    low, high = np.quantile(aurocs, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def pixel_figures(maps: ArrayLike, masks: ArrayLike, threshold: float) -> PixelFigures:
    """Figures of `maps` (n, h, w) float, with `masks` (n, h, w) bool, empty for good images.

    All pixels of all images count alike; a defective image whose mask is not known must be left out. Raises UserError
    where a map is not finite, ValueError for shapes that do not fit.
    """
    values, is_defect = finite(maps), np.asarray(masks, dtype=bool)
    if values.shape != is_defect.shape or values.ndim != 3:
        raise ValueError(f"maps and masks must be (n, h, w) alike, not {values.shape} and {is_defect.shape}.")
    defects = int(is_defect.sum())
    share = defects / is_defect.size if is_defect.size else None
    if defects in (0, is_defect.size):
        return PixelFigures(None, None, None, None, share)
    # All curves bend only at the scores of defective pixels, which are few: the good ones are sorted, without their
    # positions, and looked up. 13 million pixels take 0.3 s on one core; scikit-learn's AUROC and AP alone take 13 s.
    good = values[~is_defect]
    good.sort()
    defective, region_weights = values[is_defect], _region_weights(is_defect)
    # Thresholds from the highest down, at each score that defective pixels have.
    steps, step = np.unique(-defective, return_inverse=True)
    found = np.bincount(step)  # defective pixels at each
    overlap = np.bincount(step, region_weights).cumsum()  # mean share of the regions at or above each
    above = len(good) - np.searchsorted(good, -steps, side="right")  # good pixels
    reached = len(good) - np.searchsorted(good, -steps, side="left")  # and with those that equal it
    higher = (found * ((above + reached) / 2)).sum() / defects / len(good)
    found_so_far = found.cumsum()
    called = is_anomalous(values, threshold)
    return PixelFigures(
        auroc=float(1 - higher),
        average_precision=float((found / defects * found_so_far / (found_so_far + reached)).sum()),
        aupro=_area_to_limit(above / len(good), reached / len(good), overlap),
        iou=float((called & is_defect).sum() / (called | is_defect).sum()),
        defective_share=share,
    )


def psnr(restored: "Tensor", clean: "Tensor", masks: "Tensor | None" = None) -> "Tensor":
    """Peak signal-to-noise ratio in dB of images (b, 3, h, w) in [0, 1], each by itself: float64 (b,).

    Over the pixels of `masks` (b, h, w) bool where given. inf where nothing differs; NaN where a mask is empty.
    """
    errors = (restored.double() - clean.double()).square().mean(dim=1)  # (b, h, w)
    return -10 * _mean_over(errors, masks).log10()


def ssim(restored: "Tensor", clean: "Tensor", masks: "Tensor | None" = None) -> "Tensor":
    """Structural similarity of images (b, 3, h, w) in [0, 1], each by itself, at most 1: float64 (b,).

    Gaussian window of 11 pixels (Wang et al. 2004), mirrored at the border, so that every pixel has a value: those of
    `masks` (b, h, w) bool are averaged where given, NaN where a mask is empty.
    """
    from kornia.metrics import ssim as ssim_maps  # imports torch, 1.5 s that figures of decisions do without

    maps = ssim_maps(restored.float(), clean.float(), SSIM_WINDOW_PX, eps=0.0)  # (b, 3, h, w)
    return _mean_over(maps.mean(dim=1).double(), masks)


def number(value: float | None, digits: int = 3) -> str:
    """A figure as tables show it: .873, 1.000, n/a."""
    if value is None:
        return "n/a"
    text = f"{value:.{digits}f}"
    return text.removeprefix("0") if 0 <= value < 1 and not text.startswith("1") else text


def _pair(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Labels as bool (n,) and scores (n,), both checked."""
    classes, ranked = np.asarray(labels), finite(scores)
    if classes.shape != ranked.shape or classes.ndim != 1:
        raise ValueError(f"labels and scores must be (n,) alike, not {classes.shape} and {ranked.shape}.")
    if not np.isin(classes, (0, 1)).all():
        raise ValueError("labels must be 0 for good and 1 for an anomaly.")
    return classes.astype(bool), ranked


def _region_weights(is_defect: np.ndarray) -> np.ndarray:
    """(n, h, w) -> (p,): for each defective pixel, in their order, what it adds to the mean overlap of regions."""
    within_an_image = np.zeros((3, 3, 3), dtype=bool)
    within_an_image[1] = TOUCHING
    has_defect = is_defect.any(axis=(1, 2))
    labels, count = label(is_defect[has_defect], within_an_image)
    numbers = labels[is_defect[has_defect]]
    return 1 / np.bincount(numbers)[numbers] / count


def _area_to_limit(above: np.ndarray, reached: np.ndarray, overlap: np.ndarray) -> float:
    """The area under the curve of overlap over false-positive rate, from 0 to AUPRO_LIMIT, divided by that limit.

    At each step down the rate goes from `above` to `reached`, through good pixels that equal it, and the overlap up to
    `overlap`: (steps,) each. From `reached` to the next `above` the overlap stays as it is.
    """
    rates = np.concatenate([[0], np.stack([above, reached], axis=1).ravel(), [1]])
    overlaps = np.concatenate([[0, 0], np.repeat(overlap, 2)[:-1], [1]])
    inside = int(np.searchsorted(rates, AUPRO_LIMIT, side="right"))  # of the points, those up to the limit
    at_limit = np.interp(AUPRO_LIMIT, rates[inside - 1 : inside + 1], overlaps[inside - 1 : inside + 1])
    rates, overlaps = np.append(rates[:inside], AUPRO_LIMIT), np.append(overlaps[:inside], at_limit)
    return float(np.trapezoid(overlaps, rates) / AUPRO_LIMIT)


def _mean_over(maps: "Tensor", masks: "Tensor | None") -> "Tensor":
    """(b, h, w) -> (b,): the mean over an image, or over the pixels of its mask."""
    if masks is None:
        return maps.mean(dim=(1, 2))
    return (maps * masks).sum(dim=(1, 2)) / masks.sum(dim=(1, 2))
