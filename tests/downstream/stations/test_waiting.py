"""A queue with a bound, in which samples give way and parts that were begun never do."""

import threading

import pytest

from downstream.stations.contract import Frame
from downstream.stations.part import Part
from downstream.stations.waiting import Full, Waiting


def part(number: int = 0) -> Part:
    made = Part("cap", "", 0.0, 1e9, [Frame("", 0.0)] * 2)
    made.number = number
    return made


def test_one_more_than_may_wait_is_refused():
    waiting, parts = Waiting(2), [part(1), part(2)]
    for each in parts:
        waiting.put(each)
    with pytest.raises(Full):
        waiting.put(part(3))
    assert [waiting.take(), waiting.take()] == parts


def test_the_newest_sample_wins_and_what_was_begun_stays():
    waiting, begun, first, second = Waiting(2), part(1), part(), part()
    waiting.put(begun)
    waiting.put_newest(first)
    waiting.put_newest(second)
    assert waiting.dropped == 2 and [waiting.take(), waiting.take()] == [begun, second]


def test_a_source_with_time_waits_for_room():
    waiting, parts = Waiting(2), [part(), part()]
    waiting.put_when_empty(parts[0])
    thread = threading.Thread(target=waiting.put_when_empty, args=(parts[1],))
    thread.start()
    assert len(waiting) == 1 and waiting.take() is parts[0]
    thread.join(5)
    assert waiting.take() is parts[1]


def test_closed_it_gives_what_is_left_and_then_nothing():
    waiting, last = Waiting(2), part(1)
    waiting.put(last)
    waiting.close()
    waiting.put_when_empty(part())  # returns at once
    assert waiting.take() is last and waiting.take() is None
