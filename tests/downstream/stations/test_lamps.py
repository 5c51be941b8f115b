"""Whatever is missing, old or on its way is no pass."""

from datetime import UTC, datetime, timedelta

import pytest
from made_signals import TIME, verdict

from downstream.stations import lamps as module
from downstream.stations.contract import StationState
from downstream.stations.lamps import Lamps


@pytest.fixture
def clock(monkeypatch):
    """`clock[0]` is the monotonic time."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def state(mode="running", busy=False) -> StationState:
    return StationState("cap", mode, "", busy, 7, TIME)


def fresh(said="pass", part=1, age_s=0.0):
    begun = datetime.now(UTC) - timedelta(seconds=age_s)
    return verdict(part, said, time=begun.isoformat(timespec="milliseconds").replace("+00:00", "Z"), latency_ms=0)


def lit(lamps: Lamps) -> str:
    shown = lamps.shown()
    names = ("passes", "fails", "busy", "faults")
    return " ".join(name for name in names if getattr(shown, name))


def test_at_the_start_at_the_end_and_without_a_heartbeat_it_is_a_fault(clock):
    lamps = Lamps(5)
    assert lit(lamps) == "faults"
    lamps.take(fresh())
    assert lit(lamps) == "faults"  # a pass of a line that is not known to run
    lamps.show(state())
    assert lit(lamps) == "passes" and lamps.shown().heartbeat == 7
    for mode in ("fault", "stopped"):
        lamps.show(state(mode))
        assert lit(lamps) == "faults"
    lamps.show(state())
    clock[0] += 2.9
    assert lit(lamps) == "passes"
    clock[0] += 0.2
    assert lit(lamps) == "faults"


@pytest.mark.parametrize("said", ["pass", "fail", "fault"])
def test_a_verdict_is_shown_while_it_is_fresh(clock, said):
    lamps = Lamps(2)
    lamps.show(state())
    lamps.take(fresh(said))
    assert lit(lamps) == {"pass": "passes", "fail": "fails", "fault": "faults"}[said]
    clock[0] += 2
    assert lit(lamps) == "faults" and lamps.shown().signal.verdict == said


def test_a_signal_that_waited_on_disk_is_no_word_on_the_part_of_now(clock):
    lamps = Lamps(5)
    lamps.show(state())
    lamps.take(fresh(age_s=3600))
    assert lit(lamps) == "faults"


def test_the_pass_of_the_part_before_ends_when_the_next_begins(clock):
    lamps = Lamps(5)
    lamps.show(state())
    lamps.take(fresh())
    lamps.show(state(busy=True))
    assert lit(lamps) == "busy"
    lamps.show(state())
    assert lit(lamps) == "busy"  # its signal comes a moment later
    lamps.take(fresh("fail", 2))
    assert lit(lamps) == "fails"
    lamps.show(state(busy=True))
    lamps.show(state())
    clock[0] += 1
    assert lit(lamps) == "faults"  # it did not come
