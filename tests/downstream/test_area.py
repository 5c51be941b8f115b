"""Deciding by area, as its users meet it: three commands, and a sentence for each mistake."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY
from fitted_models import SMALL, TINY, run_area
from PIL import Image

from downstream.inspection.inspector import Inspector


def test_detect_decides_by_the_area_from_then_on(area_model, demo_folder, tmp_path, capsys):
    image = tmp_path / "bad.png"
    with Image.open(next((demo_folder / "hazelnut" / "test" / "good").iterdir())) as good:
        harmed = good.convert("RGB")
    harmed.paste((255, 0, 255), (100, 60, 140, 110))
    harmed.save(image)
    before = Inspector.load(area_model)
    assert run_area("validate", "--model", area_model, "--data", demo_folder, "--area", "60") == 0
    after = Inspector.load(area_model)
    assert after.threshold == before.threshold and after.normal_scores == before.normal_scores
    assert run_area("run", image, "--model", area_model, "--out", tmp_path / "out") == 1
    assert "regions of 60 px and more" in capsys.readouterr().out
    (line,) = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert found["threshold"] == found["map_threshold"] == after.area_rule.threshold.value < found["score"]
    assert found["is_defective"] and all(region["area_px"] >= 60 for region in found["regions"])
    assert run_area("run", image, "--model", area_model, "--out", tmp_path / "out", "--threshold", found["score"]) == 0
    (line,) = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert json.loads(line)["regions"] == []  # what equals the threshold is good, and shows no region


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("method", ["patchcore", "residual", "mean"])
def test_every_method_with_maps_fits_itself(method, demo_folder, tmp_path):
    more = {
        "mean": ("--size-px", "64"),
        "residual": (*SMALL[:-1], TINY + "dimensions=16,grid=8", "--train", demo_folder),
    }
    words = ("--model", tmp_path / "model", "--data", demo_folder, "--category", "hazelnut")
    options = more.get(method, (*SMALL[:-1], TINY + "dimensions=16,grid=8"))
    assert run_area("validate", *words, "--method", method, "--validation-share", "0.3", "--area", "40", *options) == 0
    assert run_area("test", *words, "--out", tmp_path / "out", "--overlays", "none", "--no-masks") == 0
    assert not (tmp_path / "out" / "masks").exists() and not (tmp_path / "out" / "overlays").exists()


def test_one_held_out_gray_image_of_another_size(area_model, tmp_path, capsys):
    goods = tmp_path / "goods"
    goods.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 90), np.uint8)).save(goods / "gray.png")
    assert run_area("validate", "--model", area_model, "--data", goods, "--area", "100") == 0
    assert "leave out more than one good image" in capsys.readouterr().out
    assert run_area("validate", "--model", area_model, "--data", goods, "--area", "4501") == 2
    assert "4501 px is more than an image of 90x50 has" in capsys.readouterr().err
    assert (
        run_area("finetune", "--model", area_model, "--data", goods, "--out", tmp_path / "out", "--synthetic", "2") == 2
    )
    assert "leave out 2 or more" in capsys.readouterr().err


def test_flat_images(tmp_path):
    """Every map is 0 everywhere, so no region is above the threshold 0."""
    for kind in ("train/good", "test/good", "test/bad"):
        folder = tmp_path / "plate" / kind
        folder.mkdir(parents=True)
        for number in range(4):
            Image.new("L", (40, 30), 128 + number * (kind == "test/bad") * 20).save(folder / f"{number}.png")
    # Equal images are one image: those held out would have been learned from.
    words = ("--model", tmp_path / "model", "--data", tmp_path / "plate")
    assert run_area("validate", *words, "--method", "mean", "--size-px", "32", "--area", "5") == 2
    shutil.move(tmp_path / "plate/test/good", tmp_path / "more")
    Image.new("L", (40, 30), 129).save(tmp_path / "more" / "lighter.png")
    more = ("--model", tmp_path / "model", "--data", tmp_path / "more")
    assert run_area("validate", *more, "--area", "5") == 0
    assert run_area("finetune", *more, "--synthetic", "2", "--out", tmp_path / "out") == 2  # one is left
    Image.new("L", (40, 30), 127).save(tmp_path / "more" / "darker.png")
    assert run_area("finetune", *more, "--synthetic", "2", "--out", tmp_path / "out") == 0
    assert run_area("test", *words, "--out", tmp_path / "tested") == 0
    figures = json.loads((tmp_path / "tested" / "figures.json").read_text())
    assert figures["by area"] == {"true_positive_rate": 0.75, "true_negative_rate": None, "balanced_accuracy": None}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("validate", "--model", "nowhere", "--data", "DEMO", "--area", "5"), "there is no model in nowhere"),
        (("validate", "--model", "MODEL", "--data", "DEMO", "--area", "0"), "--area 0 is no area"),
        (("validate", "--model", "MODEL", "--data", "nowhere", "--area", "5"), "there is no folder nowhere"),
        (("validate", "--model", "MODEL", "--data", "DEMO", "--area", "99999999"), "more than an image of"),
        (("validate", "--model", "MODEL", "--data", "DEMO", "--area", "5", "--false-alarm-rate", "1"),
         "false-alarm rate of 1.0"),
        (("validate", "--model", "MODEL", "--data", "GOODS", "--area", "5"), "test images, which may set no"),
        (("validate", "--model", "MODEL", "--data", "OKS", "--area", "5"), "test images, which may set no"),
        (("validate", "--model", "MODEL", "--data", "DEMO", "--area", "5", "--layout", "visa"), "images as"),
        (("validate", "--model", "NEW", "--data", "DEMO", "--category", "bottle", "--method", "men", "--area", "5"),
         "did you mean mean"),
        (("validate", "--model", "NEW", "--data", "DEMO", "--method", "mean", "--area", "5"), "--category"),
        (("validate", "--model", "NEW", "--data", "DEMO", "--method", "mean", "--area", "5", "--validation-share", "0"),
         "with --validation-share 0 no good image"),
        (("validate", "--model", "NEW", "--data", "DEMO", "--category", "bottle", "--method", "mean", "--area", "5",
          "--validation-share", "1"), "--validation-share 1 cannot be"),
        (("finetune", "--model", "MODEL", "--data", "DEMO", "--synthetic", "0"), "--synthetic 0 compares nothing"),
        (("test", "--model", "MODEL", "--data", "DEMO"), "has no minimum area yet"),
        (("test", "--model", "MODEL", "--data", "DEMO", "--area", "5"), "has no minimum area yet"),
        (("test", "--model", "MODEL", "--data", "nowhere", "--area", "5", "--threshold", "1"), "no folder nowhere"),
        (("test", "--model", "MODEL", "--data", "GOODS", "--area", "5", "--threshold", "1"), "does not say which"),
        (("fit", "--data", "DEMO", "--category", "bottle", "--method", "mean", "--minimum-area", "5"),
         "--minimum-area needs a threshold for maps"),
        (("tset",), "did you mean test"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(arguments, words, area_folder, demo_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    goods = demo_folder / "hazelnut" / "test" / "good"
    places = {"DEMO": demo_folder, "MODEL": area_folder, "GOODS": goods, "NEW": tmp_path / "new"}
    if "OKS" in arguments:  # as BTAD has it
        places["OKS"] = shutil.copytree(goods, tmp_path / "01/test/ok")
    assert run_area(*(places.get(word, word) for word in arguments)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error:") and words in error


def test_another_area_needs_another_threshold(validated, demo_folder, tmp_path, capsys):
    words = ("test", "--model", validated, "--data", demo_folder, "--out", tmp_path / "out", "--overlays", "none")
    assert run_area(*words, "--area", "70") == 2
    assert "is for 60 px, not 70" in capsys.readouterr().err
    assert run_area(*words, "--area", "60") == 0
    assert run_area(*words, "--area", "70", "--threshold", "1e9") == 0
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert figures["by area"]["true_positive_rate"] == 0 and figures["minimum_area_px"] == 70
    assert Inspector.load(validated).area_rule.minimum_area_px == 60


@pytest.mark.slow
def test_runs_as_a_program(area_folder, demo_folder, tmp_path):
    model = shutil.copytree(area_folder, tmp_path / "model")
    words = ("validate", "--model", model, "--data", demo_folder, "--area", "50", "--false-alarm-rate", "0.2")
    done = subprocess.run(
        [sys.executable, REPOSITORY / "downstream/area.py", *map(str, words)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "a region of 50 px above" in done.stdout
    assert Inspector.load(model).area_rule.threshold.false_alarm_rate == 0.2
