"""Models in use: areas, company, and folders of others."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pretended_gpu import pretended_gpu

from downstream.inspection import inspector as inspector_module
from downstream.inspection.inspection import Inspection
from downstream.inspection.inspector import Inspector
from downstream.learning.versions import add_version, changing, promote, roll_back, version_in_use, versions_of
from pretrain.command import UserError
from pretrain.data.decode import decode
from pretrain.data.images import Problem
from pretrain.files import unsealed


def test_a_minimum_area_drops_small_regions(padim_folder, blotched, tmp_path):
    inspector = Inspector.load(padim_folder)
    (_, usual) = inspector.inspect(sorted(blotched.iterdir()))
    assert usual.is_defective and usual.regions
    inspector.minimum_area_px = max(region.area_px for region in usual.regions) + 1
    (_, strict) = inspector.inspect(sorted(blotched.iterdir()))
    assert strict.score == usual.score and not strict.regions and not strict.is_defective


def test_a_model_is_the_same_after_loading_and_in_any_company(padim_folder, blotched):
    paths = sorted(blotched.iterdir())
    together = list(Inspector.load(padim_folder).inspect(paths))
    alone = [*Inspector.load(padim_folder).inspect(paths[:1]), *Inspector.load(padim_folder).inspect(paths[1:])]
    for first, second in zip(together, alone, strict=True):
        assert isinstance(first, Inspection) and not isinstance(first, Problem)
        assert first.score == pytest.approx(second.score, rel=1e-5)
        np.testing.assert_allclose(first.anomaly_map, second.anomaly_map, rtol=1e-4)


def test_large_images_are_judged_one_at_once_and_all_of_them(padim_folder, blotched, monkeypatch):
    model, paths = Inspector.load(padim_folder), sorted(blotched.iterdir())
    expected = list(model.inspect(paths))
    monkeypatch.setattr("baselines.contract.method.MAX_PIXELS_AT_ONCE", 64 * 64)
    for one, other in zip(model.inspect(paths), expected, strict=True):
        assert one.score == pytest.approx(other.score, rel=1e-5) and one.path == other.path
        np.testing.assert_allclose(one.anomaly_map, other.anomaly_map, rtol=1e-4, atol=1e-5)


def test_a_batch_goes_to_the_gpu_as_bytes_and_back_at_its_end(padim_folder, blotched):
    paths = sorted(blotched.iterdir())
    here, there = Inspector.load(padim_folder), Inspector.load(padim_folder)
    images = [decode(path, here.size_px) for path in paths]
    expected = here.inspect_decoded(paths, images)
    with pretended_gpu() as gpu:
        there.method.to(gpu.device)
        there.inspect_decoded(paths, images)  # what is made once
        gpu.waits.clear(), gpu.arrivals.clear()
        found = there.inspect_decoded(paths, images)
        assert gpu.arrivals == [(len(paths), here.size_px, here.size_px, 3)]
        assert len(gpu.waits) == 3  # scores, maps and distances
    for first, second in zip(expected, found, strict=True):
        assert first.score == pytest.approx(second.score, rel=1e-4) and first.is_defective == second.is_defective
        np.testing.assert_allclose(first.anomaly_map, second.anomaly_map, rtol=1e-4)


@pytest.fixture
def versions(fused_folder, padim_folder, tmp_path) -> Path:
    """A model, and version 2 beside it, which is of another method."""
    model = shutil.copytree(fused_folder, tmp_path / "nut")
    other = Inspector.load(padim_folder)
    other.metadata |= {"version": 2, "base_version": 1}
    with changing(model):
        add_version(model, 2, other.fill)
    return model


@pytest.mark.parametrize("moment", ["check_parts", "load_any"])
def test_a_model_that_another_takes_the_place_of_is_read_whole(moment, versions, monkeypatch):
    """Right before its parts are compared with what it says of them, and right before they are read."""
    original, has_changed = getattr(inspector_module, moment), []

    def changed(*arguments):
        if not has_changed:
            has_changed.append(promote(versions, 2))
        return original(*arguments)

    monkeypatch.setattr(inspector_module, moment, changed)
    model = Inspector.load(versions)
    assert has_changed and model.metadata["version"] == 2 and type(model.method).__name__ == "PaDiM"
    monkeypatch.setattr(inspector_module, moment, lambda *arguments: (roll_back(versions), promote(versions, 2)))
    with pytest.raises(UserError, match="again and again while it is read"):
        Inspector.load(versions)


def test_how_a_model_decides_is_not_written_over_another_one(versions):
    model = Inspector.load(versions)
    promote(versions, 2)
    before = [(path / "inspector.json").read_bytes() for path in (versions, versions / "versions" / "1")]
    model.decide_at(1e9)
    with pytest.raises(UserError, match="another model by now than the one this was found for"):
        model.save_decision(versions)
    assert [(path / "inspector.json").read_bytes() for path in (versions, versions / "versions" / "1")] == before
    roll_back(versions)
    model.save_decision(versions)
    assert Inspector.load(versions).threshold.value == 1e9


def test_what_is_saved_in_place_of_versions_is_the_next_one(versions, fused_folder, tmp_path):
    promote(versions, 2)
    decided = Inspector.load(versions)
    decided.decide_at(99.0)
    decided.save_decision(versions)
    model = Inspector.load(fused_folder)
    for _ in range(2):  # the second time it is the one that is there
        model.save(versions)
        assert version_in_use(versions) == 3 and Inspector.load(versions).metadata["base_version"] == 3
    stored = {version.number: Inspector.load(version.folder) for version in versions_of(versions)}
    assert sorted(stored) == [1, 2, 3] and stored[2].threshold.value == 99.0
    promote(versions, 2)
    again = {version.number: Inspector.load(version.folder) for version in versions_of(versions)}
    assert {number: each.parts for number, each in again.items()} == {n: each.parts for n, each in stored.items()}
    assert again[3].metadata["version"] == 3


def test_a_damaged_newer_or_older_model_is_a_mistake(padim_folder, tmp_path):
    copied = tmp_path / "model"
    shutil.copytree(padim_folder, copied)
    metadata = json.loads((copied / "inspector.json").read_text())
    (copied / "inspector.json").write_text(json.dumps({**metadata, "format": 99}))
    with pytest.raises(UserError, match="newer heldout"):
        Inspector.load(copied)
    (copied / "inspector.json").write_text(json.dumps({**metadata, "format": 2}))
    with pytest.raises(UserError, match="older heldout.*fit the model again"):
        Inspector.load(copied)
    for damaged in ("{", "[" * 200_000, "[]", json.dumps({**unsealed(metadata), "size_px": None}),
                    json.dumps({**metadata, "minimum_area_px": 1e6})):  # fmt: skip
        (copied / "inspector.json").write_text(damaged)
        with pytest.raises(UserError, match="damaged"):
            Inspector.load(copied)
    (copied / "inspector.json").write_text(json.dumps(metadata))
    weights = (copied / "encoder.safetensors").read_bytes()
    (copied / "encoder.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(UserError, match="damaged"):
        Inspector.load(copied)
