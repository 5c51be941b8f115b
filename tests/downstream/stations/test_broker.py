"""What reaches no broker is refused before anything starts."""

from pathlib import Path

import pytest

from downstream.stations.sinks.config import Mqtt
from downstream.stations.triggers import config as triggers
from pretrain.command import UserError


@pytest.mark.parametrize(
    ("values", "words"),
    [({"url": "http://broker"}, "write mqtt://HOST"), ({"url": "mqtt://me:secret@broker"}, "has a password in it"),
     ({"topic": "a/#"}, "none to publish to"), ({"topic": "/a"}, "none to publish to"),
     ({"ca": "x"}, "write mqtts://"), ({"url": "mqtts://broker", "ca": "x"}, "there is no file x")],
)  # fmt: skip
def test_what_reaches_no_broker_is_refused(values, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "ca" in values:
        values = {**values, "ca": Path(values["ca"])}
    for kind in (Mqtt, triggers.Mqtt):
        with pytest.raises(UserError, match=words):
            kind(**{"url": "mqtt://broker", **values}).check()


def test_its_port_follows_from_tls():
    assert [str(*Mqtt(f"{scheme}://broker").reaches()) for scheme in ("mqtt", "mqtts")] == [
        "broker:1883",
        "broker:8883",
    ]
    triggers.Mqtt("mqtt://broker").check()  # its topic follows from its station
