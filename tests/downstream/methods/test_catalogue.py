"""Who takes part: every line of methods.py, and nothing that was planned is missing."""

import pytest
from downstream.methods.lineup import FAMILIES, FURTHER, built, entrants

from downstream.methods import lineup
from pretrain.command import UserError


def test_every_built_method_takes_part():
    assert {one.name for one in entrants()} == set(built())
    assert {"logistic", "knn", "fine-tuned", "padim", "bank", "residual", "mean", "frame"} <= set(built())


def test_quick_drops_no_method():
    assert [one.name for one in entrants(quick=True)] == [one.name for one in entrants()]


def test_controls_take_part_whatever_was_asked_for():
    assert [one.name for one in entrants(["padim"])] == ["padim", "mean", "frame"]


def test_a_mistyped_method_is_a_mistake():
    with pytest.raises(UserError, match="did you mean padim"):
        entrants(["padin"])


def test_one_line_adds_a_method(monkeypatch):
    monkeypatch.setitem(lineup.METHODS, "new", "baselines.trivial.MeanImage")
    (new,) = (one for one in entrants() if one.name == "new")
    assert new.family == FURTHER and new.sees_normals and not new.takes_encoder


def test_every_planned_method_is_built():
    assert {name for names in FAMILIES.values() for name in names} <= set(built())


def test_who_needs_other_categories():
    needing = {one.name for one in entrants() if one.needs_training}
    assert {"logistic", "knn", "fine-tuned", "residual"} <= needing
    assert not needing & {"padim", "bank", "mean", "frame"}
