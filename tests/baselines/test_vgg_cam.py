"""The CAM's commands as their users meet them, and that a run which is killed ends as if it had not been."""

import json
import signal
from pathlib import Path

import pytest
import torch
from event_files import tracked
from PIL import Image
from stopping import Killed, kill, stop_after

from baselines import vgg_cam
from baselines.cam import config
from baselines.cam.training import CamTraining
from downstream.detect import run
from downstream.inspection.config import Fit, Run
from downstream.inspection.fitting import fit
from pretrain.command import run_commands
from pretrain.data.dataset import load
from pretrain.files import read_tensors

COMMANDS = {"train": (vgg_cam.train, config.Train), "test": (vgg_cam.test, config.Test)}
TINY = ("--weights", "random", "--width", "0.0625", "--size-px", "32", "--batch-size", "8", "--learning-rate", "1e-3")


def vgg(*arguments: object) -> int:
    return run_commands(COMMANDS, list(map(str, arguments)))


@pytest.fixture(scope="module")
def trained(demo_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "vgg"
    options = ("--data", demo_folder, "--train", "hazelnut,leather", "--epochs", 3, *TINY, "--track", "tensorboard")
    assert vgg("train", *options, "--out", out) == 0
    return out


def test_train_leaves_a_run_folder(trained):
    names = {path.name for path in trained.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "curves.png", "model", "calibration.json", "finished"} <= names
    assert tracked(trained)["images"] == ["curves", "maps"] and "loss" in tracked(trained)["scalars"]
    assert not names & {"checkpoint.safetensors", "best.safetensors"} and not list(trained.glob("frozen*"))
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    ends = [line for line in lines if "epoch" in line]
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == list(range(len(steps))) and [e["epoch"] for e in ends] == [0, 1, 2]
    best = min(ends, key=lambda line: line["validation_loss"])["epoch"]
    assert json.loads((trained / "calibration.json").read_text())["best_epoch"] == best


def test_test_prints_both_readings_and_leaves_images(trained, demo_folder, capsys, tmp_path):
    done = vgg("test", "--data", demo_folder, "--test", "bottle", "--model", trained, "--out", tmp_path)
    assert done == 0
    printed = capsys.readouterr().out
    assert "from scratch" in printed and "demo data" in printed and "always good" in printed
    assert "as published" in printed and ".702" in printed and ".893" in printed and ".409" in printed
    result = json.loads((tmp_path / "results.json").read_text())
    figures = result["figures"]["calibrated"]["all"]
    count = sum(figures[name] for name in ("true_good", "false_alarms", "missed", "found"))
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert count == len(lines) == len(load(demo_folder, 32, ("bottle",)))
    called = sum(line["is_called"] for line in lines)
    assert called == figures["false_alarms"] + figures["found"]
    assert result["always_good"][0]["recall"] == 0 and result["published"][1]["positive"] == "good"
    for name in ("confusion.png", "predictions.png"):
        with Image.open(tmp_path / name) as image:
            assert image.size[0] > 300


def test_test_of_the_test_folders_alone(trained, demo_folder, capsys, tmp_path):
    options = ("--data", demo_folder, "--test", "bottle", "--model", trained, "--out", tmp_path)
    assert vgg("test", *options, "--images", "test") == 0
    tests = [record for record in load(demo_folder, 32, ("bottle",)).records if record.split == "test"]
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == len(tests)


def test_user_errors_are_one_sentence(trained, demo_folder, capsys, tmp_path):
    wrong = [
        (("test", "--data", demo_folder, "--test", "leather", "--model", trained), "was trained on"),
        (("test", "--data", demo_folder, "--test", "bottel", "--model", trained), "did you mean bottle"),
        (("test", "--data", demo_folder, "--model", tmp_path / "none"), "no finished training"),
        (("train", "--data", tmp_path / "none", "--train", "leather", *TINY), "there is no folder"),
        (("train", "--data", demo_folder, "--train", "bottle", *TINY, "--epochs", 0, "--out", tmp_path / "a"), "above"),
        (("train", "--data", demo_folder, "--train", "bottle", *TINY, "--size-px", 16, "--out", tmp_path / "b"),
         "too small"),
        (("train", "--data", demo_folder, "--train", "bottle", "--weights", "x.pth", "--out", tmp_path / "c"),
         "no file"),
        (("train", "--data", demo_folder, "--train", "hazelnut", *TINY, "--out", trained), "other options"),
    ]  # fmt: skip
    for arguments, words in wrong:
        assert vgg(*arguments) == 2, arguments
        (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error")]
        assert words in line
    assert not any((tmp_path / name).exists() for name in "abc"), "a folder must stay free for the mended command"


def assert_same_run(whole: Path, resumed: Path) -> None:
    ours, theirs = (read_tensors(folder / "model/method.safetensors")[0] for folder in (whole, resumed))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (whole / "metrics.jsonl").read_text() == (resumed / "metrics.jsonl").read_text()


def test_another_backbone_with_imagenets_weights(demo_folder, capsys, tmp_path):
    options = ("--train", "hazelnut", "--architecture", "efficientnet_lite0", "--epochs", 1, "--size-px", 32)
    assert vgg("train", "--data", demo_folder, *options, "--out", tmp_path / "run") == 0
    assert "CAM on efficientnet_lite0 from imagenet, all levels but the last frozen" in capsys.readouterr().out
    test = ("test", "--data", demo_folder, "--test", "bottle", "--model", tmp_path / "run", "--out", tmp_path / "out")
    assert vgg(*test) == 0
    assert "CAM on efficientnet_lite0, imagenet: trained on hazelnut" in " ".join(capsys.readouterr().out.split())
    calibration = tmp_path / "run/calibration.json"
    metadata = json.loads(calibration.read_text())
    assert metadata["weights_saw"] == []
    calibration.write_text(json.dumps({**metadata, "weights_saw": ["bottle"]}))
    assert vgg(*test) == 2 and "bottle was trained on" in capsys.readouterr().err


def test_killed_and_resumed_is_bit_identical(demo_folder, tmp_path, capsys, monkeypatch):
    options = ["train", "--data", demo_folder, "--train", "hazelnut", *TINY, "--epochs", "4", "--out"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert vgg(*options, whole, "--checkpoint-minutes", 0) == 0
    with monkeypatch.context() as patched, pytest.raises(Killed):
        stop_after(5, kill, patched)
        vgg(*options, killed, "--checkpoint-minutes", 0)
    assert (killed / "checkpoint.safetensors").exists() and not (killed / "finished").exists()
    capsys.readouterr()
    assert vgg(*options, killed, "--checkpoint-minutes", 0) == 0
    assert "resuming after step" in capsys.readouterr().err
    assert_same_run(whole, killed)


@pytest.mark.slow
def test_stopped_with_frozen_layers_and_resumed_is_bit_identical(demo_folder, tmp_path, weights_file, monkeypatch):
    """Of the published width: what the frozen layers gave is kept, and is gone in the end."""
    options = ["train", "--data", demo_folder, "--train", "hazelnut", "--weights", weights_file, "--size-px", 32,
               "--epochs", 3, "--batch-size", 16, "--out"]  # fmt: skip
    assert vgg(*options, tmp_path / "whole") == 0
    take_step = CamTraining.step

    def step_and_stop(training, step):
        if step == 2:
            signal.raise_signal(signal.SIGTERM)
        return take_step(training, step)

    with monkeypatch.context() as patched:
        patched.setattr(CamTraining, "step", step_and_stop)
        assert vgg(*options, tmp_path / "stopped") == 130
    (frozen,) = (tmp_path / "stopped").glob("frozen*")
    assert vgg(*options, tmp_path / "stopped") == 0 and not frozen.exists()
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_detect_fits_and_runs_it(demo_folder, tmp_path, capsys):
    commands = {"fit": (fit, Fit), "run": (run, Run)}
    common = ["fit", "--data", demo_folder, "--category", "bottle", "--method", "vgg-cam", "--size-px", "64"]
    options = ["--options", "width=0.0625,epochs=1,train_batch=8", "--out", tmp_path / "model"]
    done = run_commands(commands, [*map(str, [*common, *options, "--train", demo_folder])])
    assert done == 0
    printed = capsys.readouterr().out
    assert "labeled images of hazelnut, leather" in printed
    metadata = json.loads((tmp_path / "model/inspector.json").read_text())
    assert len(metadata["normal_scores"]) == 12 and metadata["map_threshold"]["count"] == 12
    images = demo_folder / "bottle/test/good"
    assert run_commands(commands, ["run", str(images), "--model", str(tmp_path / "model"), "--out",
                                   str(tmp_path / "out")]) in (0, 1)  # fmt: skip
    assert len((tmp_path / "out/results.jsonl").read_text().splitlines()) == 6
    assert run_commands(commands, list(map(str, [*common, *options]))) == 2
    assert "--train" in capsys.readouterr().err
