"""Maps against a naive reference, and what of a map its score is made of."""

import pytest
import torch
from torch.nn import functional as F

from downstream.methods import maps
from downstream.methods.maps import counted_share, highest_count, mean_of_highest, smooth_maps, upsampling_matrix


@pytest.mark.parametrize("rows_at_once", [1024, 7])
def test_maps_are_enlarged_and_smoothed_as_one_would_by_hand(rows_at_once, monkeypatch):
    monkeypatch.setattr(maps, "ROWS_AT_ONCE", rows_at_once)
    upsampling_matrix.cache_clear()
    values = torch.rand(1, 1, 5, 7, generator=torch.Generator().manual_seed(0))
    enlarged = F.interpolate(values, (20, 20), mode="bilinear")[0, 0].double()
    x = torch.arange(20, dtype=torch.float64)
    kernel = torch.exp(-((x[:, None] - x) ** 2) / (2 * 2.0**2))
    kernel /= kernel.sum(1, keepdim=True)
    (found,) = smooth_maps(values[0], (20, 20), 0.1)
    torch.testing.assert_close(found.double(), kernel @ enlarged @ kernel.T, rtol=1e-5, atol=1e-6)


def test_of_a_larger_image_as_much_counts_as_of_one_of_640_px():
    shape = (1280, 640)
    assert highest_count(0.01, 1280 * 640, shape) == highest_count(0.01, 640**2, (640, 640)) == 4096
    assert counted_share(shape) == pytest.approx(0.5**0.5)
    assert highest_count(0.01, 1000, shape) == 10  # of a small region all


def test_a_score_is_the_mean_of_the_highest_values_however_they_are_sought(monkeypatch):
    values = torch.rand(2, 20, 30, generator=torch.Generator().manual_seed(0))
    expected = values.flatten(1).sort(dim=1).values[:, -7:].mean(1)
    torch.testing.assert_close(mean_of_highest(values, 7), expected)
    monkeypatch.setattr(maps, "SORTED_AT_ONCE", 5)  # fewer than are asked for
    torch.testing.assert_close(mean_of_highest(values, 7), expected)
