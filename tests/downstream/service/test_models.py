"""Models by name, of folders and files; and a decision that moves with its threshold."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from baselines.contract.threshold import Threshold
from downstream.inspection.inspector import AreaRule, Inspection, Inspector
from downstream.service.decoding import Refused
from downstream.service.models import MODELS_REMEMBERED, NoSuchModel, Shelf
from downstream.service.service import Job, forward
from pretrain.command import UserError
from pretrain.data.decode import decode


@pytest.fixture
def models(models_folder, tmp_path) -> Path:
    return Path(shutil.copytree(models_folder, tmp_path / "models"))


def test_models_have_the_names_of_their_places(models):
    (models / "exported.onnx").write_bytes(b"no model")
    (models / "half written").mkdir()
    (models / "notes.txt").write_text("{}")
    shelf = Shelf(models, 4)
    assert shelf.names() == ["exported.onnx", "hazelnut", "mean"]
    assert Shelf(models / "mean", 4).names() == ["mean"]
    with pytest.raises(NoSuchModel, match="did you mean hazelnut"):
        shelf.load("hazlenut")
    with pytest.raises(NoSuchModel):
        shelf.load("half written")
    with pytest.raises(UserError, match="exported"):
        shelf.load("exported.onnx")
    assert shelf.load("mean").inspector.method.batch_size == 4


def test_no_model_at_all_is_a_mistake(tmp_path):
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UserError, match="there is no model"):
            Shelf(folder, 4)


def test_a_model_is_read_again_when_it_was_written_again(models):
    shelf = Shelf(models, 4)
    before = shelf.load("mean")
    assert shelf.load("mean") is before
    path = models / "mean" / "inspector.json"
    metadata = json.loads(path.read_text())
    metadata["threshold"]["value"] = 123.0
    path.write_text(json.dumps(metadata))
    os.utime(path, ns=(1, before.written_ns + 1000))
    after = shelf.load("mean")
    assert after.inspector.decision.value == 123.0 and after.fingerprint != before.fingerprint
    path.unlink()  # while it is being written: what was in memory goes on
    assert shelf.load("mean") is after


def test_only_a_few_models_stay_in_memory(models):
    for number in range(3):
        shutil.copytree(models / "mean", models / f"mean {number}")
    shelf = Shelf(models, 4)
    loaded = [shelf.load(name) for name in shelf.names()]
    assert len(shelf._loaded) == MODELS_REMEMBERED
    assert shelf.load(loaded[-1].name) is loaded[-1]


def judged(inspector: Inspector, path: Path) -> Inspection:
    (found,) = inspector.inspect([path])
    return found


@pytest.mark.parametrize("rule", ["score", "minimum area", "area rule"])
def test_another_threshold_decides_as_if_the_model_had_it(rule, models, demo_folder):
    inspector = Inspector.load(models / "hazelnut")
    paths = sorted((demo_folder / "hazelnut" / "test").glob("*/*.png"))[::4]
    if rule == "minimum area":
        inspector.minimum_area_px = 20_000
    if rule == "area rule":
        values = [float(np.median(judged(inspector, path).anomaly_map)) for path in paths]
        threshold = Threshold(float(np.median(values)), 0.1, len(paths), "made for this test")
        inspector.area_rule = AreaRule(200, threshold, sorted(values))
    verdicts = set()
    for path in paths:
        found = judged(inspector, path)
        for factor in (0.5, 0.98, 1.02, 2.0):
            limit = found.threshold * factor
            again = Inspector(**vars(inspector))
            again.decide_at(limit)
            wanted, moved = judged(again, path), inspector.at_threshold(found, limit)
            assert moved.is_defective == wanted.is_defective and list(moved.regions) == list(wanted.regions)
            assert (moved.confidence, moved.threshold) == (wanted.confidence, wanted.threshold)
            assert moved.map_threshold == wanted.map_threshold
            verdicts.add(moved.is_defective)
    assert (True in verdicts) == (rule != "minimum area")
    assert False in verdicts


def test_an_image_that_a_model_cannot_judge_is_refused_alone(models, demo_folder):
    loaded = Shelf(models, 4).load("hazelnut")
    threshold = Threshold(1.0, 0.1, 4, "made for this test")
    loaded = replace(loaded, inspector=Inspector(**vars(loaded.inspector)))
    loaded.inspector.area_rule = AreaRule(10_000, threshold, [0.5])
    image = decode(next((demo_folder / "hazelnut" / "test" / "good").iterdir()), 64)
    small, large = forward([Job(loaded, "", image._replace(height=9, width=9)), Job(loaded, "", image)])
    assert isinstance(small, Refused) and small.status == 422 and "10000" in str(small).replace(",", "")
    assert isinstance(large, Inspection)
