"""Objects held in this process, and what is said where there is no Ray. With Ray: tests/test_on_ray.py."""

import sys

import pytest

from pretrain.actors import HeldHere, objects_at
from pretrain.command import UserError
from pretrain.tasks import LOCAL, Spread


def numbered(number: int) -> list[int]:
    return [number]


def test_objects_here_are_asked_by_number_and_keep_what_changes():
    with objects_at(Spread()) as hold:
        held = hold(numbered, 3)
    assert isinstance(held, HeldHere)
    held.change("append", {1: (7,), 2: (8,)})
    held.kept(numbered)
    assert held.ask("copy", {2: (), 1: ()}) == {2: [2, 8], 1: [1, 7]}


def test_no_copies_and_no_ray_are_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    ray = Spread(address=LOCAL)
    for where, copies, words in ((ray, 0, "0 copies"), (Spread(), 2, "give --address"), (ray, 1, "not installed")):
        with pytest.raises(UserError, match=words), objects_at(where, copies):
            pass
