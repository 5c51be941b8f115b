"""Drawings: the curve is the AUROC's, and names cannot break out of them."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from markupsafe import Markup
from sklearn.metrics import roc_auc_score

from downstream.report.charts import BINS, Curve, histogram, roc_chart, roc_points

LABELS = np.arange(40) % 2 == 0
SCORES = np.random.default_rng(0).normal(size=(3, 40)) + LABELS
HOSTILE = '</title><script>alert("1")</script>'


def area(points: list[tuple[float, float]]) -> float:
    x, y = zip(*points, strict=True)
    return float(np.trapezoid(y, x))


def test_the_area_under_the_curve_is_the_auroc():
    assert area(roc_points(LABELS, SCORES[0])) == pytest.approx(roc_auc_score(LABELS, SCORES[0]))
    labels = np.arange(4000) % 2 == 0
    scores = np.random.default_rng(1).normal(size=(3, 4000)) + labels
    expected = np.mean([roc_auc_score(labels, of_seed) for of_seed in scores])
    assert area(roc_points(labels, scores)) == pytest.approx(expected, abs=1e-3)  # the steps of few images add some
    assert roc_points(LABELS, SCORES)[-1] == (1.0, 1.0)


def test_charts_are_whole_svg_with_a_path_for_each_curve():
    chart = roc_chart([Curve("a", "c0", [(0, 0), (1, 1)]), Curve("b", "c1 dashed", [(0, 0), (0, 1), (1, 1)])], "nut")
    paths = [element.get("class") for element in ET.fromstring(chart) if element.tag == "path"]
    assert [style for style in paths if style.startswith("curve")] == ["curve c0", "curve c1 dashed"]


def test_names_are_escaped():
    for chart in (
        roc_chart([Curve(HOSTILE, "c0", [(0, 0), (1, 1)])], HOSTILE),
        histogram(LABELS, SCORES[0], 0.5, HOSTILE),
    ):
        assert isinstance(chart, Markup) and "<script>" not in chart
        assert ET.fromstring(chart).get("aria-label") == HOSTILE


@pytest.mark.parametrize("threshold", [0.5, 100.0])
def test_histograms_hold_good_ones_above_and_defective_ones_below_the_axis(threshold):
    bars = [element for element in ET.fromstring(histogram(LABELS, SCORES[0], threshold, "")) if element.tag == "rect"]
    middle = 37.0
    for bar in bars:
        top, height = float(bar.get("y")), float(bar.get("height"))
        assert (top == middle) if bar.get("class") == "bad" else top + height == pytest.approx(middle, abs=0.11)
    assert {bar.get("class") for bar in bars} == {"good", "bad"} and len(bars) <= 2 * BINS


def test_equal_scores_have_a_histogram():
    assert ET.fromstring(histogram(LABELS, np.ones(40), 1.0, "")) is not None
