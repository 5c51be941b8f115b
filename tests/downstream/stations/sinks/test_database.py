"""Signals are results of the service, each once."""

from line_here import surroundings
from made_signals import verdict

from downstream.service.database import Database, ResultFilter
from downstream.stations.sinks import config
from downstream.stations.sinks.database import DatabaseSink

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
