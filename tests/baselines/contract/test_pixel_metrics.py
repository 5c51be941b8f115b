"""Figures of maps beside scikit-learn's, values found by hand, and references that follow the definition."""

import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, roc_auc_score

from baselines.contract import pixel_metrics
from baselines.contract.pixel_metrics import PixelCounts, PixelFigures, pixel_figures, trivial_pixels
from pretrain.command import UserError


def maps_with_masks(seed: int, levels: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Five maps of 12 x 15 with many equal values; two images are good, the others have one or more regions."""
    generator = np.random.default_rng(seed)
    masks = np.zeros((5, 12, 15), dtype=bool)
    masks[0, 2:5, 3:9] = masks[0, 8:10, 10:14] = masks[1, :4, :2] = masks[3, 6, 6] = masks[3, 7, 7] = True
    masks[3, 0, 14] = masks[3, 11, 0] = True
    return (generator.integers(0, levels, masks.shape) + 2 * masks).astype(np.float32) / 7 - 0.5, masks


def slow_overlap(maps: np.ndarray, masks: np.ndarray, regions: list[np.ndarray], limit: float) -> float:
    """Threshold by threshold, region by region; the area in slices so thin that the limit needs no care."""
    rates, overlaps = [0.0], [0.0]
    for level in sorted(set(maps.ravel().tolist()), reverse=True):
        called = maps >= level
        rates.append(called[~masks].mean())
        overlaps.append(np.mean([called[region].mean() for region in regions]))
    at = np.linspace(0, limit, 300_001)
    # Of points with the same rate the last is the highest, and np.interp wants rates that rise.
    steep = np.maximum.accumulate(np.array(rates) + 1e-12 * np.arange(len(rates)))
    return float(np.trapezoid(np.interp(at, steep, overlaps), at) / limit)


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
    truth, values = masks.ravel(), maps.ravel()
    assert figures.auroc == pytest.approx(roc_auc_score(truth, values), rel=1e-12)
    assert figures.average_precision == pytest.approx(average_precision_score(truth, values), rel=1e-12)
    assert figures.iou == pytest.approx(jaccard_score(truth, values > threshold), rel=1e-12)
    assert figures.f1 == pytest.approx(f1_score(truth, values > threshold), rel=1e-12)
    called = (values >= level for level in np.unique(values))
    best = max(2 * (truth & above).sum() / (truth.sum() + above.sum()) for above in called)
    assert figures.oracle_f1 == pytest.approx(best, rel=1e-12) and best >= figures.f1
    assert figures.aupro == pytest.approx(slow_overlap(maps, masks, regions, 0.3), abs=1e-5)
    assert figures.aupro_5 == pytest.approx(slow_overlap(maps, masks, regions, 0.05), abs=1e-5)
    assert figures.defective_share == masks.mean()


def test_aupro_by_hand():
    # Ten good pixels, and two regions: of one pixel, and of four.
    masks = np.array([[1, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]], dtype=bool)[None]
    # The small region first, then two good pixels at once, then half of the large one, then the rest.
    maps = np.array([[9, 8, 7, 7, 1, 1, 8, 3, 3, 3, 3, 2, 2, 2, 2]], dtype=np.float32)[None]
    # Overlap 1/2 from rate 0 to 0.2, 3/4 from there to beyond 0.3: (0.2 * 1/2 + 0.1 * 3/4) / 0.3. To 5 %: 1/2.
    assert pixel_figures(maps, masks, 5).aupro == pytest.approx((0.1 + 0.075) / 0.3, rel=1e-12)
    assert pixel_figures(maps, masks, 5).aupro_5 == pytest.approx(0.5, rel=1e-12)
    # The large one's other half ties with the four good pixels at 3: from (0.2, 3/4) straight to (0.6, 1).
    maps[maps == 1] = 3
    at_limit = 0.75 + 0.25 * 0.1 / 0.4
    expected = (0.1 + 0.1 * (0.75 + at_limit) / 2) / 0.3
    assert pixel_figures(maps, masks, 5).aupro == pytest.approx(expected, rel=1e-12)
    # Each region counts alike, whatever its size: without the small one half is found at 0.2, and nothing before.
    without = pixel_figures(maps[..., 1:], masks[..., 1:], 5)
    assert without.aupro < 0.2 and without.aupro_5 == 0
    assert pixel_figures(masks.astype(float), masks, 0.5)[:7] == pytest.approx((1,) * 7, rel=1e-12)
    assert pixel_figures(1 - masks, masks, 0.5)[2:6] == (0, 0, 0, 0)


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
    f1 = 2 * share / (1 + share)
    assert flat == pytest.approx(PixelFigures(0.5, share, 0.15, 0.025, share, f1, f1, share), rel=1e-12)
    assert trivial_pixels(share) == pytest.approx(flat, rel=1e-12)
    silent = pixel_figures(np.zeros(masks.shape), masks, 0.5)  # the same order of pixels, none called
    assert silent[:4] == flat[:4] and (silent.iou, silent.f1) == (0, 0) and silent.oracle_f1 == flat.oracle_f1


@pytest.mark.parametrize(("value", "shape"), [(False, (2, 3, 3)), (True, (2, 3, 3)), (False, (0, 3, 3))])
def test_one_class_of_pixels_only(value, shape):
    figures = pixel_figures(np.zeros(shape), np.full(shape, value), 0.5)
    assert figures == (*[None] * 7, float(value) if shape[0] else None)


def test_without_a_threshold_nothing_is_decided():
    maps, masks = maps_with_masks(1)
    undecided = pixel_figures(maps, masks, None)
    assert undecided == pixel_figures(maps, masks, 0.1)._replace(iou=None, f1=None)


def test_what_is_refused():
    with pytest.raises(UserError, match="1 of 4 scores are NaN or infinite"):
        pixel_figures([[[0.5, np.inf], [0, 0]], [[0, 0], [0, 0]]], np.zeros((2, 2, 2)), 0.5)
    with pytest.raises(ValueError, match="alike"):
        pixel_figures(np.zeros((2, 4, 4)), np.zeros((2, 4, 5)), 0.5)


def test_tensors_and_half_precision_are_welcome():
    maps, masks = maps_with_masks(3, levels=9)
    maps = maps.astype(np.float16)
    expected = pixel_figures(maps.astype(np.float32), masks, 0.6)
    assert pixel_figures(torch.from_numpy(maps), torch.from_numpy(masks), 0.6) == expected
    assert pixel_figures(maps, masks, 0.6) == expected


def test_images_may_differ_in_size_and_come_in_any_order_and_pieces(monkeypatch):
    maps, masks = maps_with_masks(2, levels=10_000)
    images = [(maps[i, :, : 15 - i], masks[i, :, : 15 - i]) for i in range(5)]
    whole = pixel_figures(*zip(*images, strict=True), 0.4)
    truth, values = (np.concatenate([image[part].ravel() for image in images]) for part in (1, 0))
    assert whole.auroc == pytest.approx(roc_auc_score(truth, values), rel=1e-12)
    # In pieces of a few pixels, and of so few levels that bits have to be dropped. (Sums of shares are rounded anew.)
    for most in (2**19, 60):
        monkeypatch.setattr(pixel_metrics, "MAX_LEVELS", most)
        monkeypatch.setattr(pixel_metrics, "COUNTED_AT_ONCE_PX", 2**20)
        at_once = pixel_figures(*zip(*images, strict=True), 0.4)
        monkeypatch.setattr(pixel_metrics, "COUNTED_AT_ONCE_PX", 7)
        for order in (images, images[::-1]):
            assert pixel_figures(*zip(*order, strict=True), 0.4) == pytest.approx(at_once, rel=1e-12)
    assert at_once != pytest.approx(whole, rel=1e-6) and at_once.auroc == pytest.approx(whole.auroc, abs=0.02)


@pytest.mark.parametrize("scale", [1, 1e4])  # around 1e4 a float32 has steps of 1e-3
def test_dropped_bits_move_figures_by_less_than_a_millionth(scale, monkeypatch):
    generator = np.random.default_rng(0)
    masks = np.zeros((8, 320, 320), dtype=bool)
    masks[::2, 40:60, 40:80] = masks[::4, 200:203, 100:140] = True
    maps = generator.gamma(4, 0.3, masks.shape).astype(np.float32) * (1 + masks) + np.float32(scale)
    counts = PixelCounts(scale + 1.2)
    for anomaly_map, mask in zip(maps, masks, strict=True):
        counts.add(anomaly_map, mask)
    figures = counts.figures()
    assert len(counts._levels) <= pixel_metrics.MAX_LEVELS and (counts._dropped_bits > 0) == (scale == 1)
    monkeypatch.setattr(pixel_metrics, "MAX_LEVELS", 2**31)
    assert figures == pytest.approx(pixel_figures(maps, masks, scale + 1.2), abs=1e-6)


def test_memory_does_not_grow_with_the_number_of_images(monkeypatch):
    monkeypatch.setattr(pixel_metrics, "MAX_LEVELS", 2**12)
    monkeypatch.setattr(pixel_metrics, "COUNTED_AT_ONCE_PX", 2**14)
    generator, peaks = np.random.default_rng(0), []
    mask = np.zeros((128, 128), dtype=bool)
    mask[40:60, 40:80] = True
    for images in (2, 40):
        tracemalloc.start()
        try:
            counts = PixelCounts(0.5)
            for _ in range(images):
                counts.add(generator.random(mask.shape, dtype=np.float32), mask)
            figures = counts.figures()
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert figures.auroc == pytest.approx(0.5, abs=0.02)
    assert peaks[1] < 1.3 * peaks[0]
