"""A line's YAML becomes dataclasses; every mistake is one sentence that names the place and the nearest valid word."""

import math

import pytest

from downstream.stations.config import Config
from downstream.stations.options import Secret
from downstream.stations.reading_config import read_line
from downstream.stations.sinks.config import Csv, Webhook
from downstream.stations.sources.config import Folder, Replay
from downstream.stations.triggers.config import Every, Interval
from pretrain.command import UserError, read_config

STATION = {"name": "cap", "source": {"type": "folder", "path": "in"}}


def read(station=(), sinks=(), **more):
    return read_line(Config(stations=[{**STATION, **dict(station)}], sinks=list(sinks), **more))


def test_a_file_is_read_with_its_defaults(tmp_path, monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", "s")
    (tmp_path / "line.yaml").write_text(f"""
models: m
port: 5001
stations:
- name: cap
  source: {{type: replay, path: {tmp_path}, rate: 5}}
  trigger: {{type: interval, ms: 100}}
  frames: 3
  verdict: majority
- {{name: lid, source: {{type: folder, path: in, done: out}}}}
sinks:
- {{type: csv, path: out.csv}}
- {{name: mes, type: webhook, url: "http://mes.example/parts", secret: {{env: HOOK_SECRET}}, stations: lid}}
""")
    config = read_config(Config, ["--config", str(tmp_path / "line.yaml"), "--port", "0"])
    assert (str(config.models), config.port) == ("m", 0)
    line = read_line(config)
    cap, lid = line.stations
    assert (cap.source, cap.trigger, cap.frames) == (Replay(tmp_path, 5.0), Interval(100.0), 3)
    assert isinstance(lid.source, Folder) and lid.trigger == Every() and lid.waiting == "newest"
    csv, mes = line.sinks
    assert csv.name == "csv" and csv.stations == ("cap", "lid") and isinstance(csv.options, Csv)
    assert (mes.name, mes.stations) == ("mes", ("lid",))
    assert isinstance(mes.options, Webhook) and mes.options.secret == Secret(env="HOOK_SECRET")
    assert mes.options.secret.value() == "s"


def test_one_process_may_have_some_of_the_stations():
    line = Config(stations=[STATION, {**STATION, "name": "lid"}], only=("lid",))
    assert [station.name for station in read_line(line).stations] == ["lid"]


@pytest.mark.parametrize(
    ("station", "sinks", "words"),
    [
        ({"modle": "x"}, (), "stations[0]: there is no key modle; did you mean model?"),
        ({"source": {"type": "folder", "pth": "x"}}, (), "stations[0].source: there is no key pth; did you mean path?"),
        ({"source": {"type": "foldr"}}, (), "stations[0].source.type: there is no source foldr; did you mean folder?"),
        ({"source": {"type": "folder"}}, (), "stations[0].source: path must be given."),
        ({"source": {"path": "x"}}, (), "stations[0].source: it has no type; choose from folder"),
        ({"source": "folder"}, (), "stations[0].source must be keys and values, not 'folder'."),
        ({"verdict": "all"}, (), "stations[0].verdict: there is no all; choose from any"),
        ({"frames": 0}, (), "stations[0].frames: 0 makes no station"),
        ({"frames": True}, (), "stations[0].frames must be a whole number, not True."),
        ({"budget_ms": "200ms"}, (), "stations[0].budget_ms must be a number, not '200ms'."),
        ({"threshold": math.nan}, (), "stations[0].threshold: nan is no number for a line: give one up to 1e+09."),
        ({"threshold": -math.inf}, (), "stations[0].threshold: -inf is no number"),
        ({"budget_ms": math.inf}, (), "stations[0].budget_ms: inf is no number"),
        ({"budget_ms": 1e300}, (), "stations[0].budget_ms: 1e+300 is no number"),
        ({"queue": 10**400}, (), "stations[0].queue: 100000000000 is no number"),
        ({"source": {"type": "replay", "path": "/", "rate": math.nan}}, (), "source.rate: nan is no number"),
        ({"source": {"type": "replay", "path": "/", "rate": 1e-300}}, (), "rate has to be 0.0001 or more"),
        ({"trigger": {"type": "interval", "ms": math.nan}}, (), "stations[0].trigger.ms: nan is no number"),
        ({}, [{"type": "modbus", "fresh_s": math.inf}], "sinks[0].fresh_s: inf is no number"),
        ({"name": "cap 1"}, (), "stations[0].name: 'cap 1' is no name"),
        ({"source": {"type": "replay", "path": "/no/such"}}, (), "stations[0].source: there is no folder /no/such."),
        ({"source": {"type": "video", "url": "rtsp://me:secret@cam"}}, (), "rtsp://...@cam has a password in it"),
        ({}, [{"type": "csv", "path": "a"}, {"type": "csv", "path": "b"}], "two sinks are called csv"),
        ({}, [{"type": "csv", "path": "a", "station": "x"}], "there is no key station; did you mean stations?"),
        ({}, [{"type": "csv", "path": "a", "stations": "cup"}], "there is no station cup; did you mean cap?"),
        ({}, [{"type": "webhook", "url": "mes/x"}], "sinks[0]: mes/x is no address: write http://HOST."),
        ({}, [{"type": "webhook", "url": "http://m", "secret": "abc"}], "sinks[0].secret: a secret never stands here"),
        ({}, [{"type": "webhook", "url": "http://m", "secret": {"env": "NO_SUCH"}}], "variable NO_SUCH: put it there"),
        ({}, [{"type": "webhook", "url": "http://m", "secret": {}}], "one of the two"),
    ],
)  # fmt: skip
def test_a_mistake_is_a_sentence_that_names_the_place(station, sinks, words):
    with pytest.raises(UserError) as error:
        read(station, sinks)
    assert words in str(error.value) and "secret@" not in str(error.value)


def test_names_that_stand_twice_or_nowhere_are_refused():
    with pytest.raises(UserError, match="two stations are called cap"):
        read_line(Config(stations=[STATION, STATION]))
    with pytest.raises(UserError, match="--only: there is no station cup; did you mean cap"):
        read(only=("cup",))
    with pytest.raises(UserError, match="no station is named"):
        read_line(Config())
