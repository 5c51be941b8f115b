"""The command: what it opens, what it refuses, and what it gives."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from event_files import events, tracked
from PIL import Image
from simclr_runs import DEFAULT, NEAR_ON_A_GPU, TINY, assert_same_weights, figures, pretrain, weights
from stopping import Killed, kill, stop_after
from two_ranks import run_as_torchrun

from pretrain.command import read_config, run_command
from pretrain.config import Config
from pretrain.encoder import fingerprint, load_encoder, make_encoder
from pretrain.report import view_sheet
from pretrain.simclr import batch_members, main, make_views, prepared
from pretrain.training.fabric import make_fabric


def test_result_is_an_encoder_that_knows_what_it_saw(finished, demo_folder):
    out, said = finished
    encoder = load_encoder(out / "encoder.safetensors")
    assert encoder.origin.categories == ("hazelnut", "leather")
    assert encoder.origin.is_demo
    assert encoder.input_size_px == 32
    assert encoder.origin.recipe["steps"] == 6 and encoder.origin.recipe["seed"] == 0
    assert "demo data" in said and "never opened: bottle" in said
    assert "synthetic anomalies, AUROC" in said
    study = f"--data {demo_folder} --train hazelnut,leather --test bottle"
    assert said.splitlines()[-1].endswith(f"evaluate.py --encoder {out}/encoder.safetensors {study}")
    assert (out / "curves.png").stat().st_size > 1000
    low, high = encoder.origin.recipe["synthetic_auroc_interval"]
    assert 0 <= low <= encoder.origin.recipe["synthetic_auroc"] <= high <= 1
    assert (out / "finished").exists() and not (out / "checkpoint.safetensors").exists()


def test_figures_are_logged_for_every_step_and_evaluation(finished):
    lines = figures(finished[0])
    assert [line["step"] for line in lines if "loss" in line] == list(range(6))
    evaluated = [line["step"] for line in lines if "synthetic_auroc" in line]
    assert evaluated[0] == 0 and evaluated[-1] == 6
    assert all(0 <= line["accuracy"] <= 1 for line in lines if "loss" in line)


def test_trackers_get_figures_and_the_views_that_the_first_step_learned_from(finished, demo_folder):
    out, _ = finished
    assert tracked(out)["images"] == ["curves", "views"] and "synthetic_auroc" in tracked(out)["scalars"]
    assert [event.step for event in events(out / "tensorboard").Images("views")] == [0]
    asked = read_config(Config, ["--data", str(demo_folder), *TINY])
    config, images, _ = prepared(asked, make_fabric("cpu", "32-true"))
    positions, members = np.arange(8), batch_members(config, 0, len(images))
    pixels, sources = (torch.from_numpy(images.batch(members[turn])) for turn in (positions, positions - 1))
    sources = sources if config.synthetic_negatives else None
    expected = view_sheet(*make_views(config, 0, positions, pixels, sources))
    assert np.array_equal(np.asarray(Image.open(out / "views.png")), np.asarray(expected))


def test_the_encoder_is_compared_with_imagenet_s_weights_which_it_began_without(finished):
    out, said = finished
    auroc = [line["synthetic_auroc"] for line in figures(out) if "synthetic_auroc" in line]
    origin = load_encoder(out / "encoder.safetensors").origin
    assert origin.recipe["synthetic_auroc_of_start"] == auroc[0] and len(auroc) == 3
    assert origin.recipe["synthetic_auroc"] == auroc[-1] and origin.recipe["kept_step"] == 6
    needed = origin.recipe["synthetic_auroc_of_imagenet"]
    assert bool(origin.why_not_better) == (1 - auroc[-1] >= 0.75 * (1 - needed))
    assert ("not clearly better than ImageNet's weights" in said) == bool(origin.why_not_better)


def test_a_training_that_only_spoils_its_start_keeps_it_and_ends_early(demo_folder, tmp_path, monkeypatch):
    """By steps far too large; the same where it is killed and goes on."""
    spoiling = (*DEFAULT, "--optimizer", "sgd", "--learning-rate", "30", "--monitor-every", "2", "--patience", "2")
    out, often = tmp_path / "spoiled", ("--checkpoint-minutes", "0", "--keep", "best")
    with monkeypatch.context() as patched, pytest.raises(Killed):
        stop_after(3, kill, patched)
        pretrain(demo_folder, out, *spoiling, *often)
    done = pretrain(demo_folder, out, *spoiling, *often)
    assert done.returncode == 0, done.stderr
    auroc = [line["synthetic_auroc"] for line in figures(out) if "synthetic_auroc" in line]
    assert len(auroc) == 3 and max(auroc[1:]) < auroc[0]
    encoder = load_encoder(out / "encoder.safetensors")
    assert fingerprint(encoder) == encoder.started_from.fingerprint == fingerprint(make_encoder(start="imagenet"))
    assert encoder.origin.recipe["synthetic_auroc"] == auroc[0] and encoder.origin.recipe["steps"] == 4
    assert "the start is kept" in done.stdout and "stay with ImageNet's weights" in done.stdout
    assert "ended at step 4: none was better since step 0" in done.stderr


def test_training_changes_what_it_trains(demo_folder, tmp_path):
    """One step of the network that is the default, from its public weights."""
    assert pretrain(demo_folder, tmp_path, "--steps", "1", *DEFAULT).returncode == 0
    trained, fresh = load_encoder(tmp_path / "encoder.safetensors"), make_encoder(start="imagenet")
    moved = [
        name
        for (name, weight), start in zip(trained.named_parameters(), fresh.parameters(), strict=True)
        if not torch.equal(weight, start)
    ]
    assert trained.architecture == fresh.architecture and len(moved) == len(list(fresh.parameters()))


def test_the_same_seed_gives_the_same_encoder_and_another_seed_another(finished, demo_folder, tmp_path):
    assert pretrain(demo_folder, tmp_path / "again").returncode == 0
    assert_same_weights(finished[0], tmp_path / "again")
    assert pretrain(demo_folder, tmp_path / "other", "--seed", "1").returncode == 0
    with pytest.raises(AssertionError):
        assert_same_weights(finished[0], tmp_path / "other")


def test_held_out_categories_are_never_opened(demo_folder, tmp_path):
    """Every held-out file, and all but train/good of the others, would raise an error if it were read."""
    folder = Path(shutil.copytree(demo_folder, tmp_path / "data"))
    for path in [
        *folder.glob("bottle/**/*.png"),
        *folder.glob("*/test/**/*.png"),
        *folder.glob("*/ground_truth/**/*.png"),
    ]:
        path.unlink()
        os.symlink("/proc/self/mem", path)
    done = pretrain(folder, tmp_path / "run", "--steps", "1")
    assert done.returncode == 0, done.stderr
    assert "cannot be used" not in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--hold-out", "botle"), "did you mean bottle"),
        (("--hold-out", "bottle,hazelnut,leather"), "leave one to learn from"),
        (("--architecture", "resnet19"), "resnet18"),
        (("--start", "/nowhere.pth"), "/nowhere.pth"),
        (("--device", "cuda"), "--device cpu"),
        (("--precision", "8"), "bf16-mixed"),
        (("--data", "/nowhere"), "there is no folder /nowhere"),
        (("--learning-rate", "1e30"), "not a number"),
        (("--steps", "-1"), "--steps"),
        (("--temperature", "0"), "--temperature"),
        (("--crop-area-min", "2"), "--crop-area-min"),
        (("--image-weight", "0", "--dense-weight", "0"), "nothing to learn"),
    ],
)
def test_user_errors_are_one_sentence(options, words, demo_folder, tmp_path):
    if options[0] == "--device" and torch.cuda.is_available():
        options, words = ("--device", "tpu"), "cuda"
    done = pretrain(demo_folder, tmp_path / "run", *options)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert words in line
    assert "Traceback" not in done.stderr


def test_a_gpu_that_is_too_small_is_one_sentence_with_the_batch_that_fits(demo_folder, tmp_path, monkeypatch):
    def too_much(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("pretrain.simclr.SimCLR.forward", too_much)
    monkeypatch.setattr("pretrain.training.memory.largest_batch", lambda train_some, device, asked: 4)
    done = pretrain(demo_folder, tmp_path / "run")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "8 images of 32 px do not fit into the GPU's memory: --batch 4 would, with another --out." in done.stderr


def test_minutes_become_steps_once(demo_folder, tmp_path):
    out = tmp_path / "timed"
    options = [option for option in TINY if option not in ("--steps", "6")]
    base = ["--data", str(demo_folder), "--out", str(out), *options]
    assert run_command(main, Config, [*base, "--minutes", "0.03"]) == 0
    assert load_encoder(out / "encoder.safetensors").origin.recipe["steps"] >= 1


def one_of_two(rank: int, folder: str, out: str, *options: str) -> None:
    done = pretrain(Path(folder), Path(out), *options)
    assert done.returncode == 0, done.stderr
    assert ("2 process(es)" in done.stdout) == (rank == 0)  # the other one is silent


def test_two_processes_train_one_encoder(demo_folder, tmp_path):
    """From maps of which each computes a share; that two train as one would, test_simclr.py shows."""
    options = ("--steps", "2", "--freeze-stages", "2", "--cached-views", "1", "--architecture", "resnet18")
    run_as_torchrun(one_of_two, str(demo_folder), str(tmp_path), *options)
    assert all(weight.isfinite().all() for weight in weights(tmp_path).values())
    assert (tmp_path / "finished").exists() and not list(tmp_path.glob(".frozen*"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("recipe", ["dense", "simclr"])
def test_a_gpu_trains_near_what_a_cpu_does(recipe, demo_folder, tmp_path):
    losses = {}
    for device in ("cpu", "cuda"):
        done = pretrain(demo_folder, tmp_path / device, "--device", device, "--recipe", recipe, "--views", "kornia")
        assert done.returncode == 0, done.stderr
        losses[device] = [line["loss"] for line in figures(tmp_path / device) if "loss" in line]
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=NEAR_ON_A_GPU)
