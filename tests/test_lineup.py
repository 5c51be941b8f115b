"""Who takes part: every line of methods.py, and what is missing is named."""

import pytest

from downstream import lineup
from downstream.lineup import FAMILIES, FURTHER, built, entrants, not_built
from pretrain.command import Mistake


def test_every_built_method_takes_part():
    assert {one.name for one in entrants()} == set(built())
    assert {"logistic", "knn", "fine-tuned", "padim", "bank", "residual", "mean", "frame"} <= set(built())


def test_quick_drops_no_method():
    assert [one.name for one in entrants(quick=True)] == [one.name for one in entrants()]


def test_controls_take_part_whatever_was_asked_for():
    assert [one.name for one in entrants(["padim"])] == ["padim", "mean", "frame"]


def test_a_mistyped_method_is_a_mistake():
    with pytest.raises(Mistake, match="did you mean padim"):
        entrants(["padin"])


def test_one_line_adds_a_method(monkeypatch):
    monkeypatch.setitem(lineup.METHODS, "new", "baselines.trivial.MeanPicture")
    (new,) = (one for one in entrants() if one.name == "new")
    assert new.family == FURTHER and new.sees_normals and not new.takes_encoder


def test_what_is_built_and_what_is_not_is_all_there_is_to_be():
    missing = {name for names in not_built().values() for name in names}
    planned = {name for names in FAMILIES.values() for name in names}
    assert missing | set(built()) >= planned and not missing & set(built())


def test_who_needs_other_categories():
    needing = {one.name for one in entrants() if one.needs_training}
    assert {"logistic", "knn", "fine-tuned", "residual"} <= needing
    assert not needing & {"padim", "bank", "mean", "frame"}
