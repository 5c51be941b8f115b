"""How methods are evaluated: figures of images, and of restored images. Those of maps stand in pixel_metrics.py.

Positive means ANOMALY, and what scores above the threshold is called anomalous (`threshold.is_anomalous`). A figure
that is not defined, for want of good or of defective ones, is None and is shown as 'n/a': never 0, which would be a
verdict, and never NaN, which would spoil a mean.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from baselines.contract.threshold import finite, is_anomalous

if TYPE_CHECKING:
    from torch import Tensor

SSIM_WINDOW_PX = 11


class ImageFigures(NamedTuple):
    """Of labeled images at a frozen threshold. All but the counts are None where they are not defined.

    `oracle_balanced_accuracy` and `oracle_f1`, which papers call F1-max, are the best that any threshold reaches on
    these very images: nobody can choose it without their labels, so they are shown only as 'oracle'. `precision` is
    None too where nothing is called defective.
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
    oracle_f1: float | None
    false_alarm_rate: float | None


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
    auroc = average_precision = oracle = oracle_f1 = None
    if has_both:
        # 0.7 s that an inspection of unlabeled images does without.
        from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

        auroc = float(roc_auc_score(is_defective, ranked))
        average_precision = float(average_precision_score(is_defective, ranked))
        false_rates, true_rates, _ = roc_curve(is_defective, ranked)
        oracle = float((true_rates + 1 - false_rates).max() / 2)
        all_found, all_called = defective * true_rates, defective * true_rates + good * false_rates
        oracle_f1 = float((2 * all_found / (all_called + defective)).max())
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
        oracle_f1=oracle_f1,
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


def _mean_over(maps: "Tensor", masks: "Tensor | None") -> "Tensor":
    """(b, h, w) -> (b,): the mean over an image, or over the pixels of its mask."""
    if masks is None:
        return maps.mean(dim=(1, 2))
    return (maps * masks).sum(dim=(1, 2)) / masks.sum(dim=(1, 2))
