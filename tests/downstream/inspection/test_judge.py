"""One image judged by a threshold, by an area and by zones; at another threshold as a model that has it would."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from baselines.contract.threshold import Threshold
from downstream.inspection.decision import AreaRule
from downstream.inspection.inspector import Inspector
from downstream.inspection.judge import Answer
from downstream.inspection.roi import DrawnRoi
from downstream.inspection.zones import ZoneLimit, ZoneRule
from pretrain.command import UserError
from pretrain.data.decode import Decoded
from pretrain.data.images import Problem

SIDE = 32
IMAGE = Decoded(np.zeros((SIDE, SIDE, 3), np.uint8), 2 * SIDE, 2 * SIDE)
GOOD = [0.5, 0.7, 0.8]
FILE = Path("a.png")


def at(value: float) -> Threshold:
    return Threshold(value, 0.1, len(GOOD), "typed")


def square(x: int) -> list:
    return [[x, 0], [x + SIDE, 0], [x + SIDE, 2 * SIDE], [x, 2 * SIDE]]


DRAWN = DrawnRoi.from_json(
    {
        "image_size": [2 * SIDE, 2 * SIDE],
        "zones": [{"name": "left", "include": [square(0)]}, {"name": "right", "include": [square(SIDE)]}],
    }
)
ZONES = ZoneRule([ZoneLimit("left", 0, at(2.0)), ZoneLimit("right", 4, at(4.0))], at(1.0), GOOD)
RULES = {
    "a score": {},
    "a score and regions": {"map_threshold": at(1.5)},
    "no small regions": {"map_threshold": at(1.5), "minimum_area_px": 80},
    "an area": {"area_rule": AreaRule(16, at(1.0), GOOD)},
    "zones": {"drawn_roi": DRAWN, "zone_rule": ZONES},
}


def model(**rule: object) -> Inspector:
    return Inspector(None, "nut", SIDE, at(1.0), normal_scores=GOOD, metadata={"aspect": 1.0}, **rule)


@pytest.fixture
def answer() -> Answer:
    """A spot of 4 x 4 px of the map on the left, 8 x 8 px of the image."""
    anomaly_map = np.full((SIDE, SIDE), 0.1, np.float32)
    anomaly_map[8:12, 4:8] = 3.0
    return Answer(1.4, anomaly_map, 0.2, 0.3)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("threshold", [0.5, 1.3, 1.45, 2.9, 3.5])
def test_another_threshold_judges_as_a_model_of_it(name, threshold, answer):
    moved = model(**RULES[name]).judged(FILE, IMAGE, answer, 1.0, None)
    moved = model(**RULES[name]).at_threshold(moved, threshold)
    other = model(**RULES[name])
    other.decide_at(threshold)
    expected = other.judged(FILE, IMAGE, answer, 1.0, None)
    assert replace(moved, anomaly_map=None) == replace(expected, anomaly_map=None)
    assert np.array_equal(moved.anomaly_map, expected.anomaly_map)


@pytest.mark.parametrize(
    ("name", "score", "is_defective", "count"),
    [("a score", 1.4, True, 0), ("a score and regions", 1.4, True, 1), ("no small regions", 1.4, False, 0),
     ("an area", 3.0, True, 1), ("zones", 1.5, True, 1)],
)  # fmt: skip
def test_each_rule_decides_by_what_it_counts(name, score, is_defective, count, answer):
    found = model(**RULES[name]).judged(FILE, IMAGE, answer, 1.0, None)
    assert found.score == pytest.approx(score) and found.is_defective is is_defective and len(found.regions) == count
    assert (found.distance, found.disagreement) == (0.2, 0.3) and not found.is_distorted


def test_an_image_that_is_smaller_than_the_area_is_a_problem_and_a_map_of_no_numbers_an_error(answer):
    found = model(area_rule=AreaRule(100 * SIDE**2, at(1.0), GOOD)).judged(FILE, IMAGE, answer, 1.0, None)
    assert isinstance(found, Problem) and found.path == FILE and "a minimum area of" in found.reason
    with pytest.raises(UserError, match="finite"):
        model(map_threshold=at(1.0)).judged(FILE, IMAGE, Answer(2.0, np.full((SIDE, SIDE), np.nan)), 1.0, None)
    assert model().judged(FILE, IMAGE, Answer(2.0, None), 1.0, None).is_defective  # of a method without maps
