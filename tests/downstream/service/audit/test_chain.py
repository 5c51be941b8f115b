"""A chain of entries: whatever is changed, taken out, put in, moved or cut off is said."""

import json
from itertools import pairwise

import pytest

from downstream.service.audit.chain import BEGINNING, Entry, digest_of, entry_from, faults, lost, next_entry


@pytest.fixture
def chain() -> list[Entry]:
    entries: list[Entry] = []
    for number in range(6):
        last = entries[-1] if entries else None
        entries.append(next_entry(last, "2026-01-01T00:00:00.000Z", "Ada", "threshold", "bolt é", number, number + 0.1))
    return entries


def test_a_whole_chain_has_no_fault(chain):
    assert list(faults(chain)) == list(faults([])) == list(lost(chain[:3], chain)) == []
    assert chain[0].previous == BEGINNING and [entry.number for entry in chain] == [1, 2, 3, 4, 5, 6]
    assert all(after.previous == before.digest for before, after in pairwise(chain))


@pytest.mark.parametrize("field", Entry._fields)
def test_a_change_of_any_field_is_found(chain, field):
    other = {"number": 9, "before": "7", "after": "7"}.get(field, "x")
    changed = [*chain[:2], chain[2]._replace(**{field: other}), *chain[3:]]
    assert any("3" in fault for fault in faults(changed))


def test_what_is_missing_or_replaced_is_found(chain):
    assert list(faults([*chain[:2], *chain[3:]])) == ["entry 3 is missing."]
    assert list(faults(chain[2:])) == ["entries 1 to 2 are missing."]
    forged = chain[2]._replace(by="Mallory")
    forged = forged._replace(digest=digest_of(forged))
    assert list(faults([*chain[:2], forged, *chain[3:]])) == [
        "entry 4 does not follow entry 3 as that is now: one of them was replaced."
    ]
    assert len(list(faults([chain[0], chain[2], chain[1], *chain[3:]]))) > 0
    assert len(list(faults([*chain[:2], chain[1], *chain[2:]]))) > 0


def test_an_earlier_export_knows_of_the_end(chain):
    assert list(faults(chain[:4])) == []  # of a cut-off end the chain cannot know
    assert list(lost(chain, chain[:4])) == [f"entry {n} of the earlier export is missing." for n in (5, 6)]
    anew = [next_entry(None, "2026", "Mallory", "threshold", "bolt", 0, 1)]
    assert list(faults(anew)) == []
    assert list(lost(chain[:1], anew)) == ["entry 1 is another one than in the earlier export."]


@pytest.mark.parametrize("text", ["x", "", "NaN", '{"id":1e999}', '"\\ud800"', '{"b": 1}', "[" * 100_000])
def test_what_is_no_value_of_an_entry_is_shown_as_it_is_and_said_to_be_changed(chain, text):
    tampered = [*chain[:2], chain[2]._replace(after=text), *chain[3:]]
    shown = [json.dumps(entry.as_json(), allow_nan=False, ensure_ascii=False).encode() for entry in tampered]
    assert json.loads(shown[2])["after"] == text and len(shown) == 6
    assert list(faults(tampered)) == ["entry 3 was changed: it is not what its digest says."]


def test_an_entry_survives_its_export(chain):
    for entry in chain:
        assert entry_from(json.loads(json.dumps(entry.as_json()))) == entry
