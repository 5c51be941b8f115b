"""Tasks in this process, and what is said where there is no Ray. With Ray: tests/test_on_ray.py."""

import subprocess
import sys
from itertools import count, islice

import pytest

from pretrain.command import UserError
from pretrain.tasks import Here, Spread, tasks_at


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


def test_neither_ray_nor_parquet_is_imported_before_it_is_asked_for():
    code = "import sys, pretrain.manifest, pretrain.tasks; sys.exit(bool({'ray', 'pyarrow', 'torch'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
