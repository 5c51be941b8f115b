"""Frames become parts, and each part gets one signal: a verdict in time, or a fault."""

import threading
import time
from collections.abc import Iterator

import pytest
from line_here import surroundings, until

from downstream.service.models import Models
from downstream.stations import station as module
from downstream.stations.config import Station as Options
from downstream.stations.contract import Frame, Source
from downstream.stations.deadlines import Deadlines
from downstream.stations.model import SharedModel
from downstream.stations.outbox import Outbox
from downstream.stations.sources.config import Push
from downstream.stations.station import Station
from downstream.stations.triggers.config import Call, Every
from pretrain.data.decode import decode


class Camera(Source):
    """Gives what the test puts into it; hangs or fails when it is told to."""

    made = []

    def __init__(self, options: object, surroundings: object) -> None:
        self.problem, self._frames, self._changed = None, [], threading.Condition()
        self.is_stopped, self.error = False, None
        Camera.made.append(self)

    def frames(self) -> Iterator[Frame]:
        while not self.is_stopped:
            with self._changed:
                self._changed.wait_for(lambda: self._frames or self.is_stopped or self.error, 0.1)
                frame = self._frames.pop(0) if self._frames else None
            if self.error:
                raise self.error
            if frame is not None:
                yield frame

    def put(self, pixels, name: str = "") -> None:
        with self._changed:
            self._frames.append(Frame(name, time.monotonic(), pixels=pixels))
            self._changed.notify_all()

    def stop(self) -> None:
        self.is_stopped = True


class Waits(Camera):
    """One that has time."""

    is_live = False


@pytest.fixture(scope="module")
def model(padim_folder):
    made = SharedModel(Models(padim_folder, 4), padim_folder.name, 4)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def pictures(demo_folder):
    """A good one and a defective one, as the model of the test says."""
    nuts = demo_folder / "hazelnut/test"
    good = decode(sorted((nuts / "good").iterdir())[0]).pixels
    bad = good.copy()
    bad[60:140, 60:140] = (255, 0, 255)
    return good, bad


@pytest.fixture
def line(tmp_path, model, monkeypatch):
    """Makes stations, and takes them down."""
    outbox, deadlines, stations = Outbox(tmp_path), Deadlines(), []

    def make(camera=Camera, trigger=None, **options) -> Station:
        Camera.made = []
        plain = module.made
        monkeypatch.setattr(
            module, "made", lambda of, around: camera(of, around) if isinstance(of, Push) else plain(of, around)
        )
        station = Station(Options("cap", Push(), trigger or Every(), **{"budget_ms": 20_000.0, **options}),
                          surroundings(tmp_path, "cap"), outbox, model, deadlines)  # fmt: skip
        station.start()
        stations.append(station)
        return station

    make.outbox = outbox
    yield make
    for station in stations:
        station.stop()
        station.drain(5)
    deadlines.stop()
    outbox.close()


@pytest.fixture
def held(model, monkeypatch):
    """The model waits until this is set."""
    opened, predict = threading.Event(), model.loaded.inspector.method.predict
    monkeypatch.setattr(model.loaded.inspector.method, "predict", lambda batch: (opened.wait(60), predict(batch))[1])
    yield opened
    opened.set()


def signals(line, count: int) -> list:
    until(lambda: len(line.outbox.last_signals(99)) >= count)
    return line.outbox.last_signals(99)[::-1]


def test_each_frame_gets_the_verdict_of_the_model(line, pictures):
    station = line(waiting="queue")
    for picture in (*pictures, pictures[0]):
        station.source.put(picture)
    found = signals(line, 3)
    assert [each.verdict for each in found] == ["pass", "fail", "pass"] and [each.part for each in found] == [1, 2, 3]
    assert found[1].regions and found[1].score > found[1].threshold and found[1].version
    assert found[0].digest == found[2].digest != found[1].digest
    until(lambda: station.newest and station.newest.signal == found[2])
    assert station.newest.picture(True).width > 0


def test_one_verdict_of_three_frames(line, pictures):
    good, bad = pictures
    for rule, expected in (("any", "fail"), ("majority", "pass")):
        station = line(frames=3, verdict=rule, waiting="queue")
        for picture in (good, bad, good):
            station.source.put(picture)
        until(lambda station=station: station.newest)
        assert (station.newest.signal.verdict, station.newest.signal.frames) == (expected, 3)


def test_a_verdict_that_cannot_be_written_is_a_fault(line, pictures):
    line(threshold=float("nan")).source.put(pictures[0])
    (found,) = signals(line, 1)
    assert (found.verdict, found.reason) == ("fault", "a fault of heldout (ValueError)")


def test_another_threshold_decides_otherwise(line, pictures):
    station = line(threshold=1e9)
    station.source.put(pictures[1])
    (found,) = signals(line, 1)
    assert (found.verdict, found.threshold) == ("pass", 1e9)


def test_a_model_that_hangs_makes_faults_and_never_a_pass(line, pictures, held):
    station = line(waiting="queue", budget_ms=100.0, queue=2)
    for _ in range(5):
        station.source.put(pictures[0])
    found = signals(line, 5)
    assert {each.verdict for each in found} == {"fault"} and sorted(each.part for each in found) == [1, 2, 3, 4, 5]
    assert {each.reason for each in found} <= {"no verdict within 100 ms", "too many parts wait"}
    held.set()
    time.sleep(0.2)
    assert len(line.outbox.last_signals(99)) == 5  # late verdicts are none


def test_the_newest_frame_wins_and_the_others_are_counted(line, pictures, held):
    station = line()
    station.source.put(pictures[0], "first")
    until(lambda: station.state(0).busy)
    for number in range(4):
        station.source.put(pictures[0], str(number))
    until(lambda: station.dropped == 3)
    held.set()
    assert [each.name for each in signals(line, 2)] == ["first", "3"]
    until(lambda: station.state(0).passed == 2)
    assert station.state(0).dropped == 3


def test_a_part_that_was_called_gets_the_next_frame(line, pictures):
    station = line(trigger=Call())
    station.source.put(pictures[0], "before")
    time.sleep(0.1)
    part_id = station.open_part("seventeen")
    assert station.state(0).busy
    station.source.put(pictures[1], "after")
    (found,) = signals(line, 1)
    assert (found.id, found.name, found.verdict) == (part_id, "seventeen", "fail")


def test_a_called_part_without_a_frame_is_a_fault_in_time(line):
    station = line(trigger=Call(), budget_ms=150.0)
    start_s = time.monotonic()
    part = station.called("x")
    assert part.signal.result(20).reason == "no verdict within 150 ms" and time.monotonic() - start_s >= 0.15


def test_more_calls_than_may_wait_are_faults_at_once(line):
    station = line(trigger=Call(), queue=2)
    parts = [station.called(str(number)) for number in range(4)]
    assert [part.signal.result(20).reason for part in parts[2:]] == ["too many parts wait"] * 2
    assert not parts[0].signal.done()
    station.stop()
    station.drain(0.1)
    assert parts[0].signal.result(20).reason == "the line was stopped"


def test_frames_that_are_too_early_for_a_call_are_left_out(line, pictures):
    station = line(trigger=Call(delay_ms=300.0))
    station.open_part("x")
    station.source.put(pictures[1])
    time.sleep(0.4)
    station.source.put(pictures[0])
    assert signals(line, 1)[0].verdict == "pass"


def test_what_is_no_image_is_a_fault(line):
    station = line(waiting="queue")
    station.source._frames.append(Frame("torn.png", time.monotonic(), data=b"\x89PNG\r\n\x1a\nnot really"))
    (found,) = signals(line, 1)
    assert found.verdict == "fault" and "no image that can be read" in found.reason


def test_a_source_that_fails_is_made_anew(line, pictures, monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)
    station = line()
    station.source.error = ConnectionError("the cable")
    until(lambda: len(Camera.made) == 2)
    assert "the cable" in station.problem() and station.state(0).mode == "fault"
    until(lambda: station.source is Camera.made[1])
    station.source.put(pictures[0])
    assert signals(line, 1)[0].verdict == "pass" and station.state(0).mode == "running"


def test_a_source_that_cannot_be_made_is_tried_again(line, pictures, monkeypatch):
    class Mounted(Camera):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments)
            if len(Camera.made) in (2, 3):
                raise FileNotFoundError("the folder is gone")

    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)
    station = line(camera=Mounted)
    station.source.error = ConnectionError("the cable")
    until(lambda: len(Camera.made) == 4 and station.source is Camera.made[3])
    station.source.put(pictures[0])
    assert signals(line, 1)[0].verdict == "pass" and station.problem() is None


def test_a_source_that_is_silent_is_left_and_another_one_made(line, pictures):
    station = line(silence_s=0.2)
    first = station.source
    until(lambda: station.problem() == "no frame for 0.2 s")
    station.heed_silence()
    until(lambda: station.source is not first)
    assert first.is_stopped
    station.source.put(pictures[0])
    assert signals(line, 1)[0].verdict == "pass"


def test_a_source_with_time_loses_nothing_and_waits(line, pictures, held):
    station = line(camera=Waits, budget_ms=5_000.0)
    for number in range(6):
        station.source.put(pictures[0], str(number))
    time.sleep(0.3)
    held.set()
    found = signals(line, 6)
    assert [each.name for each in found] == [*"012345"] and {each.verdict for each in found} == {"pass"}
    assert station.dropped == 0
