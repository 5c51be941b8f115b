"""The command downstream/restore.py, killed while it trains."""

import pytest
import torch
from restorer_runs import COMMANDS, TINY
from stopping import Killed, kill, stop_after

from pretrain.command import run_commands
from pretrain.files import read_tensors


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(demo_folder, tmp_path, capsys, monkeypatch):
    """Killed while it trains, the same command ends where an undisturbed run ends."""
    ends = []
    for number, is_disturbed in enumerate((False, True)):
        out = tmp_path / str(number)
        arguments = ["train", "--data", str(demo_folder), "--steps", "8", "--checkpoint-minutes", "1e-9"]
        arguments += ["--out", str(out), *TINY]
        if is_disturbed:
            with monkeypatch.context() as patched, pytest.raises(Killed):
                stop_after(5, kill, patched)
                run_commands(COMMANDS, arguments)
            assert (out / "checkpoint.safetensors").exists() and not (out / "finished").exists()
        assert run_commands(COMMANDS, arguments) == 0
        assert ("resuming after step" in capsys.readouterr().err) == is_disturbed
        ends.append(read_tensors(out / "model" / "method.safetensors")[0])
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
