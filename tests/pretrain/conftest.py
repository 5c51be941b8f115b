"""What the tests of pretraining share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def finished(demo_folder, make_once) -> tuple[Path, str]:
    """A whole run of six steps, and what it printed."""

    def make(out: Path) -> None:
        from simclr_runs import pretrain  # whose imports take seconds

        done = pretrain(demo_folder, out, "--track", "tensorboard")
        assert done.returncode == 0, done.stderr
        out.with_suffix(".txt").write_text(done.stdout)

    out = make_once("runs/simclr", make)
    return out, out.with_suffix(".txt").read_text()
