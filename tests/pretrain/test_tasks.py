"""Tasks in this process, and what is said where there is no Ray. With Ray: tests/test_on_ray.py."""

import re
import socket
import subprocess
import sys
import time
from itertools import count, islice
from types import SimpleNamespace

import pytest

from pretrain.command import UserError
from pretrain.tasks import Connected, Here, Spread, tasks_at


def squared(number: int) -> int:
    return number * number


def test_here_tasks_run_one_by_one_as_they_are_asked_for():
    with tasks_at(Spread()) as tasks:
        assert isinstance(tasks, Here)
        assert list(islice(tasks.map(squared, count()), 3)) == [(0, 0), (1, 1), (2, 4)]


@pytest.mark.parametrize(
    ("where", "words"),
    [(Spread(address="somewhere"), "local, auto, HOST:PORT or ray://"),
     (Spread(address="ray://head"), "local, auto, HOST:PORT or ray://"),
     (Spread(address="head:65536"), "local, auto, HOST:PORT or ray://"),
     (Spread(address="local", patience_s=0), "more than 0")],
)  # fmt: skip
def test_a_wrong_address_is_a_sentence(where, words):
    with pytest.raises(UserError, match=words), tasks_at(where):
        pass


def test_without_ray_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[ray\]'"), tasks_at(Spread(address="auto")):
        pass


ELSEWHERE = """Initialization failure from server:
Traceback (most recent call last):
  File "proxier.py", line 713, in Datapath
    raise RuntimeError(
RuntimeError: Starting Ray client server failed. See ray_client_server_23000.err.
"""


@pytest.mark.parametrize(
    ("raised", "reason"),
    [("The current node timed out during startup.\nMore of it", "The current node timed out during startup."),
     (ELSEWHERE, "RuntimeError: Starting Ray client server failed. See ray_client_server_23000.err."),
     ("", "Exception")],
)  # fmt: skip
def test_a_ray_that_does_not_start_is_a_sentence(raised, reason, monkeypatch):
    def init(*_, **__):
        raise Exception(raised)

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init, is_initialized=lambda: False))
    todo = "try again, or start that Ray anew with GRPC_ENABLE_FORK" if "client server" in reason else "--address local"
    words = re.escape(f"no Ray at local ({reason}); {todo}")
    with pytest.raises(UserError, match=words), tasks_at(Spread(address="local")):
        pass


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_where_nothing_listens_there_is_no_ray(address, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = address.format(server.getsockname()[1])
    with pytest.raises(UserError, match=rf"no Ray at {address} \(.*refused\)"), tasks_at(Spread(address=address)):
        pass


def test_a_module_that_is_lacked_where_a_client_is_answered_is_a_sentence():
    errors = SimpleNamespace(RaySystemError=MemoryError)
    lacks = pytest.raises(UserError, match=r"No module named 'heldout'\): install the same")
    with lacks, Connected(SimpleNamespace(exceptions=errors)).told():
        raise ModuleNotFoundError("No module named 'heldout'")


def test_a_ray_whose_state_cannot_be_reached_or_that_has_no_machine_has_ended(monkeypatch):
    monkeypatch.setattr("pretrain.tasks.UNREACHABLE_S", 0.1)
    monkeypatch.setattr("pretrain.tasks.SECONDS_BETWEEN_LOOKS", 0.1)
    machines = [{"Alive": False}, {"Alive": True}]
    ray = SimpleNamespace(nodes=lambda: machines, wait=lambda *_, timeout, **__: time.sleep(timeout) or ([], []))
    with socket.create_server(("127.0.0.1", 0)) as server:
        state = f"127.0.0.1:{server.getsockname()[1]}"
        assert Connected(ray, state).wait([], seconds=0.2) == []
        machines[1]["Alive"] = False
        with pytest.raises(ConnectionError, match="none of its machines is left"):
            Connected(ray, state).wait([])
    with pytest.raises(ConnectionError, match=f"{state} does not answer"):
        Connected(ray, state).wait([])


def test_neither_ray_nor_parquet_is_imported_before_it_is_asked_for():
    code = "import sys, pretrain.manifest, pretrain.tasks; sys.exit(bool({'ray', 'pyarrow', 'torch'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
