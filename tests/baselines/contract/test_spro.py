"""sPRO beside its definition in plain loops, AUPRO where nothing saturates early, and MVTec LOCO's file."""

import json

import numpy as np
import pytest
from made_folders import mask

from baselines.contract.pixel_metrics import pixel_figures
from baselines.contract.spro import Defect, Saturation, read_defects, read_saturations, spro
from pretrain.command import UserError


def images(seed: int, levels: int) -> tuple[list[np.ndarray], list[list[Defect]]]:
    """Three maps; the first has two masks that overlap, the second one in two parts, the third is good."""
    generator = np.random.default_rng(seed)
    first, second, third = (np.zeros((9, 11), dtype=bool) for _ in range(3))
    first[1:5, 2:7] = second[3:8, 5:9] = third[0, :3] = third[6:, 8:] = True
    maps = [generator.integers(0, levels, (9, 11)).astype(np.float32) / levels for _ in range(3)]
    for anomaly_map, defect in zip(maps, (first | second, third), strict=False):
        anomaly_map += defect * generator.random(defect.shape, dtype=np.float32).round(1)
    return maps, [[Defect(first, 5), Defect(second, 20)], [Defect(third, 3.5)], []]


def slow_spro(maps: list[np.ndarray], defects: list[list[Defect]], limit: float) -> float:
    """Threshold by threshold, mask by mask, and the area in thin slices."""
    rates, overlaps = [0.0], [0.0]
    good = [~np.any([d.mask for d in of_image], axis=0) if of_image else np.ones(m.shape, bool)
            for m, of_image in zip(maps, defects, strict=True)]  # fmt: skip
    for level in sorted({float(value) for each in maps for value in each.ravel()}, reverse=True):
        called = [each >= level for each in maps]
        rates.append(np.concatenate([c[g] for c, g in zip(called, good, strict=True)]).mean())
        overlaps.append(np.mean([
            min(1, (c & d.mask).sum() / d.saturation_px)
            for c, of_image in zip(called, defects, strict=True) for d in of_image
        ]))  # fmt: skip
    at = np.linspace(0, limit, 200_001)
    steep = np.maximum.accumulate(np.array(rates) + 1e-12 * np.arange(len(rates)))
    return float(np.trapezoid(np.interp(at, steep, overlaps), at) / limit)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("levels", [4, 10_000])
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_it_is_what_its_definition_says(seed, levels, limit):
    maps, defects = images(seed, levels)
    assert spro(maps, defects, limit) == pytest.approx(slow_spro(maps, defects, limit), abs=1e-5)


def test_it_is_aupro_where_only_the_whole_defect_saturates():
    maps, defects = images(0, 10_000)
    masks = [defects[0][0].mask, np.zeros_like(maps[1], bool), np.zeros_like(maps[2], bool)]
    whole = [[Defect(masks[0], masks[0].sum())], [], []]
    figures = pixel_figures(maps, masks, None)
    assert spro(maps, whole) == pytest.approx(figures.aupro_5, rel=1e-12)
    assert spro(maps, whole, 0.3) == pytest.approx(figures.aupro, rel=1e-12)
    # To find one pixel is to find all: as soon as the highest is found.
    highest = [[Defect(masks[0], 1)], [], []]
    assert spro(maps, highest) >= spro(maps, whole) and spro(maps, highest, 1.0) > spro(maps, whole, 1.0)


def test_trivial_answers_and_what_is_not_defined():
    maps, defects = images(0, 9)
    assert spro([np.ones((9, 11))] * 3, defects) == pytest.approx(0.025)  # all or nothing, as AUPRO to 5 %
    assert spro(maps[2:], [[]]) is None
    everywhere = [[Defect(np.ones((9, 11), dtype=bool), 4)]]
    assert spro(maps[:1], everywhere) is None
    lost = [[*defects[0], Defect(np.zeros((9, 11), dtype=bool), 1)], *defects[1:]]  # by a smaller map
    assert spro(maps, lost) == spro(maps, defects)
    with pytest.raises(ValueError, match="above 0"):
        spro(maps[:1], [[defects[0][0]._replace(saturation_px=0)]])


def test_saturations_are_read_and_applied_as_loco_has_them(tmp_path):
    file = tmp_path / "defects_config.json"
    file.write_text(json.dumps([
        {"defect_name": "missing_pin", "pixel_value": 255, "saturation_threshold": 12, "relative_saturation": False},
        {"defect_name": "broken", "pixel_value": 254, "saturation_threshold": 0.5, "relative_saturation": True},
    ]))  # fmt: skip
    pixels, share = (read_saturations(file)[value] for value in (255, 254))
    assert (pixels, share) == (Saturation(12, False), Saturation(0.5, True))
    assert [pixels.area_px(area) for area in (9, 25)] == [9, 12]
    assert [share.area_px(area) for area in (9, 25, 1)] == [4, 12, 1]  # rounded down, but to no less than a pixel
    for text in ("[{}]", "{}", "nothing"):
        file.write_text(text)
        with pytest.raises(UserError, match="gives no saturation areas"):
            read_saturations(file)


def test_masks_of_an_image_are_defects_by_the_value_of_their_pixels(tmp_path):
    saturations = {255: Saturation(10, False), 250: Saturation(0.5, True)}
    files = [mask(tmp_path / "000.png", slice(0, 4), value=255), mask(tmp_path / "001.png", slice(6, 8), value=250)]
    first, second = read_defects(files, (10, 12), saturations)
    assert np.flatnonzero(first.mask.all(axis=1)).tolist() == [0, 1, 2, 3] and first.saturation_px == 10
    assert np.flatnonzero(second.mask.all(axis=1)).tolist() == [6, 7] and second.saturation_px == 12
    # A map of half the height and width: a pixel is four, areas are those of the original all the same.
    half, _ = read_defects(files, (5, 6), saturations)
    assert half.mask.shape == (5, 6) and half.mask.sum() == 12 and half.saturation_px == 2.5
    with pytest.raises(UserError, match="000.png has pixels of value 255; .* has saturations of 7."):
        list(read_defects(files, (5, 6), {7: Saturation(1, True)}))
