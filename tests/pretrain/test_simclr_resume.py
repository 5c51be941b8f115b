"""A run that is stopped ends as if it had not been, also on another device; a folder holds one run."""

import shutil
import time
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import simclr_runs
import torch
from filelock import FileLock
from simclr_runs import DEFAULT, NEAR_ON_A_GPU, TINY, assert_same_weights, figures, pretrain, weights
from stopping import Killed, interrupt, kill, stop_after
from two_ranks import imported

from pretrain.config import Config, resolved
from pretrain.encoder import load_encoder, make_encoder


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
    assert [line["step"] for line in figures(out) if "loss" in line] == list(range(6))


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
    monkeypatch.setattr(simclr_runs, "TINY", tuple(word for word in TINY if word not in ("--precision", "32-true")))
    done = pretrain(demo_folder, out)
    assert done.returncode == 0, done.stderr
    assert "64-true" in done.stdout and "resuming after step" in done.stderr


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


def test_finished_run_is_left_alone(finished, demo_folder):
    before = (finished[0] / "encoder.safetensors").stat().st_mtime_ns
    done = pretrain(demo_folder, finished[0])
    assert done.returncode == 0 and "holds a finished run" in done.stdout
    assert (finished[0] / "encoder.safetensors").stat().st_mtime_ns == before


def test_other_options_into_the_same_folder_are_refused(finished, demo_folder, tmp_path):
    out = Path(shutil.copytree(finished[0], tmp_path / "run"))
    (out / "finished").unlink()  # as while it was being trained
    with FileLock(out / "lock"):
        second = pretrain(demo_folder, out)
    assert second.returncode == 2 and "another process trains in" in second.stderr
    other = pretrain(demo_folder, out, "--temperature", "0.3")
    assert other.returncode == 2 and "temperature was 0.2 and is 0.3" in other.stderr


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
