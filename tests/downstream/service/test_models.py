"""Models by name, of folders and files; and a decision that moves with its threshold."""

import gc
import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from baselines.contract.threshold import Threshold, confidence
from downstream.inspection.decision import AreaRule
from downstream.inspection.inspection import Inspection
from downstream.inspection.inspector import Inspector
from downstream.service.decoding import RefusedImage
from downstream.service.models import Models, NoSuchModel, confidence_curve
from downstream.service.service import Job, forward
from pretrain.command import UserError
from pretrain.data.decode import decode
from pretrain.files import unsealed


@pytest.fixture
def folder(models_folder, tmp_path) -> Path:
    return Path(shutil.copytree(models_folder, tmp_path / "models"))


def test_models_have_the_names_of_their_places(folder):
    (folder / "exported.onnx").write_bytes(b"no model")
    (folder / "half written").mkdir()
    (folder / "notes.txt").write_text("{}")
    models = Models(folder, 4)
    assert models.names() == ["exported.onnx", "hazelnut", "mean"]
    assert Models(folder / "mean", 4).names() == ["mean"]
    with pytest.raises(NoSuchModel, match="did you mean hazelnut"):
        models.load("hazlenut")
    with pytest.raises(NoSuchModel):
        models.load("half written")
    with pytest.raises(UserError, match="exported"):
        models.load("exported.onnx")
    assert models.load("mean").inspector.method.batch_size == 4


def test_no_model_at_all_is_a_mistake(tmp_path):
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UserError, match="there is no model"):
            Models(path, 4)


def test_a_model_is_read_again_when_it_was_written_again(folder):
    models = Models(folder, 4)
    before = models.load("mean")
    assert models.load("mean") is before
    path = folder / "mean" / "inspector.json"
    metadata = unsealed(json.loads(path.read_text()))
    metadata["threshold"]["value"] = 123.0
    path.write_text(json.dumps(metadata))
    os.utime(path, ns=(1, before.written_ns + 1000))
    after = models.load("mean")
    assert after.inspector.decision.value == 123.0 and after.fingerprint != before.fingerprint
    path.write_text("half")
    with pytest.raises(UserError):
        models.load("mean")
    path.unlink()  # while it is being written: what was in memory goes on
    assert models.load("mean") is after


@pytest.mark.parametrize(("room", "kept"), [(0, 1), (1.5, 1), (2.5, 2), (9, 4)])
def test_as_many_models_stay_in_memory_as_there_is_room_for(folder, room, kept):
    shutil.rmtree(folder / "hazelnut")
    for number in range(3):
        shutil.copytree(folder / "mean", folder / f"mean {number}")
    size_bytes = Models(folder, 4).load("mean").size_bytes
    assert size_bytes == sum(file.stat().st_size for file in (folder / "mean").iterdir()) > 0
    models = Models(folder, 4, memory_bytes=int(room * size_bytes))
    loaded = [models.load(name) for name in models.names()]
    assert list(models._loaded) == models.names()[-kept:]
    assert models.load(loaded[-1].name) is loaded[-1]
    assert (models.load("mean") is loaded[0]) == (kept == 4)


def test_a_model_that_is_read_makes_nobody_wait_for_another_and_is_read_once(folder, monkeypatch):
    models, is_read, begun, reads = Models(folder, 4), threading.Event(), threading.Event(), []

    def slow(name: str, *of, read=models._read):
        reads.append(name)
        if name == "hazelnut":
            begun.set()
            is_read.wait(20)
        return read(name, *of)

    monkeypatch.setattr(models, "_read", slow)
    with ThreadPoolExecutor(3) as threads:
        try:
            cold = [threads.submit(models.load, "hazelnut") for _ in range(2)]
            begun.wait(20)
            other = threads.submit(models.load, "mean").result(timeout=10)
            assert other.name == "mean" and not any(one.done() for one in cold)
        finally:
            is_read.set()
        assert cold[0].result() is cold[1].result() and sorted(reads) == ["hazelnut", "mean"]
    for number in range(5):
        with pytest.raises(NoSuchModel):
            models.load(f"made up {number}")
    gc.collect()
    assert not models._reading  # whatever clients ask for


def judged(inspector: Inspector, path: Path) -> Inspection:
    (found,) = inspector.inspect([path])
    return found


@pytest.mark.parametrize("rule", ["score", "minimum area", "area rule"])
def test_another_threshold_decides_as_if_the_model_had_it(rule, folder, demo_folder):
    inspector = Inspector.load(folder / "hazelnut")
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


def test_an_image_that_a_model_cannot_judge_is_refused_alone(folder, demo_folder):
    loaded = Models(folder, 4).load("hazelnut")
    threshold = Threshold(1.0, 0.1, 4, "made for this test")
    loaded = replace(loaded, inspector=Inspector(**vars(loaded.inspector)))
    loaded.inspector.area_rule = AreaRule(10_000, threshold, [0.5])
    image = decode(next((demo_folder / "hazelnut" / "test" / "good").iterdir()), 64)
    small, large = forward([Job(loaded, "", image._replace(height=9, width=9)), Job(loaded, "", image)])
    assert isinstance(small, RefusedImage) and small.status == 422 and "10000" in str(small).replace(",", "")
    assert isinstance(large, Inspection)


def test_the_curve_of_confidence_is_that_of_decisions():
    random = np.random.default_rng(0)
    cases = [(float(random.normal()), float(random.normal()), random.normal(size=n).tolist()) for n in range(60)]
    cases += [(1.0, 0.0, [2.0, 2.0, 2.0]), (1e6, 0.0, [0.0, 1.0]), (0.0, 0.0, [1.0, 2.0])]
    for score, threshold, normals in cases:
        wanted = confidence(score, threshold, normals)
        curve = np.array(confidence_curve(normals) or [(0.0, 0.5)])
        assert (np.diff(curve, axis=0) > 0).all()
        got = np.interp(abs(score - threshold), *curve.T)
        assert got == pytest.approx(min(wanted, 0.9998), abs=5e-5)
    assert confidence_curve([]) == confidence_curve([1.0]) == confidence_curve([3.0, 3.0]) == []
