"""scripts/leave_one_out.py: the commands that it runs, each of which must understand its options."""

import subprocess
import sys

import pytest

from downstream.study.config import Evaluate
from pretrain.command import Names, UserError, read_config
from pretrain.config import Config
from scripts import leave_one_out
from scripts.leave_one_out import REPOSITORY, LeaveOneOut


@pytest.fixture
def commands(monkeypatch):
    """Scripts and arguments that would have been run; none of them is."""
    run: list[tuple[str, list[str]]] = []

    def record(command, check):
        assert command[0] == sys.executable
        run.append((command[1].relative_to(REPOSITORY).as_posix(), command[2:]))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", record)
    return run


def test_every_category_is_left_out_by_an_encoder_of_each_seed(demo_folder, commands, tmp_path):
    options = {"pretrain": "--steps 5", "evaluate": "--size-px 64", "record": tmp_path / "R.md", "out": tmp_path}
    leave_one_out.main(LeaveOneOut(demo_folder, seeds=Names("3,5"), **options))
    *pretrainings, (script, arguments) = commands
    assert [name for name, _ in pretrainings] == ["pretrain/simclr.py"] * 6 and script == "downstream/evaluate.py"
    configs = [read_config(Config, arguments) for _, arguments in pretrainings]
    assert {(config.hold_out, config.seed) for config in configs} == {
        (Names(name), seed) for name in ("bottle", "hazelnut", "leather") for seed in (3, 5)
    }
    assert all(config.steps == 5 and config.data == demo_folder for config in configs)
    study = read_config(Evaluate, arguments)
    assert study.protocol == "leave-one-out" and study.size_px == 64 and study.record == tmp_path / "R.md"
    assert study.encoder == Names(str(config.out / "encoder.safetensors") for config in configs)
    # Each seed of the study takes the next encoder of those that did not see the category.
    assert study.seeds == Names("0,1") and study.test == Names("bottle,hazelnut,leather")


def test_groups_are_left_out_together(demo_folder, commands, tmp_path):
    leave_one_out.main(LeaveOneOut(demo_folder, groups="bottle,leather", out=tmp_path))
    assert len(commands) == 2
    assert read_config(Config, commands[0][1]).hold_out == Names("bottle,leather")


def test_a_command_that_fails_ends_it(demo_folder, monkeypatch, tmp_path):
    failed = subprocess.CompletedProcess([], 2)
    monkeypatch.setattr(subprocess, "run", lambda command, check: failed)
    with pytest.raises(UserError, match="pretrain/simclr.py ended with exit code 2"):
        leave_one_out.main(LeaveOneOut(demo_folder, out=tmp_path))
    with pytest.raises(UserError, match="did you mean bottle"):
        leave_one_out.main(LeaveOneOut(demo_folder, Names("botle"), out=tmp_path))
