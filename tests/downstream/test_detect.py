"""The command as its users meet it: fitted to good images, run over others, and what it says when all is not well."""

import json
import re

import pytest
import torch
from fitted_models import SMALL, fitted, run_detect

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
            decisions[model, device] = (out / "results.jsonl").read_text().count('"is_defective": true')
    assert decisions["cpu", "cpu"] == decisions["cpu", "cuda"]
    assert decisions["cuda", "cpu"] == decisions["cuda", "cuda"]
