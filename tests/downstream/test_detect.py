"""The command as its users meet it: fitted to good images, run over others, and what it says when all is not well."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from baselines.contract.regions import Region
from downstream.detect import run
from downstream.inspection.config import Fit, Run
from downstream.inspection.fitting import fit
from downstream.inspection.inspector import Inspection, Inspector
from downstream.inspection.overlay import overlay
from pretrain.command import UserError, run_commands
from pretrain.data.images import Problem
from pretrain.files import read_tensors

COMMANDS = {"fit": (fit, Fit), "run": (run, Run)}
SMALL = ("--size-px", "64", "--encoder", "random", "--options", "dimensions=24,grid=8,neighborhood=1")


def detect(*arguments: object) -> int:
    return run_commands(COMMANDS, list(map(str, arguments)))


@pytest.fixture(scope="module")
def model(demo_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "hazelnut"
    assert detect("fit", "--data", demo_folder, "--category", "hazelnut", "--out", folder, *SMALL) == 0
    return folder


@pytest.fixture
def blotched(demo_folder, tmp_path):
    """A folder of two good images, one of which was given a blatant defect, at a place that is known."""
    folder = tmp_path / "line 3"
    folder.mkdir()
    paths = sorted((demo_folder / "hazelnut" / "test" / "good").iterdir())[:2]
    shutil.copy(paths[0], folder / "a good.png")
    image = Image.open(paths[1]).convert("RGB")
    image.paste((255, 0, 255), (100, 60, 140, 110))
    image.save(folder / "b bad.png")
    return folder


def lines_of(out):
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_finds_the_defective_image_and_where(model, blotched, tmp_path, capsys):
    out = tmp_path / "out"
    assert detect("run", blotched, "--model", model, "--out", out, "--maps") == 1
    good, bad = lines_of(out)
    assert not good["is_defective"] and bad["is_defective"]
    assert bad["score"] > bad["threshold"] > good["score"] > 0
    assert 0.5 <= good["confidence"] <= 1 and bad["confidence"] > 0.9
    left, top, right, bottom = bad["regions"][0]["box"]
    assert left < 140 and right > 100 and top < 110 and bottom > 60
    assert abs(bad["regions"][0]["center"][0] - 120) < 32 and abs(bad["regions"][0]["center"][1] - 85) < 32
    assert (out / bad["image"]).is_file() and "image" not in good
    words = capsys.readouterr().out
    unfolded = re.sub(r"[\s│]", "", words)  # a long path goes over several lines of the table
    assert "DEFECTIVE" in words and "bbad.png" in unfolded
    assert "by the folder's labels" not in words
    maps, _ = read_tensors(out / "maps.safetensors")
    assert maps["2"].shape == (64, 64) and maps["2"].max() > maps["1"].max()


def test_a_test_folder_with_labels_gives_figures(model, demo_folder, tmp_path, capsys):
    out = tmp_path / "out"
    code = detect("run", demo_folder / "hazelnut", "--model", model, "--out", out, "--overlays", "all")
    lines = lines_of(out)
    expected = sum(1 for path in (demo_folder / "hazelnut" / "test").rglob("*.png"))
    assert len(lines) == expected == len(list(out.glob("*.png")))
    assert code == int(any(line["is_defective"] for line in lines))
    words = capsys.readouterr().out
    found = sum(line["is_defective"] and line["label"] != "good" for line in lines)
    assert f"{found} of {sum(line['label'] != 'good' for line in lines)} defective ones found" in words


def test_images_that_cannot_be_read_are_named_and_the_rest_goes_on(model, blotched, tmp_path, capsys):
    (blotched / "b bad.png").write_bytes(b"not an image")
    assert detect("run", blotched, "--model", model, "--out", tmp_path / "out", "--threshold", "1e9") == 3
    assert len(lines_of(tmp_path / "out")) == 1
    assert "b bad.png" in capsys.readouterr().err


def test_nothing_defective_is_exit_code_0(model, blotched, tmp_path):
    assert detect("run", blotched, "--model", model, "--out", tmp_path / "out", "--threshold", "1e9") == 0


def test_a_plain_folder_of_good_images_is_enough(demo_folder, blotched, tmp_path, capsys):
    goods = tmp_path / "goods"
    shutil.copytree(demo_folder / "hazelnut" / "train" / "good", goods)
    assert detect("fit", "--data", goods, "--out", tmp_path / "model", "--false-alarm-rate", "0.2", *SMALL) == 0
    assert "12 good images of goods" in capsys.readouterr().out
    assert detect("run", blotched / "b bad.png", "--model", tmp_path / "model", "--out", tmp_path / "out") == 1


def test_a_defect_among_the_good_ones_is_named(demo_folder, blotched, tmp_path, capsys):
    goods = tmp_path / "goods"
    shutil.copytree(demo_folder / "hazelnut" / "train" / "good", goods)
    shutil.copy(blotched / "b bad.png", goods / "sneaked in.png")
    assert detect("fit", "--data", goods, "--out", tmp_path / "model", *SMALL) == 0
    suspects = [line for line in capsys.readouterr().out.splitlines() if line.startswith("suspicious")]
    assert suspects and "sneaked in.png" in suspects[0]


@pytest.mark.parametrize("method", ["patchcore", "residual", "mean"])
def test_every_method_can_be_fitted_and_run(method, demo_folder, blotched, tmp_path):
    options = {"mean": ("--size-px", "64"), "residual": (*SMALL[:-1], "dimensions=16,grid=8", "--train", demo_folder)}
    more = options.get(method, (*SMALL[:-1], "dimensions=16,grid=8"))
    data = ("--data", demo_folder, "--category", "hazelnut", "--shots", "8")
    assert detect("fit", *data, "--method", method, "--out", tmp_path / "model", *more) == 0
    assert detect("run", blotched, "--model", tmp_path / "model", "--out", tmp_path / "out") in (0, 1)
    good, bad = lines_of(tmp_path / "out")
    assert bad["score"] > good["score"]


def test_few_references_take_their_threshold_from_other_categories(demo_folder, tmp_path, capsys):
    data = ("--data", demo_folder, "--category", "hazelnut", "--shots", "2", "--train", demo_folder)
    assert detect("fit", *data, "--out", tmp_path / "model", *SMALL) == 0
    assert "training categories" in capsys.readouterr().out


def test_a_minimum_area_drops_small_regions(model, blotched, tmp_path):
    inspector = Inspector.load(model)
    (_, usual) = inspector.inspect(sorted(blotched.iterdir()))
    assert usual.is_defective and usual.regions
    inspector.minimum_area_px = max(region.area_px for region in usual.regions) + 1
    (_, strict) = inspector.inspect(sorted(blotched.iterdir()))
    assert strict.score == usual.score and not strict.regions and not strict.is_defective


def test_a_model_is_the_same_after_loading_and_in_any_company(model, blotched):
    paths = sorted(blotched.iterdir())
    together = list(Inspector.load(model).inspect(paths))
    alone = [*Inspector.load(model).inspect(paths[:1]), *Inspector.load(model).inspect(paths[1:])]
    for first, second in zip(together, alone, strict=True):
        assert isinstance(first, Inspection) and not isinstance(first, Problem)
        assert first.score == pytest.approx(second.score, rel=1e-5)
        np.testing.assert_allclose(first.anomaly_map, second.anomaly_map, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fit", "--data", "DEMO", "--category", "hazlnut"), "did you mean hazelnut"),
        (("fit", "--data", "DEMO"), "choose one with --category"),
        (("fit", "--data", "nowhere"), "there is no folder nowhere"),
        (("fit", "--data", "DEMO", "--category", "hazelnut", "--method", "padin"), "did you mean padim"),
        (("fit", "--data", "DEMO", "--category", "hazelnut", "--options", "dimension=3"), "did you mean dimensions"),
        (("fit", "--data", "DEMO", "--category", "hazelnut", "--shots", "99"), "there are 12 normals"),
        (("fit", "--data", "DEMO", "--category", "hazelnut", "--false-alarm-rate", "2"), "false-alarm rate of 2"),
        (("fit", "--data", "DEMO", "--category", "hazelnut", "--method", "residual"), "learns from others"),
        (("run", "x.png", "--model", "nowhere"), "there is no model in nowhere"),
        (("run", "x.png", "--model", "MODEL"), "there is no image and no folder x.png"),
        (("run", "--model", "MODEL"), "no images to inspect"),
        (("walk",), "there is no command walk"),
    ],
)
def test_mistakes_are_one_sentence(arguments, words, model, demo_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    places = {"DEMO": demo_folder, "MODEL": model}
    small = SMALL if arguments[0] == "fit" and "--options" not in arguments else SMALL[:4] * (arguments[0] == "fit")
    assert detect(*(places.get(word, word) for word in arguments), *small) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error:") and words in error


def test_a_damaged_newer_or_older_model_is_a_mistake(model, tmp_path):
    copied = tmp_path / "model"
    shutil.copytree(model, copied)
    metadata = json.loads((copied / "inspector.json").read_text())
    (copied / "inspector.json").write_text(json.dumps({**metadata, "format": 99}))
    with pytest.raises(UserError, match="newer heldout"):
        Inspector.load(copied)
    (copied / "inspector.json").write_text(json.dumps({**metadata, "format": 2}))
    with pytest.raises(UserError, match="older heldout.*fit the model again"):
        Inspector.load(copied)
    (copied / "inspector.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        Inspector.load(copied)
    (copied / "inspector.json").write_text(json.dumps(metadata))
    weights = (copied / "encoder.safetensors").read_bytes()
    (copied / "encoder.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(UserError, match="damaged"):
        Inspector.load(copied)


def test_overlay_is_drawn_at_the_images_shape_with_its_boxes():
    pixels = np.zeros((100, 50, 3), np.uint8)
    anomaly_map = np.zeros((10, 10), np.float32)
    anomaly_map[2:4, 2:4] = 2.0
    region = Region(200, (10, 20, 20, 40), 2.0, (15, 30))
    drawn = np.asarray(overlay(pixels, anomaly_map, 1.0, [region], "DEFECTIVE", True, shown_px=100))
    assert drawn.shape[0] > 100 and drawn.shape[1] >= 2 * 50
    boxed = (drawn[:100, 56:106] == (255, 45, 85)).all(axis=2)
    assert boxed[20, 12] and boxed[39, 12] and not boxed[10, 12]
    plain = np.asarray(overlay(pixels, None, None, [], "good", False, shown_px=100))
    assert plain.shape[1] < drawn.shape[1] or plain.shape[1] == 260
