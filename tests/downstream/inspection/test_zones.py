"""Zones: each by its own threshold and area, at one false-alarm rate for all, the same wherever a model is asked."""

import json

import numpy as np
import pytest
from fitted_models import SMALL, run_area, run_detect, run_export
from PIL import Image

from baselines.contract.threshold import threshold_from_normals
from downstream.inspection.inspector import Inspector
from downstream.inspection.roi import Zone
from downstream.inspection.zones import (
    division,
    relative_map,
    zone_rates,
    zone_regions,
    zone_results,
    zone_rule,
    zone_scores,
)
from downstream.service.models import LoadedModel
from downstream.service.schemas import image_response, stored_result
from pretrain.command import UserError
from pretrain.data.decode import decode

LABELS = np.zeros((20, 40), np.uint8)
LABELS[:, 2:20], LABELS[:, 20:38] = 1, 2
SIZE = (40, 80)  # of the image: a pixel of the map is four of its
ZONES = (Zone("left", ()), Zone("right", (), min_area_px=24))


def maps(count: int, seed: int = 0) -> np.ndarray:
    """Of normals; the right zone shows ten times as much, and outside of both is most."""
    values = np.random.default_rng(seed).gamma(4, 1, (count, *LABELS.shape)).astype(np.float32)
    return values * np.float32([100, 1, 10])[LABELS]


def scores(of: np.ndarray, areas_px: tuple[int, int] = (0, 24)) -> np.ndarray:
    return np.stack([zone_scores(each, LABELS, areas_px, SIZE) for each in of])


def test_a_score_is_the_lowest_threshold_without_a_region_in_the_zone():
    (anomaly_map,) = maps(1)
    left, right = zone_scores(anomaly_map, LABELS, (0, 24), SIZE)
    assert left == anomaly_map[LABELS == 1].max()
    rule = zone_rule(ZONES, scores(maps(9)), 0.1)
    for factor, count in ((1 - 1e-6, 1), (1 + 1e-6, 0)):
        limits = [
            limit._replace(threshold=limit.threshold._replace(value=float(value) * factor))
            for limit, value in zip(rule.zones, (left, right), strict=True)
        ]
        moved = rule._replace(zones=limits)
        relative = relative_map(anomaly_map, LABELS, moved)
        found = zone_regions(relative, LABELS, moved, SIZE)
        assert [sum(region.zone == name for region in found) for name in ("left", "right")] == [count, count]
        results = zone_results(zone_scores(relative, LABELS, (0, 24), SIZE), moved)
        assert [zone.is_defective for zone in results] == [bool(count)] * 2
        assert results[0].score == pytest.approx(left, rel=1e-5)
    assert not relative[LABELS == 0].any()
    small = np.where(LABELS == 2, 0, anomaly_map)
    small[5, 25], small[12:14, 30:33] = 90, 70  # one pixel is too small, six are enough
    assert zone_scores(small, LABELS, (0, 24), SIZE)[1] == 70


def test_a_zone_that_is_smaller_than_its_area_has_its_lowest_value():
    (anomaly_map,) = maps(1)
    assert zone_scores(anomaly_map, LABELS, (0, 3000), SIZE)[1] == anomaly_map[LABELS == 2].min()


def test_the_rate_is_that_of_all_zones_together():
    assert zone_rates(ZONES, 0.1) == [0.05, 0.05]
    own = (*ZONES, Zone("strict", (), false_alarm_rate=0.02), Zone("given", (), threshold=3.0))
    assert zone_rates(own, 0.1) == pytest.approx([0.04, 0.04, 0.02, None])
    assert (
        division(own, zone_rates(own, 0.1))
        == "4 % false alarms each (left, right), 2 % false alarms each (strict), given (given)"
    )
    assert zone_rates(own[2:], 0.02) == [0.02, None]  # all have their own: nothing is to be shared
    with pytest.raises(UserError, match=r"0.02 together, more than the 0.01 of the whole"):
        zone_rates(own[2:], 0.01)
    with pytest.raises(UserError, match=r"0.02 together, which leaves nothing of 0.02 for the other 2"):
        zone_rates(own, 0.02)


def test_thresholds_come_from_the_zones_own_normals_and_keep_the_rate():
    normals = scores(maps(399, seed=2))
    rule = zone_rule(ZONES, normals, 0.1)
    for limit, own in zip(rule.zones, normals.T, strict=True):
        assert limit.threshold == threshold_from_normals(own, 0.05)
    assert rule.zones[1].threshold.value > 3 * rule.zones[0].threshold.value
    assert rule.threshold.value == 1 and rule.threshold.false_alarm_rate == pytest.approx(0.1)
    further = scores(maps(1000, seed=1)) / [limit.threshold.value for limit in rule.zones]
    assert 0.07 < (further.max(1) > 1).mean() < 0.12
    given = zone_rule((Zone("left", (), threshold=5.0), ZONES[1]), normals, 0.1)
    assert given.zones[0].threshold.value == 5 and "given with the region" in given.zones[0].threshold.why
    assert given.zones[1].threshold == threshold_from_normals(normals[:, 1], 0.1)  # which has all of the rate
    black = zone_rule(ZONES, np.zeros((9, 2), np.float32), 0.1)
    assert np.isfinite(relative_map(maps(1)[0], LABELS, black)).all()


# The blatant defect of `blotched` lies between (100, 60) and (140, 110).
ON_IT = [[80, 40], [160, 40], [160, 130], [80, 130]]
BESIDE = [[0, 200], [256, 200], [256, 256], [0, 256]]


@pytest.fixture(scope="module")
def zoned(demo_folder, tmp_path_factory):
    """A model with two zones, by the command, and its roi.json."""
    folder = tmp_path_factory.mktemp("zoned")
    zones = [{"name": "below", "include": [BESIDE]}, {"name": "top left", "include": [ON_IT], "min_area_px": 30}]
    (folder / "roi.json").write_text(json.dumps({"format": 1, "zones": zones}))
    data = ("--data", demo_folder, "--category", "hazelnut", *SMALL, "--roi", folder / "roi.json")
    assert run_detect("fit", *data, "--out", folder / "model") == 0
    return folder / "model"


def test_the_zone_with_the_defect_is_named(zoned, blotched, tmp_path, capsys):
    assert run_detect("run", blotched, "--model", zoned, "--out", tmp_path) == 1
    printed = capsys.readouterr().out
    assert "times that of the zone (below" in printed and printed.count("top left") == 2  # title and row
    good, bad = map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())
    assert not good["is_defective"] and not any(zone["is_defective"] for zone in good["zones"])
    assert bad["is_defective"] and [zone["is_defective"] for zone in bad["zones"]] == [False, True]
    assert bad["threshold"] == bad["map_threshold"] == 1
    below, above = bad["zones"]
    assert bad["score"] == pytest.approx(above["score"] / above["threshold"], rel=1e-5)
    assert {region["zone"] for region in bad["regions"]} == {"top left"}
    left, top, right, bottom = bad["regions"][0]["box"]
    assert left >= 76 and top >= 36 and right <= 164 and bottom <= 134
    drawn = np.asarray(Image.open(tmp_path / bad["image"]))
    assert (drawn == (120, 200, 120)).all(2).any()
    # At a multiple of their thresholds that is above its score, it is good.
    higher = ("--threshold", 1.01 * bad["score"], "--overlays", "none")
    assert run_detect("run", blotched, "--model", zoned, "--out", tmp_path / "higher", *higher) == 0


def test_a_model_with_zones_is_the_same_after_loading_and_at_another_threshold(zoned, blotched):
    model = Inspector.load(zoned)
    _, bad = model.inspect(sorted(blotched.iterdir()))
    limit = 0.5 * bad.score
    moved = model.at_threshold(bad, limit)
    model.decide_at(limit)
    (decided,) = model.inspect_decoded([bad.path], [decode(bad.path, model.size_px)])
    assert moved.regions == decided.regions and moved.zones == decided.zones
    assert moved.confidence == decided.confidence and moved.is_defective
    stored = json.loads((zoned / "inspector.json").read_text())
    assert stored["format"] == 4 and stored["drawn_roi"]["image_size"] == [256, 256]


def test_an_exported_file_decides_by_the_zones_as_the_model_does(zoned, blotched, tmp_path):
    assert run_export(zoned, "--out", tmp_path / "zoned.onnx") == 0
    images = sorted(blotched.iterdir())
    model, file = Inspector.load(zoned), Inspector.load(tmp_path / "zoned.onnx")
    for expected, found in zip(model.inspect(images), file.inspect(images), strict=True):
        assert found.is_defective == expected.is_defective and found.defective_zones == expected.defective_zones
        assert found.score == pytest.approx(expected.score, rel=1e-3) and found.threshold == expected.threshold
        assert [region.zone for region in found.regions] == [region.zone for region in expected.regions]
    assert found.defective_zones == ["top left"]


def test_the_service_names_the_zones(zoned, blotched):
    model = Inspector.load(zoned)
    _, bad = model.inspect(sorted(blotched.iterdir()))
    loaded = LoadedModel("nut", model, 0, "", 0)
    kept = stored_result(bad, loaded, "b bad.png", 64 * "0", 1.0, False, "")._replace(id=1)
    answer = image_response(kept, bad, loaded, 0, "none")
    assert [zone.is_defective for zone in answer.zones] == [False, True] and answer.zones[1].name == "top left"
    assert answer.regions[0].zone == "top left" and kept.regions[0]["zone"] == "top left"


def test_without_zones_a_model_is_written_as_before(padim_folder):
    stored = json.loads((padim_folder / "inspector.json").read_text())
    assert stored["format"] == 3 and not {"drawn_roi", "zone_rule"} & set(stored)


def test_a_single_good_image_is_moved_a_little(demo_folder, zoned, tmp_path, capsys):
    data = ("--data", demo_folder, "--category", "hazelnut", *SMALL, "--roi", zoned.parent / "roi.json")
    assert run_detect("fit", *data, "--shots", 1, "--out", tmp_path / "one") == 0
    assert len(Inspector.load(tmp_path / "one").zone_rule.normal_scores) == 4
    said = capsys.readouterr().out
    assert (
        "zone below: threshold" in said and "of 4 views of the only good image, each moved a little, are above" in said
    )


def test_what_does_not_go_together(demo_folder, zoned, tmp_path, capsys):
    assert run_area("validate", "--model", zoned, "--data", demo_folder, "--area", 9) == 2
    assert "decides by zones" in capsys.readouterr().err
    assert run_export(zoned, "--to", "onnx-int8", "--data", demo_folder, "--out", tmp_path / "x.onnx") == 2
    assert "decides by zones" in capsys.readouterr().err
