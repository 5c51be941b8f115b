"""AUPIMO beside its definition in plain loops, closed forms of trivial maps, and what it ignores."""

import math

import numpy as np
import pytest

from baselines.contract.aupimo import BOUNDS, aupimo
from pretrain.command import UserError


def slow_aupimo(good: list, defective: list, masks: list, bounds: tuple[float, float], points: int) -> list[float]:
    """At each of many rates, spaced alike in their logarithm, the lowest threshold that keeps it."""
    candidates = sorted({float(value) for image in good for value in image.ravel()})
    rate_at = {t: np.mean([(image > t).mean() for image in good]) for t in candidates}
    edges = np.linspace(math.log(bounds[0]), math.log(bounds[1]), points + 1)
    figures = []
    for anomaly_map, mask in zip(defective, masks, strict=True):
        found = []
        for rate in np.exp((edges[1:] + edges[:-1]) / 2):
            lowest = next(t for t in candidates if rate_at[t] <= rate)
            found.append((anomaly_map[mask] > lowest).mean())
        figures.append(np.mean(found))
    return figures


@pytest.mark.parametrize("levels", [12, 10_000])
@pytest.mark.parametrize("seed", range(2))
def test_it_is_what_its_definition_says(levels, seed):
    generator = np.random.default_rng(seed)

    def images(*sizes: tuple[int, int]) -> list[np.ndarray]:
        return [generator.integers(0, levels, size).astype(np.float32) / levels for size in sizes]

    good, defective = images((6, 7), (5, 5), (8, 4)), images((6, 6), (7, 5))
    masks = [np.zeros(image.shape, dtype=bool) for image in defective]
    masks[0][1:4, 2:5] = masks[1][3, 1:4] = True
    for image, mask in zip(defective, masks, strict=True):
        image += 0.5 * mask
    bounds = (0.02, 0.3)
    expected = slow_aupimo(good, defective, masks, bounds, 400)
    assert aupimo(good, defective, masks, bounds) == pytest.approx(expected, abs=0.01)
    assert len(set(expected)) == 2 and min(expected) > 0.05


def test_trivial_maps():
    generator, mask = np.random.default_rng(0), np.zeros((400, 400), dtype=bool)
    mask[:, :200] = True
    flat = np.ones((400, 400), np.float32)
    assert aupimo([flat], [flat], [mask]).tolist() == [0]
    good = [generator.random((400, 400), dtype=np.float32) for _ in range(10)]
    perfect = [mask + good[0], mask * 0.4 + 0.1]  # above all good ones; below the highest of them
    assert aupimo(good, perfect, [mask, mask]) == pytest.approx([1, 0])
    # A random map finds as large a share of the mask as of normal pixels: the mean of a rate over its logarithm.
    lower, upper = BOUNDS
    random = aupimo(good, [generator.random((400, 400)) for _ in range(40)], [mask] * 40).mean()
    assert random == pytest.approx((upper - lower) / math.log(upper / lower), abs=1e-5)


def test_what_counts_and_what_does_not():
    generator = np.random.default_rng(1)
    good = [generator.random((120, 120), dtype=np.float32) for _ in range(3)]
    mask = np.zeros((120, 120), dtype=bool)
    mask[:3, :40] = True
    image = generator.random((120, 120)) + mask * generator.random((120, 120))
    figure = aupimo(good, [image], [mask])
    assert 0 < figure[0] < 1
    assert aupimo(good[::-1], [image * 1000, image * 1000], [mask] * 2) == pytest.approx([1, 1])
    # Nothing outside of the mask of a defective image counts, nor the unit of all maps together.
    outside = np.where(mask, image, 9)
    assert aupimo(good, [outside, image], [mask, mask]).tolist() == [*figure, *figure]
    assert aupimo([7 * each for each in good], [7 * image.astype(np.float32)], [mask]) == pytest.approx(figure)


def test_where_it_is_not_defined():
    mask = np.ones((4, 4), dtype=bool)
    assert aupimo([np.zeros((99, 100))], [np.zeros((4, 4))], [mask]) is None  # one pixel is more than 1 in 10 000
    assert aupimo([], [np.zeros((4, 4))], [mask]) is None
    both = aupimo([np.zeros((100, 100))], [np.ones((4, 4))] * 2, [mask, ~mask])
    assert both[0] == pytest.approx(1) and np.isnan(both[1])
    with pytest.raises(UserError, match="NaN or infinite"):
        aupimo([np.full((100, 100), np.nan)], [], [])
