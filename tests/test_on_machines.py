"""Ray as its users start it for several machines, by `ray start`, each machine here some processes of its own: machines
join, lose their current and are reached from elsewhere. Slow."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from conftest import REPOSITORY
from manifests import images_to_inspect, rows_of, run_manifest

from embeddings import search
from embeddings.config import Extract, Search
from embeddings.extract import extract
from pretrain.command import read_config
from pretrain.data.manifest import write_manifest
from pretrain.data.places import Place
from pretrain.encoder import make_encoder
from pretrain.reading import read_json

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


class Machines:
    """A head without cores, which stores Ray's state, and machines of one core each."""

    def __init__(self) -> None:
        self._started: list[psutil.Popen] = []
        self._port, self.client_port = free_port(), free_port()
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")]),
            "RAY_ADDRESS": f"127.0.0.1:{self._port}",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        here = ("--head", "--port", self._port, "--ray-client-server-port", self.client_port)
        self._start(0, *here, "--include-dashboard", "false")
        until(lambda: listens(self._port) and listens(self.client_port))

    def join(self) -> psutil.Popen:
        return self._start(1, "--address", f"127.0.0.1:{self._port}")

    def _start(self, cores: int, *words: object) -> psutil.Popen:
        told = ("--block", "--node-ip-address", "127.0.0.1", "--num-cpus", cores, "--object-store-memory", 80 * 2**20)
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *map(str, (*told, *words))]
        # `ray start` refuses the address in the environment beside --head
        environment = {name: value for name, value in self.environment.items() if name != "RAY_ADDRESS"}
        machine = psutil.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._started.append(machine)
        return machine

    def cut(self, machine: psutil.Popen) -> None:
        """As if it lost its current."""
        family = [machine, *machine.children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        end([*family, *machine.children(recursive=True)])
        machine.wait()

    def close(self) -> None:
        for machine in self._started:
            if machine.is_running():
                self.cut(machine)


@pytest.fixture
def machines() -> Iterator[Machines]:
    started = Machines()
    yield started
    started.close()


@pytest.fixture(scope="module")
def images(demo_folder, tmp_path_factory):
    return images_to_inspect(tmp_path_factory.mktemp("many") / "images", demo_folder)


@pytest.fixture(scope="module")
def inspected(images, padim_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    assert run_manifest(images, padim_folder, out) == 1
    return rows_of(out)


def check_same(out: Path, expected: list[dict]) -> None:
    for ours, theirs in zip(rows_of(out), expected, strict=True):
        names = ("path", "reason", "is_defective", "digest")
        assert [ours[name] for name in names] == [theirs[name] for name in names]
        assert ours["reason"] or ours["score"] == pytest.approx(theirs["score"], rel=1e-5)


def typed(machines: Machines, *words: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, *map(str, words)], cwd=REPOSITORY, env=machines.environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def test_machines_join_a_run_and_die_under_it_and_nothing_is_lost_or_made_twice(
    machines, images, inspected, padim_folder, tmp_path
):
    words = ("--data", images, "--model", padim_folder, "--out", tmp_path, "--part-images", 1, "--address", "auto")
    driver = typed(machines, "downstream/detect.py", "run", *words)
    results = tmp_path / "results"
    first = machines.join()
    until(lambda: driver.poll() is not None or len([*results.glob("*.parquet")]) >= 3)
    machines.cut(first)
    before = {file: file.stat().st_mtime_ns for file in results.glob("*.parquet")}
    assert 3 <= len(before) < len(inspected), driver.communicate()
    machines.join()
    out, error = driver.communicate(timeout=LONGEST_S)
    assert driver.returncode == 1 and "Traceback" not in error, (out, error)
    check_same(tmp_path, inspected)
    assert before == {file: file.stat().st_mtime_ns for file in before}


def test_a_client_elsewhere_finds_what_one_process_finds(machines, images, inspected, padim_folder, tmp_path):
    machines.join()
    address = ("--address", f"ray://127.0.0.1:{machines.client_port}")
    words = ("--data", images, "--model", padim_folder, "--out", tmp_path / "out", "--part-images", 4, *address)
    driver = typed(machines, "downstream/detect.py", "run", *words)
    out, error = driver.communicate(timeout=LONGEST_S)
    assert driver.returncode == 1 and "Traceback" not in error, (out, error)
    check_same(tmp_path / "out", inspected)
    write_manifest(Place.of(str(images)), tmp_path / "images.parquet")
    make_encoder("timm/test_resnet").save(tmp_path / "tiny.safetensors")
    vectors = extract(Extract(data=tmp_path / "images.parquet", encoder=tmp_path / "tiny.safetensors", size_px=32,
                              out=tmp_path / "vectors", precision="32-true", device="cpu"))  # fmt: skip
    words = (next(images.rglob("0*.png")), "--vectors", vectors, "--k", 3, "--device", "cpu", "--shards", 2)
    words = (*words, "--sheet", tmp_path / "found.html", "--json")
    driver = typed(machines, "embeddings/search.py", *words, tmp_path / "there.json", *address)
    out, error = driver.communicate(timeout=LONGEST_S)
    assert driver.returncode == 0, (out, error)
    assert search.main(read_config(Search, list(map(str, (*words, tmp_path / "here.json"))))) == 0
    assert read_json(tmp_path / "there.json") == read_json(tmp_path / "here.json")


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


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def listens(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


def until(is_so) -> None:
    deadline_s = time.monotonic() + LONGEST_S
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
