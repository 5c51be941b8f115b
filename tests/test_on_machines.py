"""Ray as its users start it for several machines, by `ray start`, each machine here some processes of its own: machines
join, lose their current and are reached from elsewhere; and a Ray that ends under a search. Slow."""

import os
import secrets
import signal
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
from manifests import rows_of

from embeddings import search
from embeddings.config import Extract, Search
from embeddings.extract import extract
from pretrain.command import read_config
from pretrain.data.manifest import write_manifest
from pretrain.data.places import Place
from pretrain.encoder import make_encoder
from pretrain.reading import read_json
from pretrain.tasks import NO_FORKS

if find_spec("ray") is None:
    pytest.skip("needs the extra ray", allow_module_level=True)
pytestmark = pytest.mark.slow
LONGEST_S = 120
CODE = {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])}
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

sys.exit(run_command(main, Spread, sys.argv[1:]))
"""
HANGING = """
import sys
import on_ray
from pretrain.command import run_command
from pretrain.tasks import Spread, tasks_at

def main(config):
    with tasks_at(config) as tasks:
        for _, (_, worker) in tasks.map(on_ray.squared_or_hung, [1, 600, 600]):
            print(worker, flush=True)

sys.exit(run_command(main, Spread, sys.argv[1:]))
"""


class Machines:
    """A head without cores, which keeps Ray's state, and machines of one core each."""

    def __init__(self, folder: Path) -> None:
        self._started: list[psutil.Popen] = []
        token, port, client_port = folder / "token", free_port(), free_port()
        token.write_text(secrets.token_hex(32))
        told = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
        self.environment = os.environ | CODE | NO_FORKS | told
        self.at, self.client_at = f"127.0.0.1:{port}", f"ray://127.0.0.1:{client_port}"
        here = ("--head", "--port", port, "--ray-client-server-port", client_port, "--include-dashboard", "false")
        self._start(0, *here)
        try:
            until(lambda: listens(port) and listens(client_port))
        except BaseException:
            self.close()
            raise

    def join(self) -> psutil.Popen:
        return self._start(1, "--address", self.at)

    def _start(self, cores: int, *words: object) -> psutil.Popen:
        told = ("--block", "--node-ip-address", "127.0.0.1", "--num-cpus", cores, "--object-store-memory", 80 * 2**20)
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *map(str, (*told, *words))]
        machine = psutil.Popen(command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
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
def machines(tmp_path_factory) -> Iterator[Machines]:
    started = Machines(tmp_path_factory.mktemp("ray"))
    yield started
    started.close()


def check_same(out: Path, expected: list[dict]) -> None:
    for ours, theirs in zip(rows_of(out), expected, strict=True):
        names = ("path", "reason", "is_defective", "digest")
        assert [ours[name] for name in names] == [theirs[name] for name in names]
        assert ours["reason"] or ours["score"] == pytest.approx(theirs["score"], rel=1e-5)


def typed(machines: Machines, *words: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, *map(str, words)], cwd=REPOSITORY, env=machines.environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def test_machines_join_a_run_and_die_under_it_and_nothing_is_lost_or_made_twice(
    machines, listed_images, listed_rows, padim_folder, tmp_path
):
    words = (
        "--data",
        listed_images,
        "--model",
        padim_folder,
        "--out",
        tmp_path,
        "--part-images",
        1,
        "--address",
        machines.at,
    )
    driver = typed(machines, "downstream/detect.py", "run", *words)

    def finished() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in (tmp_path / "results").glob("*.parquet")}

    before, deaths = {}, (machines.cut, lambda machine: child_of(machine, "raylet").kill())
    for kill in deaths:
        machine, had = machines.join(), len(before)
        until(lambda: driver.poll() is not None or len(finished()) >= had + 3)  # noqa: B023
        kill(machine)
        before = finished()
        assert had + 3 <= len(before) < len(listed_rows), driver.communicate()
    machines.join()
    out, error = driver.communicate(timeout=LONGEST_S)
    assert driver.returncode == 1 and "Traceback" not in error, (out, error)
    check_same(tmp_path, listed_rows)
    assert before == {file: time_ns for file, time_ns in finished().items() if file in before}


def test_a_client_elsewhere_finds_what_one_process_finds(machines, listed_images, listed_rows, padim_folder, tmp_path):
    machines.join()
    address = ("--address", machines.client_at)
    words = ("--data", listed_images, "--model", padim_folder, "--out", tmp_path / "out", "--part-images", 4, *address)
    driver = typed(machines, "downstream/detect.py", "run", *words)
    out, error = driver.communicate(timeout=LONGEST_S)
    assert driver.returncode == 1 and "Traceback" not in error, (out, error)
    check_same(tmp_path / "out", listed_rows)
    write_manifest(Place.of(str(listed_images)), tmp_path / "images.parquet")
    make_encoder("timm/test_resnet").save(tmp_path / "tiny.safetensors")
    vectors = extract(Extract(data=tmp_path / "images.parquet", encoder=tmp_path / "tiny.safetensors", size_px=32,
                              out=tmp_path / "vectors", precision="32-true", device="cpu"))  # fmt: skip
    words = (next(listed_images.rglob("0*.png")), "--vectors", vectors, "--k", 3, "--device", "cpu", "--shards", 2)
    words = (*words, "--sheet", tmp_path / "found.html", "--json")
    driver = typed(machines, "embeddings/search.py", *words, tmp_path / "there.json", *address)
    out, error = driver.communicate(timeout=LONGEST_S)
    assert driver.returncode == 0, (out, error)
    assert search.main(read_config(Search, list(map(str, (*words, tmp_path / "here.json"))))) == 0
    assert read_json(tmp_path / "there.json") == read_json(tmp_path / "here.json")


@pytest.mark.parametrize("by_client", [False, True])
def test_what_is_under_way_when_the_driver_ends_keeps_no_core(machines, by_client):
    address = ("--address", machines.client_at if by_client else machines.at)
    machine = machines.join()
    driver = typed(machines, "-c", HANGING, *address)
    worker = psutil.Process(int(driver.stdout.readline()))
    until(lambda: "IDLE" not in worker.name())
    driver.send_signal(signal.SIGINT)
    _, error = driver.communicate(timeout=LONGEST_S)
    assert driver.returncode == 130 and "Traceback" not in error, error
    until(lambda: not worker.is_running())
    next_driver = typed(machines, "-c", HANGING, *address)
    assert int(next_driver.stdout.readline()) in {each.pid for each in machine.children(recursive=True)}
    next_driver.kill()
    next_driver.communicate()


@pytest.mark.parametrize("victim", ["gcs_server", "raylet"])
def test_a_search_whose_ray_dies_ends_by_a_sentence(victim):
    asks = psutil.Popen([sys.executable, "-c", SEARCHING, "--address", "local"], env=os.environ | CODE, text=True,
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    try:
        assert asks.stdout.readline() == "ready\n"
        child_of(asks, victim).kill()
        check_ends(asks)
    finally:
        if asks.is_running():
            end([asks, *asks.children(recursive=True)])


def test_a_search_by_a_client_whose_ray_dies_ends_by_a_sentence(machines):
    machines.join()
    asks = typed(machines, "-c", SEARCHING, "--address", machines.client_at)
    assert asks.stdout.readline() == "ready\n", asks.communicate()
    machines.close()
    check_ends(asks)


def check_ends(asks: subprocess.Popen) -> None:
    start_s = time.monotonic()
    _, error = asks.communicate(timeout=LONGEST_S)
    assert asks.returncode == 2 and "error: Ray has ended" in error and "Traceback" not in error, error
    assert time.monotonic() - start_s < 45


def child_of(process: psutil.Process, name: str) -> psutil.Process:
    return next(each for each in process.children(recursive=True) if each.name() == name)


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
