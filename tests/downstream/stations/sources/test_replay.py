"""A folder is shown at its rate, as often as was asked for."""

import threading
import time

import pytest
from line_here import surroundings

from downstream.stations.sources.config import Replay
from downstream.stations.sources.replay import ReplaySource
from pretrain.command import UserError


@pytest.fixture
def folder(tmp_path):
    for name in "cab":
        (tmp_path / f"{name}.png").write_bytes(b"x")
    return tmp_path


def test_images_come_by_name_at_the_rate_and_end(folder):
    source = ReplaySource(Replay(folder, rate=20.0, loops=2), surroundings(folder))
    frames = list(source.frames())
    assert [frame.name for frame in frames] == ["a.png", "b.png", "c.png"] * 2 and source.is_live
    assert frames[-1].arrived_s - frames[0].arrived_s >= 5 / 20 - 0.001


def test_without_end_it_goes_on_until_it_is_stopped(folder):
    source = ReplaySource(Replay(folder, rate=500.0, loops=0), surroundings(folder))
    threading.Timer(0.2, source.stop).start()
    assert len(list(source.frames())) > 6


def test_one_that_waited_does_not_hurry_afterwards(folder):
    source = ReplaySource(Replay(folder, rate=20.0, waits=True), surroundings(folder))
    arrived = []
    for frame in source.frames():
        arrived.append(frame.arrived_s)
        if len(arrived) == 1:
            time.sleep(0.3)
    assert not source.is_live and arrived[2] - arrived[1] >= 0.049


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no image"):
        ReplaySource(Replay(tmp_path / "empty"), surroundings(tmp_path))
