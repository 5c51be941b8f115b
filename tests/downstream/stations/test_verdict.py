"""Verdicts of several frames, beside what counting by hand says."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from downstream.inspection.inspection import Inspection
from downstream.inspection.zones import ZoneResult
from downstream.stations.model import NotJudged
from downstream.stations.verdict import decide, reason_of

GOOD = Inspection(Path(), 8, 8, 0.5, 1.0, False, 0.9, 1.0)
BAD = replace(GOOD, score=1.5, is_defective=True)


@pytest.mark.parametrize("rule", ["any", "majority", "max"])
def test_rules_are_what_counting_says(rule):
    for frames in itertools.product((GOOD, BAD), repeat=3):
        bad = sum(frame is BAD for frame in frames)
        expected = {"any": bad >= 1, "majority": bad >= 2, "max": bad >= 1}[rule]
        decided = decide(frames, rule)
        assert decided.fails == expected and frames[decided.frame].is_defective == expected


def test_half_is_no_majority():
    assert not decide([GOOD, BAD], "majority").fails


def test_max_follows_the_highest_score_also_where_it_is_good_by_its_regions():
    small = replace(GOOD, score=9.0)  # above its threshold, by regions too small
    assert decide([small, BAD], "max") == (False, 0) and decide([small, BAD], "any") == (True, 1)


def test_the_frame_that_stands_for_it_has_the_highest_score_of_those_that_say_so():
    worse = replace(BAD, score=3.0)
    assert decide([BAD, worse, GOOD], "any").frame == 1
    assert decide([GOOD, replace(GOOD, score=0.9), BAD], "majority") == (False, 1)


def test_a_score_that_is_no_number_is_no_verdict():
    with pytest.raises(NotJudged, match="no number"):
        decide([GOOD, replace(GOOD, score=float("nan"))], "any")


def test_reasons_are_in_words():
    zones = [ZoneResult("rim", 2.0, 1.0, True), ZoneResult("hub", 0.1, 1.0, False)]
    assert reason_of(replace(BAD, zones=zones, is_distorted=True), True).startswith("in rim; drawn out of shape")
    assert reason_of(replace(GOOD, has_other_size=True), False) == "larger or smaller than the model's images"
    assert reason_of(GOOD, False) == ""
