"""What stands in `inspector.json` has the types and numbers that it must have, or is damaged."""

import pytest

from downstream.inspection.decision import AreaRule, decision_from

THRESHOLD = {"value": 1.5, "false_alarm_rate": 0.05, "count": 9, "why": "because"}
RULE = {"minimum_area_px": 3, "threshold": THRESHOLD, "normal_scores": [1.0]}
STORED = {
    "category": "nut",
    "size_px": 64,
    "threshold": THRESHOLD,
    "map_threshold": None,
    "minimum_area_px": 0,
    "normal_scores": [1.0, 2],
    "metadata": {},
    "area_rule": RULE,
}
DRAWN = {"name": "thread", "include": [[[0, 0], [30, 0], [30, 30]]]}
ZONES = {"zones": [{"name": "thread", "minimum_area_px": 0, "threshold": THRESHOLD}], "threshold": THRESHOLD,
         "normal_scores": [1.0]}  # fmt: skip


def test_what_was_written_is_taken():
    taken = decision_from(**STORED)
    assert taken["threshold"]._asdict() == THRESHOLD and taken["normal_scores"] == [1.0, 2]
    assert isinstance(taken["area_rule"], AreaRule) and taken["area_rule"].threshold.value == 1.5
    zoned = decision_from(**STORED, drawn_roi={"zones": [DRAWN], "image_size": [64, 64]}, zone_rule=ZONES)
    assert [zone.name for zone in zoned["zone_rule"].zones] == ["thread"]
    least = decision_from("nut", 64, THRESHOLD)
    assert least["map_threshold"] is None and least["area_rule"] is None and least["normal_scores"] == []


@pytest.mark.parametrize(
    "change",
    [
        {"category": 3},
        {"category": None},
        {"size_px": "64"},
        {"size_px": 0},
        {"size_px": 64.0},
        {"size_px": True},
        {"size_px": 2**80},
        {"threshold": None},
        {"threshold": [1]},
        {"threshold": {**THRESHOLD, "value": "high"}},
        {"threshold": {**THRESHOLD, "value": float("nan")}},
        {"threshold": {**THRESHOLD, "count": -1}},
        {"threshold": {**THRESHOLD, "more": 1}},
        {"map_threshold": 3},
        {"minimum_area_px": -1},
        {"normal_scores": "1.0"},
        {"normal_scores": [1.0, None]},
        {"normal_scores": [[1.0]]},
        {"normal_scores": [10**400]},
        {"metadata": [1]},
        {"area_rule": {**RULE, "normal_scores": [float("inf")]}},
        {"area_rule": {}},
        {"area_rule": "rule"},
        {"drawn_roi": {"zones": [DRAWN]}, "zone_rule": ZONES},
        {
            "drawn_roi": {"zones": [{**DRAWN, "include": [[[300, 0], [310, 0], [310, 9]]]}], "image_size": [64, 64]},
            "zone_rule": ZONES,
        },
        {"drawn_roi": {"include": DRAWN["include"]}},
        {"unknown": 1},
    ],
    ids=str,
)
def test_anything_else_is_refused(change):
    with pytest.raises((TypeError, ValueError, KeyError)):
        decision_from(**{**STORED, **change})
