"""Tasks in this process, and what is said where there is no Ray. With Ray: tests/test_on_ray.py."""

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
    [(Spread(address="somewhere"), "local, auto or ray://"), (Spread(address="local", patience_s=0), "more than 0")],
)
def test_a_wrong_address_is_a_sentence(where, words):
    with pytest.raises(UserError, match=words), tasks_at(where):
        pass


def test_without_ray_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[ray\]'"), tasks_at(Spread(address="auto")):
        pass


def test_a_ray_that_does_not_start_is_a_sentence(monkeypatch):
    def init(*_, **__):
        raise Exception("The current node timed out during startup.\nMore of it")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init, is_initialized=lambda: False))
    words = r"no Ray at local \(The current node timed out during startup\.\)"
    with pytest.raises(UserError, match=words), tasks_at(Spread(address="local")):
        pass


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
