"""Which good images a model is fitted to, and which of other products it learns from."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from fitted_models import SMALL, run_detect
from PIL import Image

from downstream.inspection.config import FitSettings
from downstream.inspection.images import good_images, good_images_given
from downstream.inspection.normals import other_products
from downstream.inspection.triage import ranked
from downstream.methods.catalogue import detect_class
from pretrain.command import Names, UserError
from pretrain.data.channels import ToFind
from pretrain.data.dataset import load
from pretrain.data.decode import decode_array


def test_clear_outliers_are_left_out_named_and_kept_in_mind(mixed, demo_folder, tmp_path, capsys):
    model = tmp_path / "model"
    small = ("--false-alarm-rate", "0.2", *SMALL)
    assert run_detect("fit", "--data", mixed, "--out", model, "--allow-contamination", "0.1", *small) == 0
    words = capsys.readouterr().out
    assert "the worst 1 are left out" in words and f"left out: {mixed / 'sneaked in.png'}" in words
    assert "Were all 1 images left out good, up to 26.2% of good images would be above" in words  # 0.2 * 12/13 + 1/13
    saved = json.loads((model / "inspector.json").read_text())
    (left_out,) = saved["metadata"]["left_out_as_outliers"]
    assert left_out["name"] == "sneaked in.png" and left_out["digest"] not in saved["metadata"]["learned_from"]
    assert saved["metadata"]["allow_contamination"] == 0.1 and saved["metadata"]["normals"] == 12
    # As if it had never been there.
    clean = demo_folder / "hazelnut" / "train" / "good"
    assert run_detect("fit", "--data", clean, "--out", tmp_path / "clean", *small) == 0
    expected = json.loads((tmp_path / "clean" / "inspector.json").read_text())
    assert saved["threshold"]["value"] == pytest.approx(expected["threshold"]["value"])


def test_large_images_are_compared_at_a_size_that_is_bounded(mixed, tmp_path, monkeypatch, capsys):
    """All patches of each with all of each other one would take memory and time by the square."""
    monkeypatch.setattr("downstream.methods.maps.LARGE_PX", 40)
    seen = []
    monkeypatch.setattr(
        "downstream.inspection.normals.ranked", lambda images, _: seen.append(images) or ranked(images, _)
    )
    (tmp_path / "roi.json").write_text('{"ignore": [[[0, 0], [20, 0], [20, 256], [0, 256]]]}')
    options = ("--allow-contamination", "0.1", "--roi", tmp_path / "roi.json", *SMALL)
    assert run_detect("fit", "--data", mixed, "--out", tmp_path / "model", *options) == 0
    words = capsys.readouterr().out
    assert "outliers are told at 40 px" in words and f"left out: {mixed / 'sneaked in.png'}" in words
    (images,) = seen
    assert images.batch([0, 3]).shape == (2, 40, 40, 3)
    whole = load(mixed, 64, allow_plain=True)
    assert np.array_equal(images.batch([3])[0], decode_array(whole.batch([3])[0], 40).pixels)


def test_a_share_allows_leaving_out_and_does_not_demand_it(demo_folder, tmp_path, capsys):
    clean = demo_folder / "hazelnut" / "train" / "good"
    options = ("--allow-contamination", "0.05", *SMALL)  # of 12 images, less than one
    assert run_detect("fit", "--data", clean, "--out", tmp_path / "model", *options) == 0
    words = capsys.readouterr().out
    assert "the worst 0 are left out" in words and "Were all" not in words


@pytest.mark.parametrize(
    ("share", "count", "words"),
    [("0.6", 5, "give 0 or more and less than 0.5"), ("-1", 5, "give 0 or more"), ("0.1", 4, "give 5 or more"),
     ("0.1", 6, "all 6 images are the same")],
)  # fmt: skip
def test_contamination_that_cannot_be_left_out(share, count, words, blotched, tmp_path, capsys):
    folder = tmp_path / "few"
    folder.mkdir()
    for number in range(count):
        shutil.copy(blotched / "a good.png", folder / f"{number}.png")
    arguments = ("--data", folder, "--out", tmp_path / "model", f"--allow-contamination={share}", *SMALL)
    assert run_detect("fit", *arguments) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("form", ["paths", "arrays", "folder"])
def test_the_product_is_none_of_those_to_learn_from_whatever_it_is_called(form, demo_folder, capsys):
    goods = demo_folder / "hazelnut" / "train" / "good"
    paths = sorted(goods.iterdir())
    settings = FitSettings.of(method="mean", train=str(demo_folder))
    given = [np.asarray(Image.open(path)) for path in paths] if form == "arrays" else paths
    normals = good_images(goods, None, 64) if form == "folder" else good_images_given(given, "nuts", 64, ToFind())
    others = other_products(settings, detect_class("mean")(), normals, print)
    assert others.categories == ["bottle", "leather"]
    assert f"left out of {demo_folder}: hazelnut, which holds" in capsys.readouterr().out
    only = replace(settings, train_categories=Names("hazelnut"), method="cam")
    with pytest.raises(UserError, match="holds no other product"):
        other_products(only, detect_class("cam")(), normals, print)
