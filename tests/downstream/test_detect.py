"""The command as its users meet it: fitted to good images, run over others, and what it says when all is not well."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fitted_models import SMALL, fitted, run_detect
from PIL import Image

from downstream.inspection.inspector import Inspector
from pretrain.files import read_tensors


def lines_of(out):
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_finds_the_defective_image_and_where(padim_folder, blotched, tmp_path, capsys):
    out = tmp_path / "out"
    assert run_detect("run", blotched, "--model", padim_folder, "--out", out, "--maps") == 1
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
    assert f"drawn: 1 images; of the highest score, {bad['score']:.4g}: {out / bad['image']}" in words.splitlines()
    maps, _ = read_tensors(out / "maps.safetensors")
    assert maps["2"].shape == (64, 64) and maps["2"].max() > maps["1"].max()


def test_a_test_folder_with_labels_gives_figures(padim_folder, demo_folder, tmp_path, capsys):
    out = tmp_path / "out"
    code = run_detect("run", demo_folder / "hazelnut", "--model", padim_folder, "--out", out, "--overlays", "all")
    lines = lines_of(out)
    expected = sum(1 for path in (demo_folder / "hazelnut" / "test").rglob("*.png"))
    assert len(lines) == expected == len(list(out.glob("*.png")))
    assert code == int(any(line["is_defective"] for line in lines))
    words = capsys.readouterr().out
    found = sum(line["is_defective"] and line["label"] != "good" for line in lines)
    assert f"{found} of {sum(line['label'] != 'good' for line in lines)} defective ones found" in words


def test_images_that_cannot_be_read_are_named_and_the_rest_goes_on(padim_folder, blotched, tmp_path, capsys):
    (blotched / "b bad.png").write_bytes(b"not an image")
    assert run_detect("run", blotched, "--model", padim_folder, "--out", tmp_path / "out", "--threshold", "1e9") == 3
    assert len(lines_of(tmp_path / "out")) == 1
    assert "b bad.png" in capsys.readouterr().err


def test_the_only_model_needs_no_name(padim_folder, blotched, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_detect("run", blotched) == 2
    assert "there is no model in models/" in capsys.readouterr().err
    shutil.copytree(padim_folder, tmp_path / "models" / "bolt")
    assert run_detect("run", blotched) == 1
    shutil.copytree(padim_folder, tmp_path / "models" / "nut")
    assert run_detect("run", blotched) == 2
    assert "models/ holds bolt, nut: name one" in capsys.readouterr().err


def test_nothing_defective_is_exit_code_0(padim_folder, blotched, tmp_path):
    assert run_detect("run", blotched, "--model", padim_folder, "--out", tmp_path / "out", "--threshold", "1e9") == 0


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("method", ["patchcore", "residual", "mean"])
def test_every_method_can_be_fitted_and_run(method, demo_folder, blotched, tmp_path):
    options = {"mean": ("--size-px", "64"), "residual": (*SMALL[:-1], "dimensions=16,grid=8", "--train", demo_folder)}
    more = options.get(method, (*SMALL[:-1], "dimensions=16,grid=8"))
    data = ("--data", demo_folder, "--category", "hazelnut", "--shots", "8")
    assert run_detect("fit", *data, "--method", method, "--out", tmp_path / "model", *more) == 0
    assert run_detect("run", blotched, "--model", tmp_path / "model", "--out", tmp_path / "out") in (0, 1)
    good, bad = lines_of(tmp_path / "out")
    assert bad["score"] > good["score"]


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
        (("fit", "--data", "DEMO", "--category", "hazelnut", "--memory-gb", "0.1"), "and --memory-gb allows 0.1"),
        (("run", "x.png", "--model", "MODEL", "--memory-gb", "0.1"), "and --memory-gb allows 0.1"),
        (("run", "x.png", "--model", "nowhere"), "there is no model in nowhere"),
        (("run", "x.png", "--model", "MODEL"), "there is no image and no folder x.png"),
        (("run", "--model", "MODEL"), "no images to inspect"),
        (("walk",), "there is no command walk"),
    ],
)
def test_mistakes_are_one_sentence(arguments, words, padim_folder, demo_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    places = {"DEMO": demo_folder, "MODEL": padim_folder}
    small = SMALL if arguments[0] == "fit" and "--options" not in arguments else SMALL[:4] * (arguments[0] == "fit")
    assert run_detect(*(places.get(word, word) for word in arguments), *small) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error:") and words in error


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_model_fitted_on_one_device_runs_on_the_other_and_decides_alike(demo_folder, tmp_path, capsys):
    folders = {
        device: fitted(tmp_path / device, demo_folder, "fused", "--device", device) for device in ("cpu", "cuda")
    }
    tests, decisions = demo_folder / "hazelnut", {}
    for model, folder in folders.items():
        for device in ("cpu", "cuda"):
            out = tmp_path / f"{model} on {device}"
            run_detect("run", tests, "--model", folder, "--device", device, "--out", out, "--overlays", "none")
            lines = map(json.loads, (out / "results.jsonl").read_text().splitlines())
            decisions[model, device] = {line["path"]: line["is_defective"] for line in lines}
    assert decisions["cpu", "cpu"] == decisions["cpu", "cuda"] and len(decisions["cpu", "cpu"]) > 10
    assert decisions["cuda", "cpu"] == decisions["cuda", "cuda"]


@pytest.fixture
def strips(tmp_path) -> Path:
    """Six good images of 240x100 pixels, textured, and as MVTec AD has them one with a defect on the right."""
    rng = np.random.default_rng(0)
    texture = np.kron(rng.integers(60, 120, (10, 24, 3)), np.ones((10, 10, 1))).astype(np.uint8)
    for number in range(10):
        pixels = (texture + rng.integers(0, 12, texture.shape)).astype(np.uint8)
        split, name = ("train", "good") if number < 8 else ("test", "good" if number < 9 else "blot")
        if name == "blot":
            pixels[30:60, 190:220] = 255
        path = tmp_path / "strip" / split / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "strip"


@pytest.mark.parametrize("method", ["padim", "patchcore", "fused"])
def test_rectangles_keep_their_aspect_and_the_defect_its_position(method, strips, tmp_path, capsys):
    small = ("--method", method, "--size-px", 96, "--options", "encoder=random,dimensions=12")
    assert run_detect("fit", "--data", strips, "--out", tmp_path / "model", *small) == 0
    words = capsys.readouterr().out
    assert "seen at 152x64 px" in words and "times as large" not in words
    out = tmp_path / "out"
    assert run_detect("run", strips, "--model", tmp_path / "model", "--out", out, "--maps") == 1
    assert "out of shape" not in capsys.readouterr().out
    good, bad = sorted(lines_of(out), key=lambda line: line["score"])
    assert bad["label"] == "blot" and good["score"] < bad["score"] and not bad["is_distorted"]
    x, y = bad["regions"][0]["center"]
    assert 180 <= x < 230 and 20 <= y < 70
    maps, _ = read_tensors(out / "maps.safetensors")
    assert maps["1"].shape == (64, 152)


def test_an_image_of_another_shape_is_inspected_with_a_word(padim_folder, strips, tmp_path, capsys):
    run_detect("run", strips, "--model", padim_folder, "--out", tmp_path / "out")
    assert all(line["is_distorted"] for line in lines_of(tmp_path / "out"))
    words = " ".join(capsys.readouterr().out.split())
    assert "2 images were drawn out of shape to the 64 px that the model was fitted to, such as" in words
    model = Inspector.load(padim_folder)
    del model.metadata["aspect"]  # a model of before, which may have been fitted to such strips
    (inspection, _) = model.inspect(sorted((strips / "test").rglob("*.png")))
    assert not inspection.is_distorted


def test_an_image_of_another_size_is_resized_with_a_word(padim_folder, blotched, tmp_path, capsys):
    """The model was fitted to 256 px and sees 64 px of them."""
    small = Image.open(blotched / "b bad.png").resize((100, 100))
    small.save(tmp_path / "small.png")
    options = ("--model", padim_folder, "--out", tmp_path / "out")
    assert run_detect("run", tmp_path / "small.png", blotched / "a good.png", *options) == 1
    first, second = lines_of(tmp_path / "out")
    assert first["has_other_size"] and not first["is_distorted"] and not second["has_other_size"]
    assert max(max(region["box"]) for region in first["regions"]) <= 100  # in the image's own pixels
    words = " ".join(capsys.readouterr().out.split())
    assert (
        "1 images are larger or smaller than the 256 px that the model was fitted to, such as small.png of 100" in words
    )
    model = Inspector.load(padim_folder)
    for said in (None, [0, 256], ["256", "256"], 256):  # of before, or damaged
        model.metadata["image_size"] = said
        assert not model.predict(small).has_other_size


def test_native_size_is_as_large_as_the_images_are(strips, tmp_path, capsys):
    options = ("--method", "patchcore", "--size-px", "native", "--options", "encoder=random,dimensions=12")
    assert run_detect("fit", "--data", strips, "--out", tmp_path / "model", *options) == 0
    assert "seen at 240x100 px" in capsys.readouterr().out
    assert run_detect("run", strips, "--model", tmp_path / "model", "--out", tmp_path / "out", "--maps") == 1
    maps, _ = read_tensors(tmp_path / "out" / "maps.safetensors")
    assert maps["1"].shape == (100, 240)
    with pytest.raises(SystemExit):
        run_detect("fit", "--data", strips, "--size-px", "large")
    assert "whole number or one of auto, native, not 'large'" in capsys.readouterr().err
