"""Areas and thresholds against naive references."""

import json

import numpy as np
import pytest
import torch
from fitted_models import run_area
from scipy.ndimage import label

from baselines.contract.method import Prediction
from baselines.trivial import MeanImage
from downstream.inspection.area_choice import (
    AreaRow,
    ValidationImages,
    area_table,
    area_threshold,
    maps_of,
    recommended,
    synthetic,
    threshold_rows,
)
from downstream.inspection.area_plots import regions_chart, sizes_chart
from downstream.inspection.images import good_images
from downstream.inspection.inspector import Inspector
from pretrain.command import UserError
from pretrain.data.dataset import ImageSet
from pretrain.files import unsealed


def held_of(*maps: np.ndarray) -> ValidationImages:
    """Held-out maps without images, as large as the maps."""

    class Sized(ValidationImages):
        sizes = [one.shape for one in maps]

    return Sized(ImageSet("", 8, (), (), np.empty(0)), maps)


def has_region(anomaly_map: np.ndarray, threshold: float, pixels: int) -> bool:
    labels, _ = label(anomaly_map > np.float32(threshold), np.ones((3, 3)))
    return bool((np.bincount(labels.ravel())[1:] >= pixels).any())


def test_validate_finds_the_lowest_threshold_without_a_region(validated, demo_folder):
    """Of all values of the maps, tried one by one on both sides of it."""
    kept = Inspector.load(validated)
    area_px, threshold, scores = kept.area_rule
    learned = set(kept.metadata["learned_from"])
    goods = good_images(demo_folder, "hazelnut", 64)
    paths = [r.path for r, e in zip(goods.records, goods.entries, strict=True) if e.digest.hex() not in learned]
    assert len(paths) == len(scores) == 4 and len(learned) == 8 and area_px == 60 and threshold.count == 4
    found = list(kept.inspect(paths))
    pixels = next(n for n in range(1, 9999) if round(n * found[0].width * found[0].height / 64**2) >= 60)
    values = np.unique(np.concatenate([one.anomaly_map.ravel() for one in found]))
    at = int(np.argmin(np.abs(values - np.float32(threshold.value))))
    assert values[at] == pytest.approx(threshold.value, rel=1e-5)
    assert not any(has_region(one.anomaly_map, values[at + 1], pixels) for one in found)
    assert any(has_region(one.anomaly_map, values[at - 1], pixels) for one in found)


def test_a_method_without_maps_is_refused():
    class Blind(MeanImage):
        def predict(self, images):
            yield Prediction(torch.zeros(len(list(images))), None)

    with pytest.raises(UserError, match="Blind gives no maps"):
        list(maps_of(Blind(), [torch.zeros(3, 8, 8)]))


def test_each_image_is_judged_at_the_threshold_of_the_others():
    normals = np.array([[1, 5], [2, 1], [9, 1]], np.float32)
    copies = np.array([[3, 6], [9, 2], [9, 6]], np.float32)
    rows = area_table([4, 8], normals, copies, np.array([0, 1, 2]), None)
    # Area 4: limits are 9, 9 and 2 -> only the last copy is above; of the normals, the last is above too.
    assert rows[0] == AreaRow(4, 9.0, pytest.approx(1 / 3), pytest.approx(2 / 3), pytest.approx(1 / 2))
    # Area 8: limits 1, 5, 5 -> copies 6 > 1, 2 < 5, 6 > 5; of the normals, the first is above.
    assert rows[1] == AreaRow(8, 5.0, pytest.approx(2 / 3), pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert recommended(rows) == rows[1]
    assert recommended([rows[1], rows[1]._replace(area_px=6), rows[0]]).area_px == 6
    with pytest.raises(UserError, match="leave out 2 or more"):
        area_table([4], normals[:1, :1], copies[:1, :1], np.array([0]), None)


def test_a_rate_goes_through_the_one_rule_for_thresholds():
    scores = np.arange(1, 100, dtype=np.float32)
    assert area_threshold(scores, 0.1, 5).value == 90
    highest = area_threshold(scores, None, 5)
    assert highest.value == 99 and highest.false_alarm_rate == pytest.approx(0.01) and "none of 99" in highest.why


def test_regions_by_threshold():
    two, flat = np.array([[3, 0, 2, 2]], np.float32), np.zeros((1, 4), np.float32)
    rows, areas = threshold_rows(held_of(two, flat))
    assert [row.threshold for row in rows] == pytest.approx(np.arange(60) * 3 / 60)
    assert rows[0].regions_per_image == 1 and sorted(areas[0]) == [1, 2]
    assert (rows[0].mean_area_px, rows[0].std_area_px) == (1.5, 0.5)
    assert rows[-1].regions_per_image == 0.5 and areas[-1].tolist() == [1]
    rows, areas = threshold_rows(held_of(flat, flat))
    assert {row.mean_area_px for row in rows} == {None} and {row.regions_per_image for row in rows} == {0}
    regions_chart(rows, "flat"), sizes_chart(rows, areas, "flat")


def test_normals_that_were_learned_from_are_refused(demo_folder, tmp_path, capsys):
    words = ("--data", demo_folder, "--category", "hazelnut")
    assert run_area("fit", *words, "--out", tmp_path, "--method", "mean", "--size-px", "64") == 0
    assert run_area("validate", *words, "--model", tmp_path, "--area", "5") == 2
    assert "learned from all 12 good images" in capsys.readouterr().err
    metadata = unsealed(json.loads((tmp_path / "inspector.json").read_text()))
    del metadata["metadata"]["learned_from"]
    (tmp_path / "inspector.json").write_text(json.dumps(metadata))
    assert run_area("validate", *words, "--model", tmp_path, "--area", "5") == 0
    assert "does not say which images it learned from" in capsys.readouterr().err


def test_synthetic_anomalies_lie_where_the_model_looks(demo_folder):
    images = good_images(demo_folder, "hazelnut", 64)
    roi = np.zeros((64, 64), bool)
    roi[:24, :24] = True
    everywhere = [mask for _, _, mask in synthetic(ValidationImages(images, ()), 12, 0)]
    within = [mask for _, _, mask in synthetic(ValidationImages(images, (), roi), 12, 0)]
    assert len(within) == len(everywhere) and all((mask & roi).any() for mask in within)
    assert not all((mask & roi).any() for mask in everywhere)
