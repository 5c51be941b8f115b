"""A whole line in this process: cameras that fail, receivers that are away, and an end in which nothing is lost."""

import shutil
import sqlite3
import threading
import time

import pytest
from line_here import running, until
from serving_here import serving_here

from downstream.stations import supervisor as module
from downstream.stations.config import Config
from downstream.stations.lamps import Lamps
from downstream.stations.reading_config import read_line
from downstream.stations.signal import Signal
from downstream.stations.supervisor import Supervisor
from pretrain.command import UserError


@pytest.fixture
def nuts(demo_folder):
    return demo_folder / "hazelnut/test"


def replay(path, name="nut", **more) -> dict:
    return {"name": name, "budget_ms": 20_000, "waiting": "queue", "queue": 99,
            "source": {"type": "replay", "path": str(path), "rate": 50, **more}}  # fmt: skip


def test_stations_share_a_model_and_the_line_ends_with_its_sources(onnx_file, tmp_path, nuts):
    folder = shutil.copytree(nuts / "good", tmp_path / "in")
    stations = [replay(nuts), replay(nuts / "good", "lid", waits=True, loops=2)]
    sinks = [{"type": "csv", "path": str(tmp_path / "out.csv"), "stations": "lid"},
             {"type": "images", "path": str(tmp_path / "sorted"), "verdicts": "fail"}]  # fmt: skip
    with running(onnx_file, tmp_path, stations, sinks) as here:
        assert here.ended.wait(60)
        assert len(here.line._models) == 1
        found = here.line.status()
    count = len(list(nuts.rglob("*.png")))
    by_name = {each["station"]: each for each in found["stations"]}
    assert by_name["nut"]["parts"] == count and by_name["nut"]["faults"] == 0 and by_name["nut"]["failed"] > 0
    assert by_name["lid"]["parts"] == 2 * len(list(folder.iterdir())) and by_name["lid"]["mode"] == "stopped"
    assert 0 < by_name["nut"]["latency_ms"]["p50"] <= by_name["nut"]["latency_ms"]["p99"]
    steps = by_name["nut"]["steps_ms"]
    assert [*steps["p50"]] == ["waiting", "decoding", "judging", "writing"] and steps["p50"]["judging"] > 0
    assert all(0 <= ms <= by_name["nut"]["latency_ms"]["p99"] for ms in steps["p50"].values())
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1 + by_name["lid"]["parts"]
    failed = by_name["nut"]["failed"] + by_name["lid"]["failed"]
    assert len(list((tmp_path / "sorted").rglob("*.png"))) == failed
    assert [each["waiting"] for each in found["sinks"]] == [0, 0]
    assert not list((tmp_path / "state/images").iterdir())  # all sinks have them


def test_what_the_line_judged_is_reviewed_on_the_service_s_page(onnx_file, tmp_path, nuts):
    sink = {"type": "database", "results": str(tmp_path / "results.sqlite"), "kept_images": str(tmp_path / "images")}
    with running(onnx_file, tmp_path, [replay(nuts / "good", waits=True)], [sink]) as here:
        assert here.ended.wait(60)
        signals = here.signals()
        assert here.line.status()["images_removed"] == 0
    with serving_here(onnx_file, tmp_path) as serving:

        def waiting() -> list[dict]:
            answer = serving.client.get("/api/feedback/queue").json()
            assert answer["versions"][0]["version"] == signals[0].version
            return [image["result"] for image in answer["images"]]

        assert {each["name"] for each in waiting()} == {f"nut {each.part} {each.name}" for each in signals}
        first = next(each for each in waiting() if not each["is_defective"])
        assert serving.client.get(f"/api/images/kept/{first['digest']}").headers["content-type"] == "image/jpeg"
        said = serving.client.post("/api/feedback", json={"result": first["id"], "verdict": "missed_defect"})
        assert said.status_code == 200, said.text
        assert first["id"] not in {each["id"] for each in waiting()}


def test_a_folder_is_judged_once_whatever_is_restarted(onnx_file, tmp_path, nuts):
    (tmp_path / "in").mkdir()
    station = {"name": "nut", "budget_ms": 20_000, "source": {"type": "folder", "path": str(tmp_path / "in"),
                                                             "settle_s": 0.1}}  # fmt: skip
    names = []
    for number, path in enumerate(sorted((nuts / "good").iterdir())[:4]):
        shutil.copy(path, tmp_path / "in" / path.name)
        names.append(path.name)
        if number % 2:
            with running(onnx_file, tmp_path, [station]) as here:
                assert [each.name for each in here.wait_for(len(names))] == names
                time.sleep(0.3)
                assert [each.part for each in here.signals()] == [*range(1, len(names) + 1)]


def test_one_dead_source_is_alone_and_the_heartbeat_goes_on(onnx_file, tmp_path, nuts):
    dead = {"name": "dead", "source": {"type": "video", "url": "rtsp://127.0.0.1:1/none", "timeout_s": 1}}
    with running(onnx_file, tmp_path, [replay(nuts / "good", loops=0), dead], port=0) as here:
        here.wait_for(5)
        until(lambda: here.station("dead").state(0).mode == "fault")
        before = dict(here.line._heartbeats)
        until(lambda: all(here.line._heartbeats[name] > before[name] for name in before))
        assert here.station("nut").state(0).mode == "running"
        assert not here.line.is_well() and here.client.get("/health").status_code == 503


def test_without_a_disk_there_is_no_heartbeat_and_no_pass(onnx_file, tmp_path, nuts, monkeypatch):
    monkeypatch.setattr("downstream.stations.outbox.RETRY_S", 0.05)
    stations = [{"name": "nut", "budget_ms": 200, "source": {"type": "push"}}]
    with running(onnx_file, tmp_path, stations, port=0) as here:
        image = next((nuts / "good").iterdir()).read_bytes()
        here.client.post("/api/stations/nut/parts", content=image)
        outbox = here.line._outbox
        outbox._asked(lambda connection: connection.execute("PRAGMA busy_timeout=1").fetchone()).result(5)
        blocker = sqlite3.connect(outbox.path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        answered = []
        asking = threading.Thread(
            target=lambda: answered.append(here.client.post("/api/stations/nut/parts", content=image))
        )
        asking.start()
        until(lambda: outbox.problem)
        beats = here.line._heartbeats["nut"]
        time.sleep(1.5)
        assert here.line._heartbeats["nut"] <= beats + 1 and here.station("nut").state(0).mode == "fault"
        blocker.execute("ROLLBACK")
        blocker.close()
        asking.join(30)
        assert answered[0].json()["verdict"] == "fault"


def test_a_damaged_file_is_a_fault_that_is_said_and_lamps_show(onnx_file, tmp_path, nuts):
    stations = [{"name": "nut", "budget_ms": 20_000, "source": {"type": "push"}}]
    image = next((nuts / "good").iterdir()).read_bytes()
    with running(onnx_file, tmp_path, stations, [{"type": "csv", "path": str(tmp_path / "o.csv")}], port=0) as here:
        first = here.client.post("/api/stations/nut/parts", content=image).json()
    lamps = Lamps(3600)
    with running(onnx_file, tmp_path, stations, [{"type": "csv", "path": str(tmp_path / "o.csv")}], port=0) as here:
        lamps.take(Signal(**first))
        lamps.show(here.station("nut").state(0))
        assert lamps.shown().passes
        with open(here.line._outbox.path, "r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * 4096 * 20)
        answer = here.client.post("/api/stations/nut/parts", content=image)
        assert answer.status_code == 503 and "take it for a fault" in answer.json()["detail"]
        state = here.client.get("/api/status").json()["stations"][0]
        assert state["mode"] == "fault" and "malformed" in state["reason"] and here.station("nut").tally.counts == {}
        lamps.show(here.station("nut").state(0))
        assert lamps.shown().faults and not lamps.shown().passes
        assert here.client.get("/health").status_code == 503
        beats = here.line._heartbeats["nut"]
        time.sleep(1.2)
        assert here.line._heartbeats["nut"] == beats
    config = Config(stations=stations, models=onnx_file, state=tmp_path / "state", port=0, device="cpu")
    with pytest.raises(UserError, match="line.sqlite cannot be used .*: put it aside"):
        Supervisor(config, read_line(config))


def test_a_damaged_file_keeps_no_station_waiting(onnx_file, tmp_path, nuts):
    """A source that is not live waits for the signal of each part before it gives the next."""
    with running(onnx_file, tmp_path, [replay(nuts, waits=True)], []) as here:
        here.wait_for(2)
        with open(here.line._outbox.path, "r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * 4096 * 20)
        assert here.ended.wait(30)


def test_a_stopped_line_ends_what_it_began(onnx_file, tmp_path, nuts):
    with running(onnx_file, tmp_path, [replay(nuts, loops=0)], [{"type": "csv", "path": str(tmp_path / "o.csv")}],
                 ) as here:  # fmt: skip
        here.wait_for(5)
    connection = sqlite3.connect(tmp_path / "state/line.sqlite")
    assert connection.execute("SELECT COUNT(*) FROM open_parts").fetchone() == (0,)
    count = connection.execute("SELECT COUNT(*) FROM signals WHERE verdict != 'fault'").fetchone()[0]
    connection.close()
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 1 + count


def test_a_sink_knows_the_stations_that_it_is_of_alone(onnx_file, tmp_path, nuts, monkeypatch):
    told, plain = [], module.made
    monkeypatch.setattr(module, "made", lambda options, around: (told.append(around), plain(options, around))[1])
    sinks = [{"type": "csv", "path": str(tmp_path / "o.csv"), "stations": "lid"}]
    with running(onnx_file, tmp_path, [replay(nuts), replay(nuts, "lid")], sinks):
        assert told[0].station is None and told[0].stations == ("lid",)


def test_two_lines_do_not_share_a_state(onnx_file, tmp_path, nuts):
    with running(onnx_file, tmp_path, [replay(nuts, loops=0)]):
        config = Config(stations=[replay(nuts)], models=onnx_file, state=tmp_path / "state")
        with pytest.raises(UserError, match="another process runs a line in"):
            Supervisor(config, read_line(config))


def test_states_are_shown_to_a_sink_at_changes_and_with_each_heartbeat(onnx_file, tmp_path, nuts, monkeypatch):
    from downstream.stations.sinks.csv import CsvSink

    shown = []
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(CsvSink, "show", lambda self, state: shown.append(state))
    sinks = [{"type": "csv", "path": str(tmp_path / "o.csv")}]
    with running(onnx_file, tmp_path, [replay(nuts / "good")], sinks) as here:
        assert here.ended.wait(60)
    assert any(state.busy for state in shown) and shown[-1].mode == "stopped"
    assert [state.heartbeat for state in shown] == sorted(state.heartbeat for state in shown)
    assert shown[-1].parts == len(list((nuts / "good").iterdir()))
