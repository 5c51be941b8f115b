"""A search whose Ray dies ends by a sentence, and not by Ray's own words after a minute. Slow: it waits for Ray."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec

import psutil
import pytest
from conftest import REPOSITORY

if find_spec("ray") is None:
    pytest.skip("needs the extra ray", allow_module_level=True)
pytestmark = pytest.mark.slow
LONGEST_S = 120
SEARCHING = """
import sys, time
from clustered_vectors import QUERIES, VECTORS
from embeddings.index import Index
from pretrain.actors import objects_at
from pretrain.command import run_command
from pretrain.tasks import Spread

def main(config):
    with objects_at(config) as hold:
        index = Index.build(VECTORS, shards=2, hold=hold)
        print("ready", flush=True)
        while True:
            index.search(QUERIES, 3)
            time.sleep(0.05)

sys.exit(run_command(main, Spread, ["--address", "local"]))
"""


@pytest.mark.parametrize("victim", ["gcs_server", "raylet"])
def test_a_search_whose_ray_dies_ends_by_a_sentence(victim):
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    asks = psutil.Popen([sys.executable, "-c", SEARCHING], env=os.environ | {"PYTHONPATH": path}, text=True,
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    try:
        assert asks.stdout.readline() == "ready\n"
        killed = [each for each in asks.children(recursive=True) if each.name() == victim]
        killed[0].kill()
        start_s = time.monotonic()
        _, error = asks.communicate(timeout=LONGEST_S)
    finally:
        if asks.is_running():
            end([asks, *asks.children(recursive=True)])
    assert asks.returncode == 2 and "error: Ray has ended" in error and "Traceback" not in error, error
    assert time.monotonic() - start_s < 45


def end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
