"""A host that listens to Sparkplug's topics at a real broker: births, data by number, deaths, and nothing lost."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from line_here import surroundings, until
from made_signals import TIME, verdict
from mosquitto import mosquitto
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from downstream.service.database import now
from downstream.stations.contract import StationState
from downstream.stations.delivery import Delivery
from downstream.stations.outbox import Outbox
from downstream.stations.sinks.config import Mqtt
from downstream.stations.sinks.mqtt import MqttSink
from downstream.stations.sinks.sparkplug import REBIRTH, SIGNAL, STATE, EdgeNode, Payload
from pretrain.command import UserError

# What code made of the published sparkplug_b.proto writes.
PUBLISHED = bytes.fromhex(
    "08fbd8c1a28c3412200a0c5369676e616c2f53636f726518e4d8c1a28c34200a69000000000000f43f12170a095369676e616c2f496418e4d8"
    "c1a28c3428017a016112120a05626453657118e4d8c1a28c342004580712170a0a53746174652f4275737918e4d8c1a28c34200b700112180a"
    "0b5369676e616c2f4e616d6518e4d8c1a28c34200c380118ff01"
)


class Heard(list):
    """(kind, payload) of each message that a host has, in order."""

    def of(self, kind: str) -> list:
        return [payload for other, payload in self if other == kind]

    def ids(self) -> list[str]:
        """Of signals in data."""
        metrics = [metric for payload in self.of("DDATA") for metric in payload.metrics]
        return [metric.string_value for metric in metrics if metric.name == "Signal/Id"]


@pytest.fixture
def broker(tmp_path):
    with mosquitto(tmp_path) as started:
        yield started


@pytest.fixture
def host(broker) -> Iterator[tuple[Client, Heard]]:
    client, heard = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5), Heard()
    ready = []
    client.on_subscribe = lambda *_: ready.append(True)
    client.on_message = lambda _, __, message: heard.append(
        (message.topic.split("/")[2], Payload.FromString(message.payload))
    )
    client.connect("127.0.0.1", broker.port)
    client.subscribe([(f"spBv1.0/plant/{kind}/#", 1) for kind in ("NBIRTH", "DBIRTH", "DDATA", "NDEATH")])
    client.loop_start()
    until(lambda: ready)
    yield client, heard
    client.disconnect()
    client.loop_stop()


@pytest.fixture
def sink(broker, host, tmp_path):
    options = Mqtt(f"mqtt://127.0.0.1:{broker.port}", sparkplug="plant/line 1")
    made = MqttSink(options, surroundings(tmp_path))
    made.open()
    yield made
    made.close()


def metrics(payload) -> dict:
    return {metric.name: metric for metric in payload.metrics}


def check_numbers(heard: Heard) -> None:
    """Each message of a life has the next number, and a death is that of the birth before."""
    expected = birth = None
    for kind, payload in heard:
        if kind == "NDEATH":
            assert metrics(payload)["bdSeq"].long_value == birth
            continue
        if kind == "NBIRTH":
            expected, birth = 0, metrics(payload)["bdSeq"].long_value
        assert payload.seq == expected, kind
        expected = (expected + 1) % 256


def test_payloads_are_those_of_the_published_definition():
    assert Payload.FromString(PUBLISHED).SerializeToString() == PUBLISHED
    assert metrics(Payload.FromString(PUBLISHED))["Signal/Score"].double_value == 1.25


@pytest.mark.parametrize("name", ["plant", "plant/", "plant/line/1", "plant/+"])
def test_what_names_no_edge_node_is_said(name):
    with pytest.raises(UserError, match="sparkplug|topic"):
        Mqtt("mqtt://plant", sparkplug=name).check()


def test_a_command_that_fails_ends_no_thread():
    asks = Payload()
    asks.metrics.add(name=REBIRTH, boolean_value=True)
    EdgeNode(None, "plant/line", ("cap",)).commanded(asks.SerializeToString())  # which can publish no birth


def test_the_page_names_every_metric():
    page = (Path(__file__).resolve().parents[4] / "docs/mqtt.md").read_text()
    assert {*re.findall(r"`((?:State|Signal)/\w+)`", page)} == {*STATE, *SIGNAL}


def test_a_host_sees_a_birth_all_data_and_the_death(sink, host):
    client, heard = host
    until(lambda: heard.of("DBIRTH"))
    node, device = metrics(heard.of("NBIRTH")[0]), metrics(heard.of("DBIRTH")[0])
    assert {*node} == {"bdSeq", REBIRTH} and {*device} == {*STATE, *SIGNAL}
    assert all(metric.is_null and metric.datatype for metric in device.values())
    sink.send(verdict(7, "fail", time=now()))
    sink.send(verdict(8, score=None))
    for beat in range(300):  # numbers go round at 256
        sink.show(StationState("cap", "running", "", False, beat, TIME))
    until(lambda: len(heard.of("DDATA")) == 302)
    fail, late = map(metrics, heard.of("DDATA")[:2])
    assert fail["Signal/Verdict"].string_value == "fail" and fail["Signal/Part"].long_value == 7
    assert not fail["Signal/Verdict"].is_historical and not fail["Signal/Id"].HasField("datatype")
    assert late["Signal/Verdict"].is_historical and late["Signal/Score"].is_null
    assert {*metrics(heard.of("DDATA")[3])} == {"State/Heartbeat"}  # what has changed
    asks = Payload()
    asks.metrics.add(name=REBIRTH, boolean_value=True)
    client.publish("spBv1.0/plant/NCMD/line 1", b"no protobuf")
    client.publish("spBv1.0/plant/NCMD/line 1", asks.SerializeToString())
    until(lambda: len(heard.of("DBIRTH")) == 2)
    again = metrics(heard.of("DBIRTH")[1])
    assert again["Signal/Part"].long_value == 8 and again["State/Heartbeat"].long_value == 299
    sink.close()
    until(lambda: heard.of("NDEATH"))
    check_numbers(heard)


def test_a_cut_network_loses_nothing(sink, host, tmp_path, monkeypatch):
    """Cut just when data goes out, so that it is gone: paho sends the JSON behind it again, and would not send this."""
    heard, outbox, take, lost = host[1], Outbox(tmp_path), sink._node.take, {20, 40}

    def take_or_lose(signal) -> None:
        if signal.part in lost:
            lost.remove(signal.part)
            sink._client.socket().shutdown(socket.SHUT_RDWR)
        else:
            take(signal)

    monkeypatch.setattr(sink._node, "take", take_or_lose)
    until(lambda: heard.of("DBIRTH"))
    delivery = Delivery("plc", sink, ("cap",), outbox)
    delivery.start()
    for part in range(1, 61):
        outbox.finish(verdict(part))
    until(lambda: len({*heard.ids()}) == 60)
    assert list(dict.fromkeys(heard.ids())) == [verdict(part).id for part in range(1, 61)]
    delivery.stop(5)
    births = [metrics(payload)["bdSeq"].long_value for payload in heard.of("NBIRTH")]
    until(lambda: len(heard.of("NDEATH")) == len(births))
    assert len(births) >= 2 and births == sorted({*births})
    check_numbers(heard)
    outbox.close()
