"""Deciding by area: the choice against naive references, and the commands as their users meet them."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from PIL import Image
from scipy.ndimage import label

from baselines.contract.method import Prediction
from baselines.trivial import MeanImage
from downstream import area
from downstream.detect import run
from downstream.inspection.area_choice import (
    AreaRow,
    ValidationImages,
    area_table,
    area_threshold,
    maps_of,
    recommended,
    threshold_rows,
)
from downstream.inspection.area_plots import regions_chart, sizes_chart
from downstream.inspection.config import AreaFinetune, AreaTest, AreaValidate, Fit, Run
from downstream.inspection.fitting import fit
from downstream.inspection.images import good_images
from downstream.inspection.inspector import Inspector
from pretrain.command import UserError, run_commands
from pretrain.data.dataset import ImageSet
from pretrain.data.decode import read_mask

COMMANDS = {"finetune": (area.finetune, AreaFinetune), "validate": (area.validate, AreaValidate)}
COMMANDS |= {"test": (area.test, AreaTest), "fit": (fit, Fit), "run": (run, Run)}
SMALL = ("--size-px", "64", "--encoder", "random", "--options", "dimensions=24,grid=8,neighborhood=1")


def typed(*arguments: object) -> int:
    return run_commands(COMMANDS, list(map(str, arguments)))


@pytest.fixture(scope="module")
def fitted(demo_folder, tmp_path_factory):
    """8 of 12 good images were learned from."""
    folder = tmp_path_factory.mktemp("models") / "hazelnut"
    words = ("--data", demo_folder, "--category", "hazelnut", "--validation-share", "0.33", "--out", folder)
    assert typed("fit", *words, *SMALL) == 0
    return folder


@pytest.fixture
def model(fitted, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(fitted, tmp_path / "model")


@pytest.fixture
def validated(model, demo_folder):
    assert typed("validate", "--model", model, "--data", demo_folder, "--area", "60") == 0
    return model


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


def test_detect_decides_by_the_area_from_then_on(model, demo_folder, tmp_path, capsys):
    image = tmp_path / "bad.png"
    with Image.open(next((demo_folder / "hazelnut" / "test" / "good").iterdir())) as good:
        harmed = good.convert("RGB")
    harmed.paste((255, 0, 255), (100, 60, 140, 110))
    harmed.save(image)
    before = Inspector.load(model)
    assert typed("validate", "--model", model, "--data", demo_folder, "--area", "60") == 0
    after = Inspector.load(model)
    assert after.threshold == before.threshold and after.normal_scores == before.normal_scores
    assert typed("run", image, "--model", model, "--out", tmp_path / "out") == 1
    assert "regions of 60 px and more" in capsys.readouterr().out
    (line,) = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert found["threshold"] == found["map_threshold"] == after.area_rule.threshold.value < found["score"]
    assert found["is_defective"] and all(region["area_px"] >= 60 for region in found["regions"])
    assert typed("run", image, "--model", model, "--out", tmp_path / "out", "--threshold", found["score"]) == 0
    (line,) = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert json.loads(line)["regions"] == []  # what equals the threshold is good, and shows no region


def test_a_image_is_defective_if_and_only_if_it_has_a_region(validated, demo_folder, tmp_path):
    out = tmp_path / "out"
    words = ("--model", validated, "--data", demo_folder, "--out", out, "--overlays", "all")
    assert typed("test", *words) == 0
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    files = sorted((demo_folder / "hazelnut" / "test").rglob("*.png"))
    assert len(lines) == len(files) > 6
    for line in lines:
        assert line["is_defective"] == (line["score"] > line["threshold"]) == bool(line["regions"])
        called = read_mask(out / line["segmentation"]) if line["regions"] else np.zeros(0, bool)
        assert called.any() == line["is_defective"]
    names = [path.relative_to(demo_folder / "hazelnut" / "test") for path in files]
    for folder in ("masks", "overlays"):
        assert sorted(path.relative_to(out / folder) for path in (out / folder).rglob("*.png")) == names
    with Image.open(out / "masks" / names[0]) as mask, Image.open(files[0]) as image:
        assert mask.size == image.size
    figures = json.loads((out / "figures.json").read_text())
    bad = [line for line in lines if line["label"] != "good"]
    good = [line for line in lines if line["label"] == "good"]
    found, passed = (sum(line["is_defective"] for line in bad), sum(not line["is_defective"] for line in good))
    assert figures["confusion"] == {
        "found": found, "missed": len(bad) - found, "true_good": passed, "false_alarms": len(good) - passed,
    }  # fmt: skip
    rates = [found / len(bad), passed / len(good), (found / len(bad) + passed / len(good)) / 2]
    assert list(figures["by area"].values()) == pytest.approx(rates)
    assert list(figures["all called good"].values()) == [0, 1, 0.5]
    assert list(figures["all called defective"].values()) == [1, 0, 0.5]
    assert sum(part["images"] for part in figures["defects"].values()) == len(lines)
    assert 0 <= figures["masks"]["iou"] <= 1 and figures["masks"]["images"] == len(bad)


def test_iou_counts_the_pixels_of_the_masks_written(validated, demo_folder, tmp_path):
    assert typed("test", "--model", validated, "--data", demo_folder, "--out", tmp_path, "--threshold", "0.1") == 0
    both = either = 0
    for line in map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines()):
        called = np.asarray(Image.open(tmp_path / line["segmentation"])).astype(bool)
        stem = line["segmentation"].split("/")[-1].removesuffix(".png")
        of_kind = demo_folder / "hazelnut" / "ground_truth" / line["label"]
        truth = read_mask(of_kind / f"{stem}_mask.png") if of_kind.is_dir() else np.zeros_like(called)
        both, either = both + (called & truth).sum(), either + (called | truth).sum()
    assert both > 0
    assert json.loads((tmp_path / "figures.json").read_text())["masks"]["iou"] == pytest.approx(both / either)


def test_finetune_draws_and_recommends(model, demo_folder, tmp_path, capsys):
    out = tmp_path / "out"
    words = ("--model", model, "--data", demo_folder, "--synthetic", "10", "--out", out)
    assert typed("finetune", *words) == 0
    said = capsys.readouterr().out
    found = json.loads((out / "finetune.json").read_text())
    assert f"--area {found['recommended_area_px']}" in said and "8 of 12 good images were learned from" in said
    best = max(row["balanced_accuracy"] for row in found["areas"])
    firsts = [row["area_px"] for row in found["areas"] if row["balanced_accuracy"] == best]
    assert found["recommended_area_px"] == min(firsts)
    with open(out / "areas.csv", newline="") as file:
        assert [int(row["area_px"]) for row in csv.DictReader(file)] == [row["area_px"] for row in found["areas"]]
    for name in ("regions", "sizes", "areas", "samples"):
        with Image.open(out / f"{name}.png") as drawn:
            assert min(drawn.size) > 200
    assert Inspector.load(model).area_rule is None  # to recommend is not to decide
    again = tmp_path / "again"
    assert typed("finetune", *words[:-1], again) == 0
    assert (again / "areas.csv").read_text() == (out / "areas.csv").read_text()


@pytest.mark.parametrize("method", ["patchcore", "residual", "mean"])
def test_every_method_with_maps_fits_itself(method, demo_folder, tmp_path):
    more = {"mean": ("--size-px", "64"), "residual": (*SMALL[:-1], "dimensions=16,grid=8", "--train", demo_folder)}
    words = ("--model", tmp_path / "model", "--data", demo_folder, "--category", "hazelnut")
    options = more.get(method, (*SMALL[:-1], "dimensions=16,grid=8"))
    assert typed("validate", *words, "--method", method, "--validation-share", "0.3", "--area", "40", *options) == 0
    assert typed("test", *words, "--out", tmp_path / "out", "--overlays", "none", "--no-masks") == 0
    assert not (tmp_path / "out" / "masks").exists() and not (tmp_path / "out" / "overlays").exists()


def test_one_held_out_gray_image_of_another_size(model, tmp_path, capsys):
    goods = tmp_path / "goods"
    goods.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 90), np.uint8)).save(goods / "gray.png")
    assert typed("validate", "--model", model, "--data", goods, "--area", "100") == 0
    assert "leave out more good images than one" in capsys.readouterr().out
    assert typed("validate", "--model", model, "--data", goods, "--area", "4501") == 2
    assert "4501 px is more than an image of 90x50 has" in capsys.readouterr().err
    assert typed("finetune", "--model", model, "--data", goods, "--out", tmp_path / "out", "--synthetic", "2") == 2
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
    assert typed("validate", *words, "--method", "mean", "--size-px", "32", "--area", "5") == 2
    shutil.move(tmp_path / "plate/test/good", tmp_path / "more")
    Image.new("L", (40, 30), 129).save(tmp_path / "more" / "lighter.png")
    more = ("--model", tmp_path / "model", "--data", tmp_path / "more")
    assert typed("validate", *more, "--area", "5") == 0
    assert typed("finetune", *more, "--synthetic", "2", "--out", tmp_path / "out") == 2  # one is left
    Image.new("L", (40, 30), 127).save(tmp_path / "more" / "darker.png")
    assert typed("finetune", *more, "--synthetic", "2", "--out", tmp_path / "out") == 0
    assert typed("test", *words, "--out", tmp_path / "tested") == 0
    figures = json.loads((tmp_path / "tested" / "figures.json").read_text())
    assert figures["by area"] == {"true_positive_rate": 0.75, "true_negative_rate": None, "balanced_accuracy": None}


def test_a_image_smaller_than_the_area_is_named_and_the_rest_goes_on(validated, demo_folder, tmp_path, capsys):
    data = tmp_path / "hazelnut"
    shutil.copytree(demo_folder / "hazelnut" / "test", data / "test")
    Image.new("RGB", (7, 7)).save(data / "test" / "good" / "tiny.png")
    (data / "test" / "good" / "broken.png").write_bytes(b"no image")
    assert typed("test", "--model", validated, "--data", data, "--out", tmp_path / "out") == 0
    words = capsys.readouterr()
    assert "60 px is more than an image of 7x7 has" in words.err and "2 images could not be inspected" in words.out
    problems = json.loads((tmp_path / "out" / "figures.json").read_text())["problems"]
    assert [problem["path"].rsplit("/")[-1] for problem in problems] == ["broken.png", "tiny.png"]


def test_images_of_one_name_keep_their_masks_apart(validated, demo_folder, tmp_path):
    data = tmp_path / "hazelnut" / "test" / "good"
    data.mkdir(parents=True)
    first, second = sorted((demo_folder / "hazelnut" / "test" / "good").iterdir())[:2]
    for path, name in ((first, "a.jpg"), (second, "a.png")):
        with Image.open(path) as image:
            image.convert("RGB").save(data / name)
    assert typed("test", "--model", validated, "--data", data.parents[1], "--out", tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out/masks/good").iterdir()) == ["a.png", "a.png.png"]


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
def test_mistakes_are_one_sentence(arguments, words, fitted, demo_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    goods = demo_folder / "hazelnut" / "test" / "good"
    places = {"DEMO": demo_folder, "MODEL": fitted, "GOODS": goods, "NEW": tmp_path / "new"}
    assert typed(*(places.get(word, word) for word in arguments)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error:") and words in error


def test_normals_that_were_learned_from_are_refused(demo_folder, tmp_path, capsys):
    words = ("--data", demo_folder, "--category", "hazelnut")
    assert typed("fit", *words, "--out", tmp_path, "--method", "mean", "--size-px", "64") == 0
    assert typed("validate", *words, "--model", tmp_path, "--area", "5") == 2
    assert "learned from all 12 good images" in capsys.readouterr().err
    metadata = json.loads((tmp_path / "inspector.json").read_text())
    del metadata["metadata"]["learned_from"]
    (tmp_path / "inspector.json").write_text(json.dumps(metadata))
    assert typed("validate", *words, "--model", tmp_path, "--area", "5") == 0
    assert "does not say which images it learned from" in capsys.readouterr().err


def test_another_area_needs_another_threshold(validated, demo_folder, tmp_path, capsys):
    words = ("test", "--model", validated, "--data", demo_folder, "--out", tmp_path / "out", "--overlays", "none")
    assert typed(*words, "--area", "70") == 2
    assert "is for 60 px, not 70" in capsys.readouterr().err
    assert typed(*words, "--area", "60") == 0
    assert typed(*words, "--area", "70", "--threshold", "1e9") == 0
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert figures["by area"]["true_positive_rate"] == 0 and figures["minimum_area_px"] == 70
    assert Inspector.load(validated).area_rule.minimum_area_px == 60


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


def test_runs_as_a_program(fitted, demo_folder, tmp_path):
    model = shutil.copytree(fitted, tmp_path / "model")
    words = ("validate", "--model", model, "--data", demo_folder, "--area", "50", "--false-alarm-rate", "0.2")
    done = subprocess.run(
        [sys.executable, REPOSITORY / "downstream/area.py", *map(str, words)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "a region of 50 px above" in done.stdout
    assert Inspector.load(model).area_rule.threshold.false_alarm_rate == 0.2
