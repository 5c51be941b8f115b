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
