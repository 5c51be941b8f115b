"""The command: what it leaves, what it refuses, and that a run which is killed ends as if it had not been."""

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch
from event_files import tracked
from PIL import Image
from safetensors.torch import load_file
from stopping import Killed, interrupt, kill, stop_after

from baselines.autoencoder import main
from baselines.autoencoders.config import Config
from baselines.contract.metrics import number
from downstream.detect import run
from downstream.inspection.config import Fit, Run
from downstream.inspection.fitting import fit
from pretrain.command import Names, UserError, read_config, run_command, run_commands

TINY = ("--model", "vae", "--size", "32", "--width", "4", "--epochs", "3", "--batch_size", "4", "--device", "cpu")


def assert_same_weights(first: Path, second: Path) -> None:
    ours, theirs = (load_file(folder / "method.safetensors") for folder in (first, second))
    assert ours.keys() == theirs.keys() and len(ours) > 10
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def finished(demo_folder, tmp_path_factory) -> tuple[Path, list[str], str]:
    """Two categories, each 11 images to learn from and 3 epochs of 2 steps; the command, and what it said."""
    out = tmp_path_factory.mktemp("runs") / "vae"
    words = ["--data_path", str(demo_folder), "--category", "bottle,leather", "--ckpt_path", str(out), *TINY,
             "--track", "tensorboard"]  # fmt: skip
    with redirect_stdout(StringIO()) as said:
        assert run_command(main, Config, words) == 0
    return out, words, said.getvalue()


def test_each_category_has_a_run_with_all_that_belongs_to_it(finished):
    out, _, said = finished
    for category in ("bottle", "leather"):
        folder = out / category
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines if "loss" in line] == list(range(6))
        assert [line["epoch"] for line in lines if "validation" in line] == [0, 1, 2]
        for name in ("reconstructions.png", "samples.png", "curves.png"):
            with Image.open(folder / name) as image:
                assert image.size[0] > 300
        assert tracked(folder)["images"] == ["curves", "reconstructions", "samples"]
        assert {"loss", "validation"} < {*tracked(folder)["scalars"]}
        assert (folder / "finished").exists() and not (folder / "checkpoint.safetensors").exists()
        config = (folder / "config.yaml").read_text()
        assert f"category: {category}\n" in config and "size_px: 32\n" in config and "precision: 32-true" in config
    assert "demo data" in said and "12 good images, a tenth of them held out" in said


def test_pixel_figures_of_each_category_and_their_mean(finished):
    out, _, said = finished
    values = [json.loads((out / name / "figures.json").read_text())["pixel_auroc"] for name in ("bottle", "leather")]
    assert all(0 <= value <= 1 for value in values)
    (mean,) = (line for line in said.splitlines() if "mean" in line)
    assert number(sum(values) / 2) in mean
    for value, name in zip(values, ("bottle", "leather"), strict=True):
        assert any(name in line and number(value) in line for line in said.splitlines())


def test_detect_runs_the_model(finished, demo_folder, tmp_path, capsys):
    commands = {"fit": (fit, Fit), "run": (run, Run)}
    code = run_commands(
        commands, ["run", str(demo_folder / "bottle"), "--model", str(finished[0] / "bottle"), "--out", str(tmp_path)]
    )
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert code == int(any(line["is_defective"] for line in lines)) and len(lines) >= 12
    alarms = sum(line["is_defective"] for line in lines if line["label"] == "good")
    good = sum(line["label"] == "good" for line in lines)
    figures = json.loads((finished[0] / "bottle" / "figures.json").read_text())
    assert figures["false_alarm_rate"] == pytest.approx(alarms / good)


def test_detect_fits_one_with_options(demo_folder, tmp_path, capsys):
    options = "model=mvtec,loss=mse,size_px=64,instances=22,train_batch=4"
    words = ["fit", "--data", demo_folder, "--category", "leather", "--method", "cae", "--options", options,
             "--size-px", "48", "--out", tmp_path]  # fmt: skip
    assert run_commands({"fit": (fit, Fit)}, list(map(str, words))) == 0
    assert "cae fitted to 12 good images" in capsys.readouterr().out


def test_finished_runs_are_left_alone_and_their_figures_shown_again(finished, capsys):
    before = (finished[0] / "bottle" / "method.safetensors").stat().st_mtime_ns
    assert main(read_config(Config, finished[1])) is None
    words = capsys.readouterr().out
    assert "holds a finished run" in words
    assert (finished[0] / "bottle" / "method.safetensors").stat().st_mtime_ns == before
    table = [line for line in finished[2].splitlines() if "│" in line]
    assert len(table) == 3 and table == [line for line in words.splitlines() if "│" in line]


def test_killed_and_resumed_is_bit_identical(finished, demo_folder, tmp_path, monkeypatch):
    words = ["--data", demo_folder, "--category", "leather", "--out", tmp_path, *TINY, "--checkpoint-minutes", "0"]
    with monkeypatch.context() as patched, pytest.raises(Killed):
        stop_after(3, kill, patched)
        main(read_config(Config, list(map(str, words))))
    assert not (tmp_path / "leather" / "finished").exists()
    main(read_config(Config, list(map(str, words))))
    assert_same_weights(tmp_path / "leather", finished[0] / "leather")
    lines = [json.loads(line) for line in (tmp_path / "leather" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(6))


def test_interrupted_keeps_its_options(demo_folder, tmp_path, monkeypatch, capsys):
    words = ["--data", demo_folder, "--category", "leather", "--out", tmp_path, *TINY, "--epochs", "3000"]
    stop_after(3, interrupt, monkeypatch)
    assert run_command(main, Config, list(map(str, words))) == 130
    assert "stopped after 3 of 6000 steps; the same command resumes there" in capsys.readouterr().out
    with pytest.raises(UserError, match="learning_rate was None and is 0.5"):
        main(read_config(Config, [*map(str, words), "--learning_rate", "0.5"]))


def test_a_plain_folder_of_good_images_will_do(demo_folder, tmp_path, capsys):
    main(Config(model="ae", data=demo_folder / "leather" / "train" / "good", out=tmp_path, size_px=32, width=4,
                epochs=1, device="cpu"))  # fmt: skip
    words = capsys.readouterr().out
    assert "12 good images" in words and "0 test images" in words and "n/a" in words
    assert (tmp_path / "good" / "reconstructions.png").is_file()


def test_gray_images_are_noticed(demo_folder, tmp_path, capsys):
    folder = tmp_path / "gray"
    folder.mkdir()
    for path in (demo_folder / "leather" / "train" / "good").iterdir():
        Image.open(path).convert("L").save(folder / path.name)
    options = {"model": "ae", "data": folder, "size_px": 32, "width": 4, "epochs": 1, "device": "cpu"}
    main(Config(**options, out=tmp_path / "rgb"))
    assert "--color gray" in capsys.readouterr().out
    main(Config(**options, out=tmp_path / "one", color="gray"))
    assert "--color gray" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size_px": 100}, "a power of two"),
        ({"category": "botle"}, "did you mean bottle"),
        ({"false_alarm_rate": 1.5}, "--false-alarm-rate 1.5 cannot be kept"),
        ({"model": "mvtec2", "size_px": 64, "window_px": 99}, "window of 99 px"),
        ({"epochs": 0}, "epochs must be above 0"),
        ({"instances": 3}, "less than one look"),
        ({"latent": 7, "model": "mvtec2", "size_px": 64}, "no option latent"),
    ],
)
def test_user_errors_come_before_a_run_begins(options, words, demo_folder, tmp_path):
    options = {**options, "category": Names(options.get("category", "bottle"))}
    with pytest.raises(UserError, match=words):
        main(Config(**{"data": demo_folder, "device": "cpu", "out": tmp_path / "run", **options}))
    assert not (tmp_path / "run").exists()


def test_too_few_images_to_hold_a_tenth_out(demo_folder, tmp_path):
    folder = tmp_path / "few"
    folder.mkdir()
    for path in sorted((demo_folder / "leather" / "train" / "good").iterdir())[:9]:
        (folder / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="9 good images of few are too few to hold a tenth out"):
        main(Config(data=folder, size_px=32, device="cpu", out=tmp_path / "run"))
