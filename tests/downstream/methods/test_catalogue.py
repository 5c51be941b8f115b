"""The catalogue: what is listed can be imported, and takes part where its entry says so."""

import pytest

from downstream.methods.catalogue import CONTROLS, METHODS, PATCHES, Entry, detect_class, study_methods
from pretrain.command import UserError


def test_every_method_takes_part_in_the_study():
    assert [method.name for method in study_methods()] == list(METHODS)
    assert {"logistic", "knn", "fine-tuned", "padim", "patchcore", "residual", "mean", "frame"} <= set(METHODS)


def test_quick_drops_no_method():
    assert [method.name for method in study_methods(quick=True)] == [method.name for method in study_methods()]


def test_controls_take_part_whatever_was_asked_for():
    assert [method.name for method in study_methods(["padim"])] == ["padim", "mean", "frame"]
    assert [method.name for method in study_methods(["frame"])] == ["frame", "mean"]


def test_a_mistyped_method_is_a_mistake():
    with pytest.raises(UserError, match="did you mean padim"):
        study_methods(["padin"])
    with pytest.raises(UserError, match="did you mean patchcore"):
        detect_class("patchcor")


def test_one_entry_adds_a_method(monkeypatch):
    monkeypatch.setitem(METHODS, "new", Entry("new", "new", PATCHES, "baselines.trivial.MeanImage"))
    (new,) = (method for method in study_methods() if method.name == "new")
    assert new.family == PATCHES and new.sees_normals and not new.takes_encoder
    monkeypatch.setitem(METHODS, "new", Entry("new", "new", PATCHES, "baselines.trivial.MeanImage", in_study=False))
    assert "new" not in {method.name for method in study_methods()}


def test_entries_are_under_their_names_and_made_with_their_arguments():
    """A mistyped path, argument or `start` fails here."""
    for name, entry in METHODS.items():
        assert entry.name == name
    for quick in (False, True):
        for method in study_methods(quick=quick):
            made = method.make(**({"seed": 5} if method.takes_seed else {}))
            assert all(getattr(made, name) == value for name, value in method.arguments.items())
    assert [name for name, entry in METHODS.items() if entry.family == CONTROLS] == ["mean", "frame"]


def test_who_needs_other_categories():
    needing = {method.name for method in study_methods() if method.needs_training}
    assert {"logistic", "knn", "fine-tuned", "residual"} <= needing
    assert not needing & {"padim", "patchcore", "mean", "frame"}
