"""What could not run is said before anything starts, and who does not answer is named."""

import socket

import pytest

from downstream.inspection.inspector import Inspector
from downstream.stations import checks
from downstream.stations.checks import check, check_models, unanswered
from downstream.stations.config import Config
from downstream.stations.options import Address
from downstream.stations.reading_config import read_line
from downstream.stations.sinks.config import Stdout
from downstream.stations.supervisor import Supervisor
from pretrain.command import UserError
from pretrain.data.channels import Channels
from pretrain.data.levels import Range

PUSH = {"name": "cap", "source": {"type": "push"}}


def checked(station: dict, sinks=(), **options) -> None:
    config = Config(stations=[{**PUSH, **station}], sinks=list(sinks), **{"port": 5001, **options})
    check(config, read_line(config))


def test_what_can_run_passes(models_folder, monkeypatch):
    monkeypatch.delenv("HELDOUT_TOKEN", raising=False)
    checked({"model": "mean"}, models=models_folder)


@pytest.mark.parametrize(
    ("station", "options", "words"),
    [({"model": "hazlenut"}, {}, "there is no model hazlenut in .*; did you mean hazelnut?"),
     ({}, {}, "there are 2 models: name one"),
     ({"model": "mean"}, {"port": None}, "reached over the line's HTTP: give it a port"),
     ({"model": "mean", "trigger": {"type": "call"}}, {}, "each image of its source is a part"),
     ({"model": "mean", "frames": 2}, {}, "each image of its source is a part"),
     ({"model": "mean"}, {"host": "0.0.0.0"}, "give --token-file FILE or HELDOUT_TOKEN"),
     ({"model": "mean"}, {"port": 70000}, "there is no port 70000"),
     ({"model": "mean"}, {"batch_size": 0}, "have to be 1 or more")],
)  # fmt: skip
def test_what_cannot_is_said(models_folder, monkeypatch, station, options, words):
    monkeypatch.delenv("HELDOUT_TOKEN", raising=False)
    with pytest.raises(UserError, match=words):
        checked(station, models=models_folder, **options)


def test_a_camera_of_8_bits_and_a_model_of_more_are_told_apart(models_folder, tmp_path):
    """Each part would be a fault, of a line whose check says that all is right."""
    deep = Inspector.load(models_folder / "mean")
    deep.channels = Channels((Range(0, 4095),))
    deep.save(tmp_path / "deep")
    camera = {"name": "cap", "source": {"type": "video", "url": "/dev/video0"}}
    for station, models in (({**camera, "model": "mean"}, models_folder), (PUSH, tmp_path)):
        config = Config(stations=[station], models=models)
        check_models(config, read_line(config))
    config = Config(stations=[camera], models=tmp_path, state=tmp_path / "state")
    words = "station cap: a camera gives 8 bits a channel, and the model deep judges values from 0 to 4095"
    for checking in (check_models, Supervisor):
        with pytest.raises(UserError, match=words):
            checking(config, read_line(config))


def test_a_folder_without_models_is_said(tmp_path):
    with pytest.raises(UserError, match="there is no model in"):
        checked({}, models=tmp_path)


def test_two_on_one_port_are_named(models_folder, monkeypatch):
    monkeypatch.setattr(Stdout, "listens", lambda self: [Address("127.0.0.1", 5001)])
    with pytest.raises(UserError, match="sink stdout and the line's own HTTP have one port, 5001"):
        checked({"model": "mean"}, [{"type": "stdout"}], models=models_folder)
    monkeypatch.setattr(Stdout, "listens", lambda self: [Address("127.0.0.1", 0)])
    checked({"model": "mean"}, [{"type": "stdout"}, {"type": "stdout", "name": "b"}], models=models_folder, port=0)


@pytest.mark.parametrize(
    ("station", "sinks", "words"),
    [({"type": "folder", "path": "in"}, [], "station cap, source and station lid, source have .*the folder .*/in:"),
     ({"type": "push"}, [{"type": "csv", "path": "a.csv"}, {"type": "csv", "name": "b", "path": "./a.csv"}],
      "sink csv and sink b have one and the same, the file .*/a.csv:"),
     ({"type": "video", "url": "/dev/video0"}, [], "the camera /dev/video0"),
     ({"type": "push"}, [{"type": "mqtt", "url": "mqtt://plant"}, {"type": "mqtt", "name": "b", "url": "mqtt://plant"}],
      "sink mqtt and sink b have one and the same, the topic heldout at plant:1883:"),
     ({"type": "push"}, [{"type": "mqtt", "name": name, "url": "mqtt://plant", "topic": name, "sparkplug": "g/n"}
                         for name in ("a", "b")], "the edge node g/n at plant:1883:")],
)  # fmt: skip
def test_what_only_one_may_have_is_named(models_folder, tmp_path, monkeypatch, station, sinks, words):
    monkeypatch.chdir(tmp_path)
    stations = [{"name": name, "source": station, "model": "mean"} for name in ("cap", "lid")]
    config = Config(stations=stations, sinks=sinks, models=models_folder, port=0)
    with pytest.raises(UserError, match=words):
        check(config, read_line(config))


def test_an_extra_that_is_missing_is_named(models_folder, monkeypatch):
    monkeypatch.setattr(Stdout, "needs", ("no_such_module", "line"))
    with pytest.raises(UserError, match=r"sink stdout: it needs no_such_module: pip install -e '.\[line\]'"):
        checked({"model": "mean"}, [{"type": "stdout"}], models=models_folder)


def test_who_does_not_answer_is_named_without_the_password(monkeypatch):
    monkeypatch.setattr(checks, "ANSWER_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        there, away = listening.getsockname()[1], closed.getsockname()[1]
        source = {"type": "video", "url": f"rtsp://127.0.0.1:{away}/1"}
        sinks = [{"type": "webhook", "name": name, "url": f"http://127.0.0.1:{port}/x"}
                 for name, port in (("mes", there), ("erp", away))]  # fmt: skip
        warnings = unanswered(read_line(Config(stations=[{"name": "cap", "source": source}], sinks=sinks)))
    assert [warning.partition(" (")[0] for warning in warnings] == [
        f"station cap, source: nobody answers at 127.0.0.1:{away}", f"sink erp: nobody answers at 127.0.0.1:{away}",
    ]  # fmt: skip
