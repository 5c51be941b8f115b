"""Figures beside scikit-learn's, values found by hand, and references that follow the definition word for word."""

import math
import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    jaccard_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from baselines.contract.metrics import (
    PixelFigures,
    always_anomalous,
    always_good,
    bootstrap_interval,
    image_figures,
    number,
    pixel_figures,
    psnr,
    ssim,
)
from baselines.contract.regions import region_mask
from pretrain.command import UserError


def images(good: int, defective: int, seed: int, levels: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and float32 scores of which many are equal."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat([0, 1], [good, defective]))
    return labels, (generator.integers(0, levels, len(labels)) + 3 * labels).astype(np.float32) / 8


@pytest.mark.parametrize("seed", range(4))
def test_image_figures_equal_scikit_learns(seed):
    labels, scores = images(30, 20, seed)
    threshold = float(np.median(scores))
    figures, called = image_figures(labels, scores, threshold), scores > threshold
    assert (scores == threshold).any()
    expected = {
        "auroc": roc_auc_score(labels, scores),
        "average_precision": average_precision_score(labels, scores),
        "balanced_accuracy": balanced_accuracy_score(labels, called),
        "precision": precision_score(labels, called),
        "recall": recall_score(labels, called),
        "f1": f1_score(labels, called),
    }
    assert {name: getattr(figures, name) for name in expected} == pytest.approx(expected, rel=1e-12)
    counts = figures.true_good, figures.false_alarms, figures.missed, figures.found
    assert counts == tuple(confusion_matrix(labels, called).ravel())
    assert (figures.good, figures.defective) == (30, 20)
    assert figures.false_alarm_rate == figures.false_alarms / 30
    each = [balanced_accuracy_score(labels, scores > level) for level in (-1, *scores)]
    assert figures.oracle_balanced_accuracy == pytest.approx(max(each), rel=1e-12)
    assert figures.oracle_balanced_accuracy > figures.balanced_accuracy


def test_images_pixels_and_regions_decide_alike():
    scores, labels = np.array([0.1, 0.7, 0.9], dtype=np.float32), np.array([0, 1, 1])
    for threshold in (float(scores[1]), 0.7):  # the very number, and what is typed for it
        assert image_figures(labels, scores, threshold).found == 1
        assert pixel_figures(scores[:, None, None], labels[:, None, None], threshold).iou == 0.5
        assert region_mask(scores[None], threshold).tolist() == [[False, False, True]]


@pytest.mark.parametrize("labels", [[0] * 5, [1] * 5, []])
def test_one_class_of_images_only(labels):
    scores = np.linspace(0, 1, 5)[: len(labels)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = image_figures(labels, scores, 0.6)
    undefined = ("auroc", "average_precision", "balanced_accuracy", "oracle_balanced_accuracy", "precision", "f1")
    assert [getattr(figures, name) for name in undefined] == [None] * 6
    assert figures.recall == (0.4 if figures.defective else None)
    assert figures.false_alarm_rate == (0.4 if figures.good else None)
    assert (figures.good, figures.defective) == (labels.count(0), labels.count(1))
    assert bootstrap_interval(labels, scores) is None


def test_trivial_answers():
    labels = [0, 0, 1, 0, 1]
    good, anomalous = always_good(labels), always_anomalous(labels)
    for trivial in (good, anomalous):
        assert (trivial.auroc, trivial.average_precision, trivial.balanced_accuracy) == (0.5, 0.4, 0.5)
        assert trivial.oracle_balanced_accuracy == 0.5
    assert (good.true_good, good.false_alarms, good.missed, good.found) == (3, 0, 2, 0)
    assert (good.precision, good.recall, good.f1, good.false_alarm_rate) == (None, 0, 0, 0)
    assert (anomalous.true_good, anomalous.false_alarms, anomalous.missed, anomalous.found) == (0, 3, 0, 2)
    assert (anomalous.precision, anomalous.recall, anomalous.false_alarm_rate) == (0.4, 1, 1)
    # On four defective images to one good one, as in many test sets, calling all of them defective looks good.
    assert always_anomalous([0, 1, 1, 1, 1]).f1 == pytest.approx(8 / 9)


def test_what_is_refused():
    with pytest.raises(UserError, match="1 of 2 scores are NaN or infinite"):
        image_figures([0, 1], [0.5, math.nan], 0.5)
    with pytest.raises(UserError, match="1 of 8 scores are NaN or infinite"):
        pixel_figures([[[0.5, math.inf], [0, 0]]] * 1 + [[[0, 0], [0, 0]]], np.zeros((2, 2, 2)), 0.5)
    with pytest.raises(ValueError, match="alike"):
        image_figures([0, 1, 1], [0.5, 0.2], 0.5)
    with pytest.raises(ValueError, match="0 for good and 1"):
        image_figures([0, 2], [0.5, 0.2], 0.5)
    with pytest.raises(ValueError, match="alike"):
        pixel_figures(np.zeros((2, 4, 4)), np.zeros((2, 4, 5)), 0.5)


def test_bootstrap_interval_is_that_of_resampled_images():
    labels, scores = images(25, 15, 0)
    interval = bootstrap_interval(labels, scores, seed=1, resamples=4000)
    generator = np.random.default_rng(2)
    aurocs = []
    for _ in range(4000):
        good, defective = (generator.choice(scores[labels == label], size=(labels == label).sum()) for label in (0, 1))
        ahead = defective[:, None] - good
        aurocs.append(((ahead > 0) + (ahead == 0) / 2).mean())
    assert interval == pytest.approx(np.quantile(aurocs, [0.025, 0.975]), abs=0.015)
    assert interval == bootstrap_interval(labels, scores, seed=1, resamples=4000)
    assert interval != bootstrap_interval(labels, scores, seed=2, resamples=4000)
    narrower = bootstrap_interval(labels, scores, seed=1, resamples=4000, confidence=0.5)
    assert interval.low < narrower.low < roc_auc_score(labels, scores) < narrower.high < interval.high
    assert bootstrap_interval([0, 0, 1], [0.1, 0.2, 0.3]) == (1, 1)


def test_bootstrap_interval_holds_the_true_auroc():
    # Normal distributions one deviation apart: the AUROC of endless images is Phi(1 / sqrt 2) = 0.7602.
    labels, held = np.repeat([0, 1], 50), 0
    for seed in range(300):
        low, high = bootstrap_interval(labels, np.random.default_rng(seed).normal(labels, 1), seed, resamples=500)
        held += low < 0.76025 < high
    assert 0.90 < held / 300 < 0.98


def maps_with_masks(seed: int, levels: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Five maps of 12 x 15 with many equal values; two images are good, the others have one or more regions."""
    generator = np.random.default_rng(seed)
    masks = np.zeros((5, 12, 15), dtype=bool)
    masks[0, 2:5, 3:9] = masks[0, 8:10, 10:14] = masks[1, :4, :2] = masks[3, 6, 6] = masks[3, 7, 7] = True
    masks[3, 0, 14] = masks[3, 11, 0] = True
    return (generator.integers(0, levels, masks.shape) + 2 * masks).astype(np.float32) / 7, masks


def slow_aupro(maps: np.ndarray, masks: np.ndarray, regions: list[np.ndarray]) -> float:
    """Threshold by threshold, region by region; the area in slices so thin that the limit needs no care."""
    rates, overlaps = [0.0], [0.0]
    for level in sorted(set(maps.ravel().tolist()), reverse=True):
        called = maps >= level
        rates.append(called[~masks].mean())
        overlaps.append(np.mean([called[region].mean() for region in regions]))
    at = np.linspace(0, 0.3, 300_001)
    # Of points with the same rate the last is the highest, and np.interp wants rates that rise.
    steep = np.maximum.accumulate(np.array(rates) + 1e-12 * np.arange(len(rates)))
    return float(np.trapezoid(np.interp(at, steep, overlaps), at) / 0.3)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("levels", [3, 9, 10_000])
def test_pixel_figures_equal_scikit_learns_and_the_definition(seed, levels):
    maps, masks = maps_with_masks(seed, levels)
    regions = []
    for image, corner in [
        (0, np.s_[2:5, 3:9]),
        (0, np.s_[8:10, 10:14]),
        (1, np.s_[:4, :2]),
        (3, np.s_[6:8, 6:8]),  # two pixels that touch by a corner
        (3, np.s_[0, 14]),
        (3, np.s_[11, 0]),
    ]:
        region = np.zeros_like(masks)
        region[(image, *corner)] = True
        regions.append(region & masks)
    threshold = float(np.median(maps))
    figures = pixel_figures(maps, masks, threshold)
    assert figures.auroc == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), rel=1e-12)
    assert figures.average_precision == pytest.approx(average_precision_score(masks.ravel(), maps.ravel()), rel=1e-12)
    assert figures.iou == pytest.approx(jaccard_score(masks.ravel(), maps.ravel() > threshold), rel=1e-12)
    assert figures.aupro == pytest.approx(slow_aupro(maps, masks, regions), abs=1e-5)
    assert figures.defective_share == masks.mean()


def test_aupro_by_hand():
    # Ten good pixels, and two regions: of one pixel, and of four.
    masks = np.array([[1, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]], dtype=bool)[None]
    # The small region first, then two good pixels at once, then half of the large one, then the rest.
    maps = np.array([[9, 8, 7, 7, 1, 1, 8, 3, 3, 3, 3, 2, 2, 2, 2]], dtype=np.float32)[None]
    # Overlap 1/2 from rate 0 to 0.2, 3/4 from there to beyond 0.3: (0.2 * 1/2 + 0.1 * 3/4) / 0.3.
    assert pixel_figures(maps, masks, 5).aupro == pytest.approx((0.1 + 0.075) / 0.3, rel=1e-12)
    # The large one's other half ties with the four good pixels at 3: from (0.2, 3/4) straight to (0.6, 1).
    maps[maps == 1] = 3
    at_limit = 0.75 + 0.25 * 0.1 / 0.4
    expected = (0.1 + 0.1 * (0.75 + at_limit) / 2) / 0.3
    assert pixel_figures(maps, masks, 5).aupro == pytest.approx(expected, rel=1e-12)
    # Each region counts alike, whatever its size: without the small one half is found at 0.2, and nothing before.
    assert pixel_figures(maps[..., 1:], masks[..., 1:], 5).aupro < 0.2
    assert pixel_figures(masks.astype(float), masks, 0.5)[:4] == pytest.approx((1, 1, 1, 1), rel=1e-12)
    assert pixel_figures(1 - masks, masks, 0.5)[2:4] == (0, 0)


def test_regions_of_two_images_do_not_touch():
    masks = np.zeros((2, 3, 3), dtype=bool)
    masks[0, 1, 1] = masks[1, :2, 1] = True
    maps = np.zeros((2, 3, 3))
    maps[0, 1, 1] = 1
    # One of two regions is found at once, the other only with all good pixels: from (0, 1/2) to (1, 1).
    assert pixel_figures(maps, masks, 0.5).aupro == pytest.approx((0.5 + 0.65) / 2, rel=1e-12)


def test_trivial_maps():
    _, masks = maps_with_masks(0)
    share = masks.mean()
    flat = pixel_figures(np.ones(masks.shape), masks, 0.5)
    assert flat == pytest.approx(PixelFigures(0.5, share, 0.15, share, share), rel=1e-12)


@pytest.mark.parametrize(("value", "shape"), [(False, (2, 3, 3)), (True, (2, 3, 3)), (False, (0, 3, 3))])
def test_one_class_of_pixels_only(value, shape):
    figures = pixel_figures(np.zeros(shape), np.full(shape, value), 0.5)
    assert figures == (None, None, None, None, float(value) if shape[0] else None)


def test_tensors_and_half_precision_are_welcome():
    maps, masks = maps_with_masks(3, levels=9)
    expected = pixel_figures(maps, masks, 0.6)
    assert pixel_figures(torch.from_numpy(maps), torch.from_numpy(masks), 0.6) == expected
    assert pixel_figures(maps.astype(np.float16), masks, 0.6) == expected
    labels, scores = images(9, 8, 0)
    assert image_figures(torch.from_numpy(labels), torch.from_numpy(scores), 1.0) == image_figures(labels, scores, 1.0)


def test_pixel_figures_need_little_memory():
    generator = np.random.default_rng(0)
    maps = generator.random((16, 128, 128), dtype=np.float32)
    masks = np.zeros(maps.shape, dtype=bool)
    masks[::2, 40:60, 40:80] = True
    pixel_figures(maps, masks, 0.5)  # imports
    tracemalloc.start()
    try:
        figures = pixel_figures(maps, masks, 0.5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert figures.auroc == pytest.approx(0.5, abs=0.02)
    assert peak < 3 * maps.nbytes


def random_images(*shape: int, seed: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_psnr_by_hand():
    clean = torch.full((3, 3, 8, 8), 0.5)
    restored = clean.clone()
    restored[0] += 0.1
    restored[1, :, :2] -= 0.5
    assert psnr(restored, clean)[:2].tolist() == pytest.approx([20, 10 * math.log10(16)], abs=1e-5)
    assert psnr(restored, clean)[2] == math.inf
    masks = torch.zeros(3, 8, 8, dtype=torch.bool)
    masks[:, :4] = True
    masks[1] = False
    masks[1, 1:3] = True  # half of it was disturbed by 0.5
    assert psnr(restored, clean, masks)[:2].tolist() == pytest.approx([20, 10 * math.log10(8)], abs=1e-5)
    assert psnr(restored, clean, masks)[2] == math.inf
    # A masked-out background that counted as perfect would add 10 log10(1 / share of the mask).
    inside = torch.where(masks[:1, None], restored[:1], clean[:1])
    assert psnr(inside, clean[:1]) - psnr(inside, clean[:1], masks[:1]) == pytest.approx(10 * math.log10(2), abs=1e-5)


def slow_ssim_at(first: np.ndarray, second: np.ndarray, row: int, column: int) -> float:
    """The definition at one pixel of two planes, window by window."""
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets**2) / (2 * 1.5**2))
    weights = np.outer(weights, weights) / weights.sum() ** 2
    a, b = (np.pad(plane, 5, mode="reflect")[row : row + 11, column : column + 11] for plane in (first, second))
    mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
    variance_a, variance_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
    covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
    c1, c2 = 0.01**2, 0.03**2
    likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return likeness / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))


def test_ssim_equals_the_definition():
    clean = random_images(2, 3, 12, 14, seed=0)
    restored = (clean + 0.2 * random_images(2, 3, 12, 14, seed=1)).clamp(0, 1)
    masks = torch.zeros(2, 12, 14, dtype=torch.bool)
    masks[0, :2, 10:] = masks[1, 5, 6] = True
    maps = np.zeros((2, 12, 14))
    for image, row, column in np.ndindex(maps.shape):
        planes = zip(restored[image].double().numpy(), clean[image].double().numpy(), strict=True)
        maps[image, row, column] = np.mean([slow_ssim_at(*pair, row, column) for pair in planes])
    assert ssim(restored, clean).tolist() == pytest.approx(maps.mean(axis=(1, 2)).tolist(), abs=1e-5)
    by_mask = [part[mask].mean() for part, mask in zip(maps, masks.numpy(), strict=True)]
    assert ssim(restored, clean, masks).tolist() == pytest.approx(by_mask, abs=1e-5)
    assert ssim(clean, clean).tolist() == pytest.approx([1, 1], abs=1e-12)
    black = torch.zeros(1, 3, 12, 12)
    assert ssim(black, black).item() == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.8731, ".873"), (1.0, "1.000"), (0.9996, "1.000"), (0.0, ".000"), (-0.12, "-0.120"), (None, "n/a")],
)
def test_figures_are_shown_with_three_digits_and_none_as_not_defined(value, text):
    assert number(value) == text
