"""What detect.py fit says of its images, and where its threshold comes from."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fitted_models import SMALL, run_area, run_detect
from PIL import Image
from sklearn.base import clone

from downstream.inspection.config import FitSettings
from downstream.inspection.inspector import Inspector
from pretrain.command import UserError
from pretrain.encoder import Encoder

PYTHONS = {"method": "padim", "size_px": 64, "encoder": "random", "device": "cpu"}
PYTHONS["options"] = {
    "encoder": "random",
    "architecture": "timm/test_resnet",
    "dimensions": 24,
    "grid": 8,
    "neighborhood": 1,
}


def test_a_plain_folder_of_good_images_is_enough(demo_folder, blotched, tmp_path, capsys):
    goods = tmp_path / "goods"
    shutil.copytree(demo_folder / "hazelnut" / "train" / "good", goods)
    assert run_detect("fit", "--data", goods, "--out", tmp_path / "model", "--false-alarm-rate", "0.2", *SMALL) == 0
    printed = capsys.readouterr().out
    assert "12 good images of goods" in printed and "started from random (" in printed
    encoder = json.loads((tmp_path / "model" / "inspector.json").read_text())["metadata"]["encoder"]
    assert encoder["started_from"] == {"name": "random", "fingerprint": encoder["fingerprint"]}
    assert run_detect("run", blotched / "b bad.png", "--model", tmp_path / "model", "--out", tmp_path / "out") == 1


def test_a_defect_among_the_good_ones_is_named(mixed, tmp_path, capsys):
    assert run_detect("fit", "--data", mixed, "--out", tmp_path / "model", *SMALL) == 0
    suspects = [line for line in capsys.readouterr().out.splitlines() if line.startswith("suspicious")]
    assert suspects and "sneaked in.png" in suspects[0]


def test_few_references_take_their_threshold_from_other_categories(demo_folder, tmp_path, capsys):
    data = ("--data", demo_folder, "--category", "hazelnut", "--shots", "2", "--train", demo_folder)
    assert run_detect("fit", *data, "--out", tmp_path / "model", *SMALL) == 0
    assert "training categories" in capsys.readouterr().out


def test_what_was_left_out_sets_no_threshold_later(mixed, tmp_path, capsys):
    model = tmp_path / "model"
    share = ("--validation-share", "0.3", "--allow-contamination", "0.1")
    assert run_detect("fit", "--data", mixed, "--out", model, *share, *SMALL) == 0
    assert run_area("validate", "--model", model, "--data", mixed, "--area", "60") == 0
    # Of 12 that are left 4 are for validation; the outlier is none of them.
    assert "9 of 13 good images" in capsys.readouterr().out


@pytest.fixture(scope="module")
def goods(demo_folder) -> Path:
    return demo_folder / "hazelnut" / "train" / "good"


def test_in_python_images_in_memory_give_the_model_of_the_command(goods, tmp_path, capsys):
    assert run_detect("fit", "--data", goods, "--out", tmp_path / "typed", "--method", "padim", *SMALL) == 0
    printed = capsys.readouterr().out
    expected = Inspector.load(tmp_path / "typed")
    paths = sorted(goods.iterdir())
    model = Inspector.fit(str(goods), **PYTHONS)
    assert (model.threshold, model.metadata["data"]) == (expected.threshold, str(goods))
    assert capsys.readouterr().out == ""  # a library says nothing unasked
    model = Inspector.fit(map(Image.open, paths), category="nut", verbose=True, **PYTHONS)
    assert (model.threshold, model.map_threshold) == (expected.threshold, expected.map_threshold)
    assert model.metadata["learned_from"] == expected.metadata["learned_from"]
    said = capsys.readouterr().out
    assert "12 good images of nut (images in memory), seen at 64 px" in said
    assert "these images are 4.0 times as large as they are seen: a larger --size-px" in said
    assert said.splitlines()[-1] == next(line for line in printed.splitlines() if line.startswith("threshold"))
    model.save(str(tmp_path / "kept"))
    (again,) = Inspector.load(str(tmp_path / "kept")).predict(paths[:1])
    assert again.score == expected.predict(paths[0]).score


def test_large_images_are_seen_larger_where_no_size_is_typed(goods, tmp_path, capsys):
    large = tmp_path / "large"
    large.mkdir()
    for path in sorted(goods.iterdir())[:2]:
        Image.open(path).resize((1040, 832)).save(large / path.name, compress_level=1)
    assert run_detect("fit", "--data", large, "--out", tmp_path / "m", "--method", "mean", "--device", "cpu") == 0
    said = "images of 1040x832 px are seen at 536x432 px: a larger --size-px, or native, finds smaller defects"
    assert said in capsys.readouterr().out
    settings = {"method": "mean", "device": "cpu", "verbose": True}
    assert Inspector.fit(large, **settings).size_px == Inspector.fit(sorted(large.iterdir()), **settings).size_px
    assert said in capsys.readouterr().out
    assert Inspector.fit(large, **settings, size_px=64).size_px == (56, 72)  # who says so is obeyed
    capsys.readouterr()
    assert Inspector.fit([*sorted(large.iterdir()), *sorted(goods.iterdir())[:1]], **settings, size_px=64).size_px
    assert "are larger or smaller than" not in capsys.readouterr().out  # it has another shape
    Image.open(sorted(large.iterdir())[0]).resize((520, 416)).save(large / "small.png")
    Inspector.fit(large, **settings, size_px=64)
    assert "1 of 3 images are larger or smaller than the 1040x832 px of most" in capsys.readouterr().out
    Image.open(sorted(large.iterdir())[0]).resize((780, 624)).save(large / "medium.png")
    assert Inspector.fit(large, **settings, size_px=64).metadata["image_size"] is None  # half of them is not most
    assert "images are of many sizes; all are seen at one" in capsys.readouterr().out
    assert Inspector.fit(goods, **settings).size_px == 384
    assert "images of 256x256 px are seen at 384 px: --size-px sets another size" in capsys.readouterr().out
    Inspector.fit(goods, **settings, size_px=384)
    assert "these images of 256 px are enlarged to 384 px, which takes longer and" in capsys.readouterr().out


def test_an_encoder_can_be_given_as_it_is(goods):
    encoder = Encoder("timm/test_resnet", seed=7)
    model = Inspector.fit(goods, **PYTHONS | {"encoder": encoder, "options": "dimensions=24,grid=8"})
    assert model.method.encoder is encoder and not encoder.training
    assert model.metadata["encoder"]["architecture"] == "timm/test_resnet"


def test_settings_are_cloned_by_scikit_learn_and_fitted_to_again(goods):
    settings = FitSettings.of(**PYTHONS, scales=["0.5", 1], false_alarm_rate=0.2)
    cloned = clone(settings)
    assert cloned == settings and cloned is not settings and settings.scales == ("0.5", "1")
    first, second = (Inspector.fit(goods, **each.get_params()) for each in (settings, cloned))
    assert first.threshold == second.threshold and first.metadata["scales"] == ["0.5", "1"]
    assert Inspector.fit(goods, **replace(settings, scales=()).get_params()).threshold != first.threshold


@pytest.mark.parametrize(
    ("images", "settings", "words"),
    [([], {}, "no good images were given"), ("gone.png", {}, "gone.png: No such file"), (5, {}, "a int is no image"),
     (np.zeros((4, 5, 6, 7)), {}, r"an array of shape \(5, 6, 7\) is no image: give .*\(h, w, 3\) or \(3, h, w\)"),
     (np.zeros((3, 8, 8)), {"sise_px": 64}, "without a setting 'sise_px'; did you mean size_px?"),
     (np.zeros((3, 8, 8)), {"size_px": 4}, "4 px: choose from 8"),
     (np.zeros((3, 8, 8)), {"options": {"dimension": 4}}, "has no option 'dimension'; did you mean dimensions?"),
     (np.zeros((3, 8, 8)), {"options": {"dimensions": "many"}}, "padim's option dimensions must be a whole number"),
     (np.zeros((3, 8, 8)), {"layout": "mvtec"}, "the layout mvtec is that of a folder, and none was given"),
     (np.zeros((3, 8, 8)), {"allow_contamination": 0.7}, "less than 0.5")],
)  # fmt: skip
def test_in_python_a_mistake_is_one_sentence_too(images, settings, words):
    with pytest.raises(UserError, match=words):
        Inspector.fit(images, **PYTHONS | settings)


@pytest.mark.parametrize(
    ("setting", "words"),
    [({"size_px": "32"}, "size_px must be a whole number or one of auto, native, not '32'"),
     ({"size_px": 32.0}, "not 32.0"), ({"size_px": 0}, "0 px: choose from 8"), ({"seed": -1}, "the seed -1 cannot be"),
     ({"seed": True}, "not True"),
     ({"false_alarm_rate": "0.1"}, "false_alarm_rate must be a number, not '0.1'"), ({"method": None}, "must be text"),
     ({"false_alarm_rate": None}, "a number, not None"), ({"minimum_area": "5"}, "minimum_area must be a whole number"),
     ({"options": None}, "options must be text or a dictionary, not None"), ({"options": ["a"]}, "or a dictionary"),
     ({"encoder": 5}, "encoder must be a path, not 5"),
     ({"encoder": "gone.safetensors"}, "there is no encoder file gone"), ({"range": None}, "range must be a list"),
     ({"align": "no"}, "align must be True or False"), ({"category": 5}, "category must be text, not 5")],
)  # fmt: skip
def test_in_python_what_is_of_another_type_is_refused_before_any_image_is_opened(setting, words):
    with pytest.raises(UserError, match=re.escape(words)):
        Inspector.fit("gone.png", **PYTHONS | setting)


def test_in_python_settings_may_be_numpys_numbers_and_one_in_place_of_a_list():
    settings = FitSettings.of(scales=0.5, size_px=np.int64(64), false_alarm_rate=np.float32(0.5), shots=2, range=(0, 9))
    assert (type(settings.size_px), type(settings.false_alarm_rate)) == (int, float)
    assert settings.scales == ("0.5",) and settings.shots == "2" and settings.range == ("0", "9")
