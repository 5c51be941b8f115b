"""What the tests share: a small demo set on disk, and a cache that is thrown away."""

import os
import signal
from pathlib import Path

import pytest

# Before anything imports torch in this process, as `import pretrain` does for a user.
import pretrain  # noqa: F401

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """A test run started in the background ignores Ctrl-C, and so would every process that a test starts to stop it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_session(tmp_path_factory):
    """No test reads or fills the cache of the person who runs it; subprocesses inherit this."""
    before = os.environ.get("HELDOUT_CACHE")
    os.environ["HELDOUT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["HELDOUT_CACHE"]
    else:
        os.environ["HELDOUT_CACHE"] = before


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory) -> Path:
    """Three categories of generated products: 12 train/good, 6 test/good and 3 of each defect."""
    from pretrain.demo import make

    folder = tmp_path_factory.mktemp("data") / "demo"
    make(folder, seed=0, categories=("bottle", "hazelnut", "leather"), train=12, good=6, defective=3)
    return folder
