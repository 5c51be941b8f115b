"""Regions of maps drawn by hand, and of random ones beside a search that walks from pixel to pixel."""

import math

import numpy as np
import pytest
import torch

from baselines.contract.regions import Region, area_score, area_scores, region_areas, region_mask, regions
from pretrain.command import UserError


def drawn(*lines: str) -> np.ndarray:
    """A map of digits: '.' is 0."""
    return np.array([[float(each.replace(".", "0")) for each in line] for line in lines], dtype=np.float32)


TWO = drawn(
    "99......",
    ".8......",
    "......3.",
    ".....5..",
    "......4.",
)


def test_regions_of_a_map():
    assert regions(TWO, 2) == [
        Region(area_px=3, box=(0, 0, 2, 2), peak=9.0, center=(0, 0)),
        Region(area_px=3, box=(5, 2, 7, 5), peak=5.0, center=(5, 3)),
    ]
    assert regions(torch.from_numpy(TWO), 2) == regions(TWO, 2)


def test_what_equals_the_threshold_is_good():
    assert [region.area_px for region in regions(TWO, 5)] == [3]
    assert [region.area_px for region in regions(TWO, 4.999)] == [3, 1]
    assert regions(TWO, 9) == []


def test_peaks_and_boxes_are_those_of_the_original_image():
    # The image is 50 high and 160 wide: a map pixel is 10 high, 20 wide, 200 pixels.
    assert regions(TWO, 2, original_size=(50, 160)) == [
        Region(area_px=600, box=(0, 0, 40, 20), peak=9.0, center=(10, 5)),
        Region(area_px=600, box=(100, 20, 140, 50), peak=5.0, center=(110, 35)),
    ]
    # 7 high and 13 wide: 7/5 and 13/3; boxes hold every pixel that is touched.
    (region,) = regions(drawn("...", ".7.", "...", "...", "..."), 2, original_size=(7, 13))
    assert region == Region(area_px=6, box=(4, 1, 9, 3), peak=7.0, center=(6, 2))
    # Smaller than the map: a region is never without a pixel.
    (region,) = regions(np.eye(8) * (np.arange(8) == 7), 0.5, original_size=(2, 2))
    assert region == Region(area_px=1, box=(1, 1, 2, 2), peak=1.0, center=(1, 1))


def test_minimum_area_is_of_the_original_image():
    three_and_one = drawn("77.....", "7...9..", ".......")
    assert [region.area_px for region in regions(three_and_one, 2)] == [1, 3]
    assert [region.area_px for region in regions(three_and_one, 2, 3)] == [3]
    assert regions(three_and_one, 2, 4) == []
    assert [region.area_px for region in regions(three_and_one, 2, 12, original_size=(6, 14))] == [12]
    assert regions(three_and_one, 2, 13, original_size=(6, 14)) == []
    # What is shown as 3 pixels is 3 pixels: 3 x 21/21.5 is rounded before it is compared.
    assert [region.area_px for region in regions(np.pad(three_and_one, ((0, 40), (0, 0))), 2, 3, (42, 7))] == [3]
    kept = region_mask(three_and_one, 2, 3)
    assert kept.dtype == bool and kept.tolist() == drawn("11.....", "1......", ".......").astype(bool).tolist()
    assert (
        region_mask(three_and_one, 2, 12, (6, 14)).sum() == 3 and not region_mask(three_and_one, 2, 13, (6, 14)).any()
    )


def test_a_large_map_is_gone_through_some_rows_at_a_time_and_nothing_changes(monkeypatch):
    values = np.random.default_rng(0).integers(0, 9, (40, 30)).astype(np.float32)  # with equal peaks
    whole, mask = regions(values, 5), region_mask(values, 5, 3)
    monkeypatch.setattr("baselines.contract.regions.PIXELS_AT_ONCE", 3 * 30)
    assert regions(values, 5) == whole and len(whole) > 5 and (region_mask(values, 5, 3) == mask).all()


def test_flat_and_empty_maps():
    flat = np.full((4, 6), 0.5)
    assert regions(flat, 0.5) == [] and not region_mask(flat, 0.5).any()
    assert regions(flat, 0.4) == [Region(area_px=24, box=(0, 0, 6, 4), peak=0.5, center=(0, 0))]
    assert region_mask(flat, 0.4).all()
    for shape in ((0, 0), (0, 5)):
        assert regions(np.zeros(shape), -1, original_size=(10, 10)) == []
        assert region_mask(np.zeros(shape), -1).shape == shape


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused(value):
    damaged = TWO.copy()
    damaged[1, 1] = value
    for function in (regions, region_mask):
        with pytest.raises(UserError, match="1 of 40 scores are NaN or infinite"):
            function(damaged, 2)
    with pytest.raises(ValueError, match=r"\(h, w\)"):
        regions(TWO[None], 2)


def walked(values: np.ndarray, threshold: float) -> set[frozenset[tuple[int, int]]]:
    """Regions as sets of (row, column), by walking."""
    open_pixels = set(zip(*np.nonzero(values > threshold), strict=True))
    found = set()
    while open_pixels:
        todo, region = [open_pixels.pop()], set()
        while todo:
            row, column = todo.pop()
            region.add((int(row), int(column)))
            around = {(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & open_pixels
            open_pixels -= around
            todo += around
        found.add(frozenset(region))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_equals_walking_from_pixel_to_pixel(seed):
    values = np.random.default_rng(seed).integers(0, 10, (23, 31)).astype(np.float32)  # with ties
    expected = {region for region in walked(values, 6) if len(region) >= 3}
    assert 3 < len(expected) < len(walked(values, 6))
    found = regions(values, 6, minimum_area_px=3)
    assert [region.peak for region in found] == sorted((region.peak for region in found), reverse=True)
    by_hand = set()
    for region in expected:
        rows, columns = zip(*region, strict=True)
        peak = max(values[position] for position in region)
        row, column = min(position for position in region if values[position] == peak)
        box = (min(columns), min(rows), max(columns) + 1, max(rows) + 1)
        by_hand.add(Region(len(region), box, float(peak), (column, row)))
    assert set(found) == by_hand and len(found) == len(by_hand)
    kept = {(int(row), int(column)) for row, column in zip(*np.nonzero(region_mask(values, 6, 3)), strict=True)}
    assert kept == set().union(*expected)


def lowest_without(values: np.ndarray, area_px: float, size: tuple[int, int]) -> float:
    """The area score by trying every value of the map as threshold, from the lowest up."""
    for threshold in sorted(set(values.ravel().tolist())):
        sizes = [len(region) * size[0] * size[1] / values.size for region in walked(values, threshold)]
        if not any(max(1, round(one)) >= area_px for one in sizes):
            return threshold
    raise AssertionError("nothing lies above the highest value")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [(11, 14), (33, 20), (5, 7)])
def test_area_score_is_the_lowest_threshold_without_a_region(seed, size):
    generator = np.random.default_rng(seed)
    values = generator.integers(-4, 8, (11, 14)).astype(np.float32)  # with ties
    if seed % 2:
        values += generator.random((11, 14), np.float32)  # without
    largest = size[0] * size[1]
    areas_px = sorted([0, 1, 2, 3, 5, 8.5, 13, 30, largest // 2, largest - 1, largest])
    expected = [lowest_without(values, area_px, size) for area_px in areas_px]
    assert area_scores(values, areas_px, size).tolist() == expected
    assert [area_score(values, area_px, size) for area_px in areas_px] == expected
    assert sorted(expected, reverse=True) == expected and expected[0] == values.max() > expected[-1]


@pytest.mark.parametrize("area_px", [1, 4, 20, 90])
def test_an_image_has_a_region_if_and_only_if_its_area_score_is_above(area_px):
    values = np.random.default_rng(3).normal(size=(17, 19)).astype(np.float32)
    score = area_score(values, area_px, (40, 25))
    around = [np.nextafter(np.float32(score), np.float32(end)) for end in (-np.inf, np.inf)]
    assert [bool(regions(values, at, area_px, (40, 25))) for at in (around[0], score, around[1])] == [
        True,
        False,
        False,
    ]
    for threshold in np.linspace(-3, 3, 25):
        assert bool(regions(values, threshold, area_px, (40, 25))) == (score > np.float32(threshold))


def test_area_scores_of_flat_maps_and_impossible_areas():
    flat = np.full((4, 6), 0.5)
    assert area_scores(flat, (1, 24)).tolist() == [0.5, 0.5]
    assert area_scores(flat, ()).tolist() == []
    with pytest.raises(UserError, match="25 px is more than an image of 6x4 has"):
        area_score(flat, 25)
    assert area_score(flat, 25, (5, 5)) == 0.5
    damaged = TWO.copy()
    damaged[0, 0] = math.nan
    with pytest.raises(UserError, match="NaN"):
        area_score(damaged, 1)
    for shape in ((0, 0), (2, 3, 4)):
        with pytest.raises(ValueError, match=r"\(h, w\)"):
            area_score(np.zeros(shape), 1)


def test_region_areas_are_those_of_all_regions():
    three_and_one = drawn("77.....", "7...9..", ".......")
    assert region_areas(three_and_one, 2).tolist() == [3, 1]
    assert region_areas(three_and_one, 2, (6, 14)).tolist() == [12, 4]
    assert region_areas(three_and_one, 9).tolist() == []
