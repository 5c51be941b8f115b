"""Figures beside scikit-learn's, values found by hand, and references that follow the definition word for word."""

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from baselines.contract.metrics import (
    always_anomalous,
    always_good,
    bootstrap_interval,
    image_figures,
    number,
    psnr,
    ssim,
)
from baselines.contract.pixel_metrics import pixel_figures
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
    each_f1 = [f1_score(labels, scores > level) for level in (-1, *scores)]
    assert figures.oracle_f1 == pytest.approx(max(each_f1), rel=1e-12) and figures.oracle_f1 >= figures.f1


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
    undefined = ("auroc", "average_precision", "balanced_accuracy", "oracle_balanced_accuracy", "precision", "f1",
                 "oracle_f1")  # fmt: skip
    assert [getattr(figures, name) for name in undefined] == [None] * 7
    assert figures.recall == (0.4 if figures.defective else None)
    assert figures.false_alarm_rate == (0.4 if figures.good else None)
    assert (figures.good, figures.defective) == (labels.count(0), labels.count(1))
    assert bootstrap_interval(labels, scores) is None


def test_trivial_answers():
    labels = [0, 0, 1, 0, 1]
    good, anomalous = always_good(labels), always_anomalous(labels)
    for trivial in (good, anomalous):
        assert (trivial.auroc, trivial.average_precision, trivial.balanced_accuracy) == (0.5, 0.4, 0.5)
        assert trivial.oracle_balanced_accuracy == 0.5 and trivial.oracle_f1 == pytest.approx(4 / 7)
    assert (good.true_good, good.false_alarms, good.missed, good.found) == (3, 0, 2, 0)
    assert (good.precision, good.recall, good.f1, good.false_alarm_rate) == (None, 0, 0, 0)
    assert (anomalous.true_good, anomalous.false_alarms, anomalous.missed, anomalous.found) == (0, 3, 0, 2)
    assert (anomalous.precision, anomalous.recall, anomalous.false_alarm_rate) == (0.4, 1, 1)
    # On four defective images to one good one, as in many test sets, calling all of them defective looks good.
    assert always_anomalous([0, 1, 1, 1, 1]).f1 == pytest.approx(8 / 9)


def test_what_is_refused():
    with pytest.raises(UserError, match="1 of 2 scores are NaN or infinite"):
        image_figures([0, 1], [0.5, math.nan], 0.5)
    with pytest.raises(ValueError, match="alike"):
        image_figures([0, 1, 1], [0.5, 0.2], 0.5)
    with pytest.raises(ValueError, match="0 for good and 1"):
        image_figures([0, 2], [0.5, 0.2], 0.5)


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
