"""Signals are results of the service, each once, and are corrected there like any other."""

from hashlib import sha256

import numpy as np
from line_here import surroundings
from made_signals import TIME, verdict

from downstream.service.database import Database, ResultFilter
from downstream.service.feedback.records import Feedback, FeedbackRecords
from downstream.stations.contract import Frame
from downstream.stations.frames import keep_image
from downstream.stations.sinks import config
from downstream.stations.sinks import database as database_sink
from downstream.stations.sinks.database import DatabaseSink
from pretrain.command import Names

REGION = {"area_px": 9, "box": [1, 2, 4, 5], "peak": 1.5, "center": [2, 3]}
JUDGED = dict(digest="0" * 64, width=64, height=48, confidence=0.9)


def test_a_verdict_is_a_result_once_and_a_fault_is_none(tmp_path):
    sink = DatabaseSink(config.Database(str(tmp_path / "results.sqlite")), surroundings(tmp_path))
    signals = [verdict(1, **JUDGED), verdict(2, "fail", regions=[REGION], **JUDGED), verdict(3, "fault", score=None)]
    for signal in (*signals, *signals[::-1]):
        sink.send(signal)
    sink.close()
    database = Database(str(tmp_path / "results.sqlite"))
    found = database.results(ResultFilter(), 10)[::-1]
    database.close()
    assert [(result.name, result.is_defective) for result in found] == [("cap 1 1", False), ("cap 2 2", True)]
    assert found[1].regions == [REGION] and (found[0].width, found[0].height) == (64, 48)
    assert (found[0].model, found[0].model_version, found[0].created) == ("m", "v", signals[0].time)


def test_what_the_line_judged_waits_for_a_person_and_can_be_learned_from(tmp_path):
    """As `detect.py learn` reads it: a file that is what its digest says."""
    around, file = surroundings(tmp_path), str(tmp_path / "results.sqlite")
    signals = [verdict(part, said, frames=1, **JUDGED) for part, said in ((1, "pass"), (2, "fail"), (3, "fail"))]
    for signal in signals[:2]:
        pixels = np.full((48, 64, 3), 50 * signal.part, np.uint8)
        keep_image(Frame("", 0.0, pixels=pixels), around.images_folder, signal.id)
    sink = DatabaseSink(config.Database(file, kept_images=tmp_path / "kept"), around)
    assert sink.wants_images
    for signal in (*signals, *signals):  # of the third no image is there
        sink.send(signal)
    sink.close()
    database = Database(file)
    records = FeedbackRecords(database)
    waiting = records.waiting("m", "v", 10)
    assert [result.name for result in waiting] == ["cap 2 2", "cap 1 1"]
    records.add(Feedback(waiting[1].id, "missed_defect", TIME, "anna", {}, ""))
    (said,) = records.exported(tmp_path / "kept", "m")
    database.close()
    assert said["verdict"] == "missed defect" and not said["was_defective"]
    with open(said["image"], "rb") as image:
        assert sha256(image.read()).hexdigest() == said["image_digest"]


def test_images_that_nobody_wants_or_has_room_for_are_not_kept(tmp_path):
    around = surroundings(tmp_path)
    keep_image(Frame("", 0.0, pixels=np.zeros((48, 64, 3), np.uint8)), around.images_folder, verdict(1).id)
    for number, more in enumerate(({"keep": Names("fail")}, {"free_gb": 1e9})):
        file = str(tmp_path / f"{number}.sqlite")
        sink = DatabaseSink(config.Database(file, kept_images=tmp_path / "kept", **more), around)
        sink.send(verdict(1, frames=1, **JUDGED))
        sink.close()
        database = Database(file)
        assert [result.is_kept for result in database.results(ResultFilter(), 10)] == [False]
        database.close()
    assert not list((tmp_path / "kept").glob("*"))
    assert not DatabaseSink(config.Database(file, kept_images=tmp_path, keep=Names()), around).wants_images
    assert not DatabaseSink(config.Database(file), around).wants_images


def test_an_image_that_is_removed_this_moment_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(database_sink, "awaited", lambda *_: tmp_path / "gone.jpg")
    sink = DatabaseSink(config.Database(str(tmp_path / "results.sqlite"), kept_images=tmp_path / "kept"),
                        surroundings(tmp_path))  # fmt: skip
    sink.send(verdict(1, frames=1, **JUDGED))
    sink.close()
