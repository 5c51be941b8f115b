"""A run folder: what it refuses, what survives a kill or a full disk, and that going on equals never having stopped."""

import errno
import inspect
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import REPOSITORY
from torch import Tensor, nn
from torch.optim import Optimizer

from pretrain.command import Names, UserError
from pretrain.files import write_tensors
from pretrain.simclr import make_optimizer
from pretrain.training.run import Run


@dataclass(frozen=True)
class Settings:
    """Every kind of value that a configuration holds, and those that YAML likes to misread."""

    data: Path | None = Path("data/mvtec")
    hold_out: Names | None = Names("bottle,pill")
    nothing: Names = Names("")
    minutes: float | None = None
    rate: float = 1e-4
    tiny: float = 3e-17
    share: float = 0.1 + 0.2
    area: tuple[float, float] = (0.3, 1.0)
    text: str = "1e-4"
    word: str = "off"
    synthetic: bool = False
    seed: int = 0


def test_the_same_options_are_taken_again(tmp_path):
    run = Run(tmp_path / "new" / "run")
    for _ in range(2):
        with run.held(Settings()):
            pass
    stored = run.config()
    assert stored["data"] == "data/mvtec" and stored["hold_out"] == "bottle,pill" and stored["minutes"] is None
    assert (stored["rate"], stored["share"], stored["area"]) == (1e-4, 0.1 + 0.2, [0.3, 1.0])
    assert (stored["text"], stored["word"], stored["synthetic"]) == ("1e-4", "off", False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rate": 2e-4}, "rate was 0.0001 and is 0.0002"),
        ({"area": (0.2, 1.0)}, "area was [0.3, 1.0] and is [0.2, 1.0]"),
        ({"hold_out": None}, "hold_out was bottle,pill and is None"),
        ({"data": Path("other")}, "data was data/mvtec and is other"),
        ({"synthetic": True, "seed": 3}, "seed was 0 and is 3, synthetic was False and is True"),
    ],
)
def test_other_options_are_refused_and_named(change, words, tmp_path):
    run = Run(tmp_path)
    with run.held(Settings()):
        pass
    with pytest.raises(UserError) as refused, run.held(replace(Settings(), **change)):
        raise AssertionError("held with other options")
    assert f"({words})" in str(refused.value) and "--out" in str(refused.value)
    with run.held(Settings()):  # neither the lock nor the new options stayed
        pass


def test_a_run_goes_on_on_another_device_and_says_what_that_means(tmp_path, capsys):
    @dataclass(frozen=True)
    class OnDevice(Settings):
        device: str = "cuda"

    run = Run(tmp_path)
    with run.held(OnDevice()):
        pass
    with run.held(OnDevice(device="cpu")):
        pass
    assert "began on cuda and goes on on cpu" in capsys.readouterr().err
    assert run.earlier("device") == "cuda"
    with pytest.raises(UserError, match="seed was 0 and is 1"), run.held(OnDevice(device="cpu", seed=1)):
        pass


# (To import this file, and with it all that tests import, takes seconds.)
HOLDER = f"""
import sys, time
from dataclasses import dataclass
from pathlib import Path
from pretrain.command import Names
from pretrain.training.run import Run
{inspect.getsource(Settings)}
with Run(Path(sys.argv[1])).held(Settings()):
    print("held", flush=True)
    time.sleep(600)
"""


def test_one_holder_at_a_time_and_a_killed_one_lets_go(tmp_path):
    search = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True, env=search)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another process trains in"), Run(tmp_path).held(Settings()):
            raise AssertionError("held by two")
    finally:
        holder.kill()
        holder.communicate()
    with Run(tmp_path).held(Settings()):
        pass


def test_the_folder_is_free_again_after_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt), Run(tmp_path).held(Settings()):
        raise KeyboardInterrupt
    with Run(tmp_path).held(Settings()):
        pass


def test_what_killed_writers_left_is_cleared_away(tmp_path):
    """Each is as large as a checkpoint: a run that is often killed would fill the disk."""
    for name in (".checkpoint.safetensors.4711.part", ".encoder.safetensors.4712.part", ".config.yaml.part"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "curves.png").write_bytes(b"kept")
    with Run(tmp_path).held(Settings()):
        pass
    assert not list(tmp_path.glob(".*.part"))
    assert (tmp_path / "curves.png").exists()


def test_figures_are_read_back(tmp_path):
    run = Run(tmp_path)
    assert run.metrics() == []
    run.log(0, loss=0.1 + 0.2, accuracy=0.0)
    run.log(0, synthetic_auroc=0.5)
    assert run.metrics() == [{"step": 0, "loss": 0.1 + 0.2, "accuracy": 0.0}, {"step": 0, "synthetic_auroc": 0.5}]


@pytest.mark.parametrize("cut", range(1, 24))
def test_a_line_cut_off_by_a_kill_spoils_no_other(cut, tmp_path):
    """The last line is '{"step": 1, "loss": 1.5}' and a line end, cut after each of its characters."""
    run = Run(tmp_path)
    run.log(0, loss=2.5)
    whole = run.metrics_file.stat().st_size
    run.log(1, loss=1.5)
    os.truncate(run.metrics_file, whole + cut)
    torn = run.metrics()
    run.log(1, loss=1.25)
    assert torn == [{"step": 0, "loss": 2.5}]
    assert run.metrics() == [{"step": 0, "loss": 2.5}, {"step": 1, "loss": 1.25}]


def test_damaged_lines_of_figures_are_left_out(tmp_path):
    run = Run(tmp_path)
    run.log(0, loss=2.5)
    with open(run.metrics_file, "ab") as file:
        file.write(b'{"step": "one"}\n{"loss": 1.0}\n[3]\n' + b"[" * 100_000 + b'\n\xff{"step": 1}\n')
    run.log(2, loss=1.5)
    assert [line["step"] for line in run.metrics()] == [0, 2]


@pytest.mark.parametrize("damage", [b"", b"[1]", b"data: [", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_configuration_is_said_with_how_to_go_on(damage, tmp_path):
    run = Run(tmp_path)
    with run.held(Settings()):
        pass
    (tmp_path / "config.yaml").write_bytes(damage)
    with pytest.raises(UserError, match="config.yaml is damaged .*: remove it to go on"), run.held(Settings()):
        pytest.fail("went on")
    (tmp_path / "config.yaml").unlink()
    with run.held(Settings()):
        assert run.config()["text"] == "1e-4"


def test_a_line_without_its_end_counts(tmp_path):
    run = Run(tmp_path)
    run.log(0, loss=2.5)
    os.truncate(run.metrics_file, run.metrics_file.stat().st_size - 1)
    run.log(1, loss=1.5)
    assert [line["step"] for line in run.metrics()] == [0, 1]


def test_figures_of_steps_that_are_taken_again_are_forgotten(tmp_path):
    run = Run(tmp_path)
    for step in range(5):
        run.log(step, loss=float(step))
        run.log(step, synthetic_auroc=0.5)
    with open(run.metrics_file, "a") as file:
        file.write('{"step": 2, "lo')
    run.forget_figures_from(3)
    lines = run.metrics_file.read_text().splitlines()
    assert len(lines) == 6 and [line["step"] for line in run.metrics()] == [0, 0, 1, 1, 2, 2]
    assert run.metrics()[-2:] == [{"step": 2, "loss": 2.0}, {"step": 2, "synthetic_auroc": 0.5}]
    run.forget_figures_from(0)
    assert run.metrics() == [] and not list(tmp_path.glob(".*.part"))
    Run(tmp_path / "none").folder.mkdir()
    Run(tmp_path / "none").forget_figures_from(0)
    assert Run(tmp_path / "none").metrics() == []


def learner(name: str, seed: int) -> tuple[nn.Module, Optimizer]:
    """Convolution, batch normalization and a head, in the memory format of a training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
        ).to(memory_format=torch.channels_last)
    return module, make_optimizer(name, module, 0.1, 1e-2)


def train(module: nn.Module, optimizer: Optimizer, steps: range) -> None:
    for step in steps:
        images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (step + 1)
        module(images).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def everything(module: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    states = optimizer.state_dict()["state"].items()
    moments = {f"{position}.{name}": torch.as_tensor(v).clone() for position, s in states for name, v in s.items()}
    return {**{name: tensor.clone() for name, tensor in module.state_dict().items()}, **moments}


def assert_same_bits(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_going_on_equals_never_having_stopped(name, tmp_path):
    """Stopped twice, each time into new objects that began elsewhere."""
    whole = learner(name, seed=0)
    train(*whole, range(7))
    run, began = Run(tmp_path), learner(name, seed=0)
    train(*began, range(3))
    run.save(*began, {"step": 3, "steps": 7, "seconds": 1.5})
    for first, last in ((3, 5), (5, 7)):
        written = run.checkpoint_file.read_bytes()
        resumed = learner(name, seed=1)
        metadata = run.restore(*resumed)
        assert (metadata["step"], metadata["steps"], metadata["seconds"]) == (first, 7, 1.5)
        assert_same_bits(everything(*resumed), everything(*began))
        train(*resumed, range(first, last))
        assert run.checkpoint_file.read_bytes() == written  # the tensors that were read are no window into it
        began = resumed
        run.save(*began, {"step": last, "steps": 7, "seconds": 1.5})
    state = everything(*resumed)
    assert_same_bits(state, everything(*whole))
    assert state["1.num_batches_tracked"] == 7 and any("moment" in key or "exp_avg" in key for key in state)
    assert (name != "adamw") or state["0.step"] == 7
    assert list(tmp_path.iterdir()) == [run.checkpoint_file]


def test_a_checkpoint_of_an_older_heldout_is_refused(tmp_path):
    run, layer = Run(tmp_path), nn.Linear(1, 1)
    write_tensors(run.checkpoint_file, {"module.weight": layer.weight}, {"step": 3, "optimizer": {}})
    with pytest.raises(UserError, match="is of format 1 and this heldout resumes format 2: .* another --out"):
        run.restore(layer, torch.optim.SGD(layer.parameters()))


def test_nothing_to_restore(tmp_path):
    module, optimizer = learner("adamw", 0)
    before = everything(module, optimizer)
    assert Run(tmp_path).restore(module, optimizer) is None
    assert_same_bits(everything(module, optimizer), before)
    assert not list(tmp_path.iterdir())


def full(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    run, (module, optimizer) = Run(tmp_path), learner("adamw", 0)
    train(module, optimizer, range(2))
    with run.held(Settings()):
        run.save(module, optimizer, {"step": 2})
        run.log(0, loss=1.0)
    saved = everything(module, optimizer)
    train(module, optimizer, range(2, 3))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="No space left.*what was saved before is whole"), run.held(Settings()):
            run.save(module, optimizer, {"step": 3})
        with pytest.raises(UserError, match="No space left"), run.held(Settings()):
            run.forget_figures_from(0)
        with pytest.raises(UserError, match="No space left"), Run(tmp_path / "new").held(Settings()):
            raise AssertionError("held though its options could not be stored")
    assert not (tmp_path / "new" / "config.yaml").exists()
    assert [line["step"] for line in run.metrics()] == [0]
    restored = learner("adamw", 1)
    with run.held(Settings()):
        assert run.restore(*restored)["step"] == 2
    assert_same_bits(everything(*restored), saved)
    assert not list(tmp_path.glob(".*.part"))


def test_finished(tmp_path):
    run, (module, optimizer) = Run(tmp_path), learner("sgd", 0)
    run.save(module, optimizer, {"step": 0})
    assert not run.is_finished
    for _ in range(2):
        run.finish()
        assert run.is_finished and not run.checkpoint_file.exists()


ALONE = SimpleNamespace(world_size=1)
