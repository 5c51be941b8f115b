"""The command downstream/restore.py, killed while it trains."""

import signal
import subprocess
import sys
import time

import torch
from conftest import REPOSITORY
from restorer_runs import COMMANDS, TINY

from pretrain.command import run_commands
from pretrain.files import read_tensors


def test_a_killed_run_resumes_to_the_same_weights(demo_folder, tmp_path, capsys):
    """Killed while it trains, as often as it takes, the same command ends where an undisturbed run ends."""
    ends = []
    for number, is_disturbed in enumerate((False, True)):
        out = tmp_path / str(number)
        arguments = ["train", "--data", str(demo_folder), "--steps", "40", "--checkpoint-minutes", "0.005"]
        arguments += ["--out", str(out), *TINY]
        if is_disturbed:
            command = [sys.executable, str(REPOSITORY / "downstream/restore.py"), *arguments]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            deadline = time.monotonic() + 120
            while not (out / "checkpoint.safetensors").exists() and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert not (out / "finished").exists(), "it was too quick to be killed"
        assert run_commands(COMMANDS, arguments) == 0
        assert ("resuming after step" in capsys.readouterr().err) == is_disturbed
        ends.append(read_tensors(out / "model" / "method.safetensors")[0])
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
