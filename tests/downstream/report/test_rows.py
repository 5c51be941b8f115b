"""Rows in words and numbers."""

import pytest

from downstream.report.rows import (
    best_figures,
    category_auroc,
    controls_last,
    mean_figure,
    p_value,
    row_title,
    row_variant,
    signed,
    signed_interval,
    study_title,
    without_controls,
)


def row(name: str, auroc: float | None, is_control: bool = False, **others: object) -> dict:
    figures = {"auroc": {"mean": auroc}}
    return {"name": name, "figures": figures, "categories": {"nut": {"figures": figures}}, "is_control": is_control,
            "title": "PaDiM", "encoder": "SimCLR", "shots": "4", "saw": "4 normals", **others}  # fmt: skip


def test_titles_tell_rows_apart():
    assert row_title(row("a", 0.5)) == "PaDiM, SimCLR, 4 normals"
    assert row_variant(row("a", 0.5, shots="", saw="nothing")) == "SimCLR"
    assert row_title(row("a", 0.5, encoder="", shots="all", saw="all normals")) == "PaDiM, all normals"


@pytest.mark.parametrize(
    ("categories", "words"), [(["nut"], "1 test category"), (["nut", "pill"], "2 test categories")]
)
def test_a_study_is_named_by_what_it_tested(categories, words):
    summary = {"data": "mvtec", "protocol": "held-out", "categories": categories, "seeds": [0, 1], "quick": True}
    assert study_title(summary) == f"mvtec, held-out: {words}, 2 seeds, --quick"


def test_the_best_are_all_that_show_as_the_highest_but_no_controls():
    rows = [row("a", 0.8734), row("b", 0.8731), row("c", 0.86), row("d", None), row("control", 0.99, is_control=True)]
    assert best_figures(rows, ["auroc"]) == {("a", "auroc"), ("b", "auroc")}
    assert best_figures([row("d", None)], ["auroc", "f1"]) == set()
    assert best_figures(rows, ["nut", "pill"], category_auroc) == {("a", "nut"), ("b", "nut")}


def test_figures_that_are_not_there_are_none():
    assert mean_figure(row("a", 0.5), "pixel_auroc") is None
    assert category_auroc(row("a", 0.5), "nut") == 0.5 and category_auroc(row("a", 0.5), "pill") is None


def test_controls_stand_last():
    rows = [row("control", 0.5, is_control=True), row("a", 0.5), row("b", 0.5)]
    assert [row["name"] for row in controls_last(rows)] == ["a", "b", "control"]
    assert [row["name"] for row in without_controls(rows)] == ["a", "b"]


def test_differences_have_a_sign_and_nothing_is_less_than_nothing():
    assert [signed(value) for value in (0.012, -0.3, 0.0, -0.0004, 1.0)] == [
        "+.012",
        "-.300",
        "+.000",
        "+.000",
        "+1.000",
    ]
    assert signed_interval([-0.004, 0.027]) == "-.004 to +.027"


def test_small_p_values_are_not_called_nothing():
    assert [p_value(p) for p in (0.21, 0.0009, 1.0)] == ["p = .210", "p < .001", "p = 1.000"]
