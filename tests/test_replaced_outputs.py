"""Whatever is written in place of an older output: of a writer that is killed at any step, or has no room, the old one
is left or the new one, whole. What is only ever added to, and what a database keeps, has tests of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("killed_writers.py")
OUTPUTS = ("a file", "a file of tensors", "a model", "a decision", "an index", "results of an inspection",
           "OpenVINO's two files", "a folder", "a version", "the figures of a run", "the demo's images")  # fmt: skip


@pytest.fixture(scope="module")
def steps(tmp_path_factory) -> dict[str, int | str]:
    """How many steps each writer was killed at, or what did not hold; by a process that can be forked in a moment."""
    command = [sys.executable, SCRIPT, tmp_path_factory.mktemp("replaced")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return {name.partition(":")[0]: found for name, found in json.loads(done.stdout).items()}


def test_all_outputs_are_tried(steps):
    assert steps.keys() == {*OUTPUTS}


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_old_one_is_whole_or_the_new_one(name, steps):
    assert isinstance(steps[name], int), steps[name]
    assert steps[name] > 4
