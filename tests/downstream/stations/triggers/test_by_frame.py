"""Every frame, or one for each interval, without drift."""

from line_here import surroundings

from downstream.stations.contract import Frame
from downstream.stations.triggers import config
from downstream.stations.triggers.by_frame import Every, Interval


def test_every_frame_is_a_part(tmp_path):
    trigger = Every(config.Every(), surroundings(tmp_path))
    assert all(trigger.begins(Frame("", number)) for number in range(3)) and trigger.is_sampling


def test_an_interval_has_one_frame_and_does_not_drift(tmp_path):
    trigger = Interval(config.Interval(100.0), surroundings(tmp_path))
    arrived = [number * 0.03 for number in range(100)]  # of 3 s
    begun = [s for s in arrived if trigger.begins(Frame("", s))]
    assert len(begun) == 30 and begun[0] == 0.0
    assert all(s - number * 0.1 < 0.03 + 1e-9 for number, s in enumerate(begun))


def test_after_a_gap_it_begins_once_and_goes_on(tmp_path):
    trigger = Interval(config.Interval(100.0), surroundings(tmp_path))
    begun = [trigger.begins(Frame("", s)) for s in (0.0, 5.05, 5.06, 5.11)]
    assert begun == [True, True, False, True]
