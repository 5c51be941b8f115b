"""A small training of a restorer by the command, and how its refusals are read."""

from pathlib import Path

from downstream import restore
from downstream.restoration.config import Evaluate, Restore, Train
from pretrain.command import run_commands

COMMANDS = {
    "train": (restore.train, Train),
    "evaluate": (restore.evaluate, Evaluate),
    "restore": (restore.restore, Restore),
}
SMALL = ("--encoder", "random", "--channels", "8", "--blocks", "1", "--crop-px", "32", "--batch-size", "2",
         "--device", "cpu")  # fmt: skip
TINY = (*SMALL, "--input-size", "48", "--train", "hazelnut,leather")


def trained(folder: Path, data: Path) -> Path:
    """A finished training of four steps."""
    arguments = ["train", "--data", str(data), "--steps", "4", "--out", str(folder), *TINY, "--track", "tensorboard"]
    assert run_commands(COMMANDS, arguments) == 0
    return folder


def refused(capsys, *arguments: str) -> str:
    """The one sentence of a refusal with exit code 2."""
    assert run_commands(COMMANDS, arguments) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line
