"""Counts, percentiles and rates of what was done of late."""

from downstream.stations import tally as module
from downstream.stations.tally import Tally


def test_percentiles_are_those_of_the_last_parts(monkeypatch):
    tally = Tally()
    assert tally.latency_ms(0.5) is None and tally.rate_per_s() == 0
    for ms in range(1, 101):
        tally.add("pass" if ms % 4 else "fault", float(ms))
    assert (tally.latency_ms(0.5), tally.latency_ms(0.99)) == (51.0, 100.0)
    assert tally.counts == {"pass": 75, "fault": 25}


def test_steps_are_those_of_parts_that_went_all_the_way():
    tally = Tally()
    assert tally.steps_ms(0.5) == {}
    for ms in range(1, 101):
        tally.add("pass", 4.0 * ms, [1.0, 2.0, float(ms), 0.0])
        tally.add("fault", 1.0, [9.0])
    assert tally.steps_ms(0.99) == {"waiting": 1.0, "decoding": 2.0, "judging": 100.0, "writing": 0.0}
    assert tally.steps_ms(0.5)["judging"] == 51.0 and tally.counts == {"pass": 100, "fault": 100}


def test_the_rate_is_of_the_last_minute(monkeypatch):
    now_s = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now_s[0])
    tally = Tally()
    for _ in range(200):
        now_s[0] += 0.5
        tally.add("pass", 1.0)
    assert abs(tally.rate_per_s() - 2.0) < 0.05
    now_s[0] += 30
    assert abs(tally.rate_per_s() - 1.0) < 0.05
    now_s[0] += 60
    assert tally.rate_per_s() == 0
