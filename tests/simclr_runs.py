"""A small training by the command, in this process, which has imported all that costs a new one some seconds."""

import json
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import torch
from safetensors.torch import load_file

from pretrain.command import run_command
from pretrain.config import Config
from pretrain.simclr import main

TINY = ("--size-px", "32", "--batch", "8", "--steps", "6", "--precision", "32-true", "--hold-out", "bottle",
        "--monitor-every", "3", "--architecture", "timm/test_resnet", "--start", "random",
        "--keep", "last")  # fmt: skip
DEFAULT = ("--architecture", "efficientnet_lite0", "--start", "imagenet")
# How far a loss may be, relative, from a CPU's: docs/scaling.md states it.
NEAR_ON_A_GPU = 0.05


def pretrain(folder: Path, out: Path, *more: str) -> subprocess.CompletedProcess:
    arguments = ["--data", str(folder), "--out", str(out), *TINY, *more]
    output, errors = StringIO(), StringIO()
    with redirect_stdout(output), redirect_stderr(errors):
        try:
            code = run_command(main, Config, arguments)
        except SystemExit as stop:  # an option that cannot be read
            code = stop.code
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "encoder.safetensors")


def assert_same_weights(first: Path, second: Path) -> None:
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def figures(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
