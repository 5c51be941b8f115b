"""The command: what it opens, what it refuses, and that a run which is stopped ends as if it had not been."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from event_files import events, tracked
from filelock import FileLock
from made_layouts import MADE
from PIL import Image
from safetensors.torch import load_file
from stopping import Killed, interrupt, kill, stop_after
from two_ranks import imported, run_as_torchrun

from pretrain.command import Names, UserError, read_config, run_command
from pretrain.config import Config, resolved
from pretrain.encoder import fingerprint, load_encoder, make_encoder
from pretrain.report import view_sheet
from pretrain.simclr import batch_members, learning_rate_at, main, make_views, prepared
from pretrain.training.fabric import make_fabric

TINY = ("--size-px", "32", "--batch", "8", "--steps", "6", "--precision", "32-true", "--hold-out", "bottle",
        "--monitor-every", "3", "--architecture", "timm/test_resnet", "--start", "random",
        "--keep", "last")  # fmt: skip
DEFAULT = ("--architecture", "efficientnet_lite0", "--start", "imagenet")
# How far a loss may be, relative, from a CPU's: docs/scaling.md states it.
NEAR_ON_A_GPU = 0.05


def command(folder: Path, out: Path, *more: str) -> list[str]:
    return [
        sys.executable,
        str(REPOSITORY / "pretrain/simclr.py"),
        "--data",
        str(folder),
        "--out",
        str(out),
        *TINY,
        *more,
    ]


def pretrain(folder: Path, out: Path, *more: str) -> subprocess.CompletedProcess:
    """In this process, which has imported all that costs a new one some seconds."""
    arguments = command(folder, out, *more)
    output, errors = StringIO(), StringIO()
    with redirect_stdout(output), redirect_stderr(errors):
        try:
            code = run_command(main, Config, arguments[2:])
        except SystemExit as stop:  # an option that cannot be read
            code = stop.code
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "encoder.safetensors")


def assert_same_weights(first: Path, second: Path) -> None:
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def finished(demo_folder, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """A whole run of six steps, and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    done = pretrain(demo_folder, out, "--track", "tensorboard")
    assert done.returncode == 0, done.stderr
    return out, done


def test_result_is_an_encoder_that_knows_what_it_saw(finished, demo_folder):
    out, done = finished
    encoder = load_encoder(out / "encoder.safetensors")
    assert encoder.origin.categories == ("hazelnut", "leather")
    assert encoder.origin.is_demo
    assert encoder.input_size_px == 32
    assert encoder.origin.recipe["steps"] == 6 and encoder.origin.recipe["seed"] == 0
    assert "demo data" in done.stdout and "never opened: bottle" in done.stdout
    assert "synthetic anomalies, AUROC" in done.stdout
    study = f"--data {demo_folder} --train hazelnut,leather --test bottle"
    assert done.stdout.splitlines()[-1].endswith(f"evaluate.py --encoder {out}/encoder.safetensors {study}")
    assert (out / "curves.png").stat().st_size > 1000
    low, high = encoder.origin.recipe["synthetic_auroc_interval"]
    assert 0 <= low <= encoder.origin.recipe["synthetic_auroc"] <= high <= 1
    assert (out / "finished").exists() and not (out / "checkpoint.safetensors").exists()


def figures(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_compiled_encoder_trains_the_same(finished, demo_folder, tmp_path, monkeypatch):
    """By torch's own kernels, as inductor takes a minute; also when it goes on after a stop."""
    compiled = []

    def in_eager(module: torch.nn.Module) -> None:
        module._compiled_call_impl = torch.compile(module._call_impl, backend="eager")
        compiled.append(module)

    monkeypatch.setattr(torch.nn.Module, "compile", in_eager)
    options = ("--compile", "--checkpoint-minutes", "0")
    with monkeypatch.context() as patched:
        stop_after(3, interrupt, patched)
        assert pretrain(demo_folder, tmp_path / "run", *options).returncode == 130
    assert pretrain(demo_folder, tmp_path / "run").returncode == 2  # other options
    done = pretrain(demo_folder, tmp_path / "run", *options)
    assert done.returncode == 0 and len(compiled) == 2, done.stderr
    losses = [[line["loss"] for line in figures(run) if "loss" in line] for run in (finished[0], tmp_path / "run")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert weights(tmp_path / "run").keys() == weights(finished[0]).keys()


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
    out, done = finished
    auroc = [line["synthetic_auroc"] for line in figures(out) if "synthetic_auroc" in line]
    origin = load_encoder(out / "encoder.safetensors").origin
    assert origin.recipe["synthetic_auroc_of_start"] == auroc[0] and len(auroc) == 3
    assert origin.recipe["synthetic_auroc"] == auroc[-1] and origin.recipe["kept_step"] == 6
    needed = origin.recipe["synthetic_auroc_of_imagenet"]
    assert bool(origin.why_not_better) == (1 - auroc[-1] >= 0.75 * (1 - needed))
    assert ("not clearly better than ImageNet's weights" in done.stdout) == bool(origin.why_not_better)


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


@pytest.mark.slow
def test_frozen_stages_from_cached_maps_resume_bit_for_bit(demo_folder, tmp_path, monkeypatch):
    short = ("--steps", "4", "--monitor-every", "4", "--checkpoint-minutes", "0")
    options = (*DEFAULT, *short, "--freeze-stages", "2", "--cached-views", "2")
    assert pretrain(demo_folder, tmp_path / "once", *options).returncode == 0
    with monkeypatch.context() as patched, pytest.raises(Killed):
        stop_after(3, kill, patched)
        pretrain(demo_folder, tmp_path / "twice", *options)
    done = pretrain(demo_folder, tmp_path / "twice", *options)
    assert done.returncode == 0 and "resuming after step 2" in done.stderr
    assert "frozen stages: 2/2 parts" in done.stderr.partition("resuming")[0]
    assert_same_weights(tmp_path / "once", tmp_path / "twice")
    start, found = make_encoder(start="imagenet").stages.state_dict(), weights(tmp_path / "once")
    for level, is_frozen in (("level1", True), ("level2", True), ("level3", False), ("level4", False)):
        same = [torch.equal(found[name], start[name]) for name in found if name.startswith(level)]
        assert all(same) if is_frozen else not all(same), level


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


def test_finished_run_is_left_alone(finished, demo_folder):
    before = (finished[0] / "encoder.safetensors").stat().st_mtime_ns
    done = pretrain(demo_folder, finished[0])
    assert done.returncode == 0 and "holds a finished run" in done.stdout
    assert (finished[0] / "encoder.safetensors").stat().st_mtime_ns == before


def pretrain_in(threads: int, *arguments: object) -> None:
    torch.set_num_threads(threads)  # which can change the last bits
    pretrain(*arguments)


def wait_for_steps(out: Path, count: int, process: BaseProcess) -> None:
    deadline_s = time.monotonic() + 90
    metrics = out / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count('"loss"') < count:
        assert process.is_alive() and time.monotonic() < deadline_s
        time.sleep(0.01)


@pytest.mark.parametrize("after", [3, 5])
def test_killed_and_resumed_is_bit_identical(after, finished, demo_folder, tmp_path, monkeypatch):
    out = tmp_path / "killed"
    often = ("--checkpoint-minutes", "0")
    if after == 3:  # one of them for real
        running = imported().Process(target=pretrain_in, args=(torch.get_num_threads(), demo_folder, out, *often))
        running.start()
        wait_for_steps(out, after, running)
        running.kill()
        running.join()
    else:
        with monkeypatch.context() as patched, pytest.raises(Killed):
            stop_after(after, kill, patched)
            pretrain(demo_folder, out, *often)
    assert not (out / "encoder.safetensors").exists()
    done = pretrain(demo_folder, out, *often)
    assert done.returncode == 0, done.stderr
    assert_same_weights(finished[0], out)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(6))


def test_interrupted_saves_and_resumes(finished, demo_folder, tmp_path, monkeypatch):
    out = tmp_path / "interrupted"
    with monkeypatch.context() as patched:
        stop_after(2, interrupt, patched)
        done = pretrain(demo_folder, out)
    assert done.returncode == 130
    assert "the same command resumes there" in done.stdout and "Traceback" not in done.stderr
    assert pretrain(demo_folder, out).returncode == 0
    assert_same_weights(finished[0], out)


def test_a_resumed_run_keeps_the_precision_that_was_chosen_for_it(demo_folder, tmp_path, monkeypatch):
    """What suits the machine is measured when a run begins, and might come out otherwise when it resumes."""
    out = tmp_path / "interrupted"
    with monkeypatch.context() as patched:
        stop_after(2, interrupt, patched)
        assert pretrain(demo_folder, out, "--precision", "64-true").returncode == 130
    monkeypatch.setitem(globals(), "TINY", tuple(word for word in TINY if word not in ("--precision", "32-true")))
    done = pretrain(demo_folder, out)
    assert done.returncode == 0, done.stderr
    assert "64-true" in done.stdout and "resuming after step" in done.stderr


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


def test_a_run_goes_on_on_another_device_as_it_began(finished, demo_folder, tmp_path):
    """Begun on a GPU, by its file; sizes that were left open there are not those of a CPU now."""
    out = Path(shutil.copytree(finished[0], tmp_path / "run"))
    stored = (out / "config.yaml").read_text()
    for here, there in (
        ("device: cpu", "device: cuda"),
        ("views: fast", "views: kornia"),
        ("epochs: 8", "epochs: 100"),
    ):
        stored = stored.replace(here, there)
    (out / "config.yaml").write_text(stored)
    (out / "finished").unlink()
    done = pretrain(demo_folder, out)
    assert done.returncode == 0 and "began on cuda and goes on on cpu" in done.stderr
    assert resolved(Config(), "cpu", "32-true", began_on="cuda") == replace(
        resolved(Config(), "cuda", "32-true"), device="cpu"
    )


def test_other_options_into_the_same_folder_are_refused(finished, demo_folder, tmp_path):
    out = Path(shutil.copytree(finished[0], tmp_path / "run"))
    (out / "finished").unlink()  # as while it was being trained
    with FileLock(out / "lock"):
        second = pretrain(demo_folder, out)
    assert second.returncode == 2 and "another process trains in" in second.stderr
    other = pretrain(demo_folder, out, "--temperature", "0.3")
    assert other.returncode == 2 and "temperature was 0.2 and is 0.3" in other.stderr


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


@pytest.fixture(scope="module")
def config(demo_folder) -> Config:
    fabric = make_fabric("cpu", "32-true")
    return prepared(Config(demo_folder, size_px=32, batch=8, hold_out=Names("bottle"), device="cpu"), fabric)[0]


def test_every_epoch_shows_every_image_once(config):
    count = 21
    epoch = np.concatenate([batch_members(config, step, count) for step in range(2)])
    assert len(set(epoch)) == 16 and epoch.max() < count
    assert not np.array_equal(epoch[:8], batch_members(config, 2, count))
    assert np.array_equal(batch_members(config, 5, count), batch_members(config, 5, count))


def test_views_show_the_same_crop_where_positions_are_contrasted(config):
    gradient = torch.arange(64, dtype=torch.uint8).repeat(64, 1)
    pixels = torch.stack([gradient, gradient.T, gradient], dim=-1).repeat(4, 1, 1, 1) * 4
    still = replace(config, jitter=0.0, blur=0.0)
    first, second = make_views(still, 0, np.arange(4), pixels, None)[0].chunk(2)
    assert torch.equal(first, second)
    first, second = make_views(replace(still, dense_weight=0.0), 0, np.arange(4), pixels, None)[0].chunk(2)
    assert not torch.allclose(first, second, atol=0.05)
    views, masks = make_views(still, 0, np.arange(4), pixels, pixels)
    second, synthetic = views.chunk(3)[1:]
    assert torch.equal(second.movedim(1, -1)[~masks], synthetic.movedim(1, -1)[~masks])
    assert masks.flatten(1).any(1).all()


def test_learning_rate_rises_then_falls_to_zero(config):
    rates = [learning_rate_at(step / 100, config) for step in range(101)]
    assert max(rates) <= 1.02 * config.learning_rate
    assert rates[0] > 0 and rates[:10] == sorted(rates[:10]) and rates[11:] == sorted(rates[11:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-12)


def test_a_tenth_is_only_evaluated_on(demo_folder):
    fabric = make_fabric("cpu", "32-true")
    config, learned, unseen = prepared(Config(demo_folder, size_px=32, batch=8, hold_out=Names("bottle")), fabric)
    assert not {r.path for r in learned.records} & {r.path for r in unseen.records}
    assert len(learned) + len(unseen) == 24
    assert all((record.split, record.defect) == ("train", "good") for record in learned.records + unseen.records)
    assert config.hold_out == ("bottle",) and config.learning_rate == pytest.approx(1e-4)


def test_a_folder_that_the_user_calls_plain_is_learned_from_whole(tmp_path):
    MADE["table"](tmp_path)
    fabric, config = make_fabric("cpu", "32-true"), Config(tmp_path, size_px=32, batch=8)
    _, learned, unseen = prepared(replace(config, layout="plain"), fabric)
    assert len({record.path for record in learned.records + unseen.records}) == 8  # a mask is an image there
    _, learned, unseen = prepared(config, fabric)  # of the table, good ones that are not tested on
    assert {record.path.stem for record in learned.records + unseen.records} == set("01234")


def test_open_options_are_resolved_for_the_machine():
    config = resolved(Config(start="random", optimizer="lars", batch=64), "cpu", "32-true")
    assert (config.size_px, config.cache_px, config.batch, config.device) == (128, 256, 64, "cpu")
    assert config.learning_rate == pytest.approx(0.6) and not config.freeze_batch_norm
    # What was learned before is not to be forgotten.
    gentle = resolved(Config(optimizer="lars", batch=64), "cpu", "32-true")
    assert gentle.learning_rate == pytest.approx(0.06) and gentle.freeze_batch_norm


def test_a_folder_of_nothing_but_what_is_held_out_by_default_is_refused(tmp_path, demo_folder):
    """None left to learn from once meant all of them."""
    shutil.copytree(demo_folder / "bottle/train", tmp_path / "bottle/train")
    fabric, config = make_fabric("cpu", "32-true"), Config(tmp_path, size_px=32, batch=8)
    with pytest.raises(UserError, match=r"all categories of .* are held out \(bottle\): .* --hold-out ''"):
        prepared(config, fabric)
    _, learned_from, _ = prepared(replace(config, hold_out=Names("")), fabric)
    assert learned_from.categories == ["bottle"]


def test_too_few_images_are_refused(tmp_path, demo_folder):
    (tmp_path / "nut/train/good").mkdir(parents=True)
    shutil.copy(next(demo_folder.rglob("train/good/*.png")), tmp_path / "nut/train/good/0.png")
    with pytest.raises(UserError, match="too few"):
        prepared(Config(tmp_path, size_px=32, batch=8), make_fabric("cpu", "32-true"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_trains_the_same_bits_if_asked_also_after_a_resume(demo_folder, tmp_path, monkeypatch):
    options = ("--device", "cuda", "--deterministic", "--checkpoint-minutes", "0")
    assert pretrain(demo_folder, tmp_path / "once", *options).returncode == 0
    out = tmp_path / "twice"
    with monkeypatch.context() as patched:
        stop_after(2, interrupt, patched)
        assert pretrain(demo_folder, out, *options).returncode == 130
    assert pretrain(demo_folder, out, *options).returncode == 0
    assert_same_weights(tmp_path / "once", out)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("began_on", "goes_on_on"), [("cpu", "cuda"), ("cuda", "cpu"), ("cuda", "cuda")])
def test_a_run_that_goes_on_on_another_device_ends_near_where_it_would_have(
    began_on, goes_on_on, demo_folder, tmp_path, monkeypatch
):
    """And on the same GPU, where sums are not the same twice unless that is asked for."""
    options = ("--views", "kornia", "--checkpoint-minutes", "0", "--device")
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert pretrain(demo_folder, whole, *options, began_on).returncode == 0
    with monkeypatch.context() as patched:
        stop_after(3, interrupt, patched)
        assert pretrain(demo_folder, out, *options, began_on).returncode == 130
    done = pretrain(demo_folder, out, *options, goes_on_on)
    assert done.returncode == 0 and (f"began on {began_on}" in done.stderr) == (began_on != goes_on_on)
    losses = [[line["loss"] for line in figures(run) if "loss" in line] for run in (whole, out)]
    assert losses[1] == pytest.approx(losses[0], rel=NEAR_ON_A_GPU)
    assert load_encoder(out / "encoder.safetensors").origin.recipe["steps"] == 6


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
