"""Signals and their published schema agree, both ways."""

import json
import os
import uuid
from dataclasses import fields

import jsonschema
import pytest

from downstream.stations.signal import NAMESPACE, Signal, id_of, new_id, signal_schema

REGION = {"area_px": 9, "box": [1, 2, 4, 5], "peak": 1.5, "center": [2, 3]}
JUDGED = Signal(
    new_id(), "cap", 7, "a.png", "fail", "", 1.5, 1.0, "bolt", "0123456789abcdef", "2026-01-31T23:59:59.123Z", 41.5,
    [REGION], "0" * 64, 1,
)  # fmt: skip
FAULT = Signal(new_id(), "cap", 8, "", "fault", "no frame", None, None, None, None, "2026-01-31T23:59:59.123Z", 200.0)


@pytest.mark.parametrize("signal", [JUDGED, FAULT])
def test_what_is_sent_is_as_the_schema_says_and_can_be_read(signal):
    jsonschema.validate(json.loads(signal.to_json()), signal_schema(), jsonschema.Draft202012Validator)
    assert Signal.from_json(signal.to_json()).to_json() == signal.to_json()
    assert "\n" not in signal.to_json()


def test_the_schema_has_every_field_and_refuses_what_is_none():
    assert signal_schema()["required"] == [field.name for field in fields(Signal)]
    for wrong in ({"verdict": "good"}, {"part": 0}, {"digest": "x"}, {"regions": [{"box": []}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(json.loads(JUDGED.to_json()) | wrong, signal_schema())


def test_a_score_that_is_no_number_is_not_sent():
    with pytest.raises(ValueError):
        Signal(**{**vars(JUDGED), "score": float("nan")}).to_json()


def test_ids_follow_from_names_and_else_are_new():
    assert id_of("cap", "a.png") == str(uuid.uuid5(NAMESPACE, "cap\na.png"))
    assert id_of("cap", os.fsdecode(b"\xff.png")) != id_of("cap", os.fsdecode(b"\xfe.png"))
    assert len({id_of("cap", "a.png"), id_of("cap", "b.png"), id_of("lid", "a.png"), new_id(), new_id()}) == 5


def test_fields_of_a_later_version_are_left_out():
    later = json.dumps({**json.loads(FAULT.to_json()), "color": "red"})
    assert Signal.from_json(later).to_json() == FAULT.to_json()
