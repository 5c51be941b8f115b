"""Against a real broker, which is killed: nothing is lost, nothing that is retained says that all is well."""

import json

import pytest
from line_here import surroundings, until
from made_signals import TIME, verdict
from mosquitto import mosquitto
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from downstream.stations.contract import NotDelivered, Refused, StationState
from downstream.stations.delivery import Delivery
from downstream.stations.outbox import Outbox
from downstream.stations.signal import Signal
from downstream.stations.sinks.config import Mqtt
from downstream.stations.sinks.mqtt import MqttSink


@pytest.fixture
def broker(tmp_path):
    with mosquitto(tmp_path, ("allow_anonymous true", "max_packet_size 4000")) as started:
        yield started


@pytest.fixture
def heard(broker):
    """Messages that a receiver at the broker has, by topic; it subscribes again whenever it connects."""
    listening = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
    listening.reconnect_delay_set(1, 1)
    messages: dict[str, list] = {}
    listening.on_connect = lambda *_: listening.subscribe("cell/#", qos=1)
    listening.on_subscribe = lambda *_: messages.setdefault("subscribed", []).append(True)
    listening.on_message = lambda client, _, message: messages.setdefault(message.topic, []).append(message)
    listening.connect_async("127.0.0.1", broker.port)
    listening.loop_start()
    until(lambda: "subscribed" in messages)
    yield messages
    listening.disconnect()
    listening.loop_stop()


@pytest.fixture
def sink(broker, tmp_path):
    made = MqttSink(Mqtt(f"mqtt://127.0.0.1:{broker.port}", topic="cell"), surroundings(tmp_path))
    yield made
    made.close()


def test_a_signal_a_state_and_the_end_of_the_line_are_published(sink, heard):
    sink.open()
    until(lambda: "cell/status" in heard)
    sink.send(verdict(1, "fail"))
    sink.show(StationState("cap", "running", "", True, 7, TIME, parts=1))
    until(lambda: {"cell/cap/signal", "cell/cap/state"} <= {*heard})
    (signal,), (state,) = heard["cell/cap/signal"], heard["cell/cap/state"]
    assert Signal.from_json(signal.payload) == verdict(1, "fail", regions=[]) and signal.qos == 1
    assert signal.properties.UserProperty == [("id", verdict(1).id)] and not signal.retain
    assert json.loads(state.payload)["heartbeat"] == 7 and state.properties.MessageExpiryInterval <= 10
    with pytest.raises(Refused, match="4000 bytes at most"):
        sink.send(verdict(2, reason="x" * 4000))
    sink.close()
    until(lambda: len(heard["cell/status"]) == 2)
    assert [message.payload for message in heard["cell/status"]] == [b"online", b"offline"]


def test_a_broker_that_is_away_is_no_reason_not_to_start(tmp_path, broker):
    broker.kill()
    sink = MqttSink(Mqtt(f"mqtt://127.0.0.1:{broker.port}"), surroundings(tmp_path))
    sink.open()
    sink.show(StationState("cap", "running", "", False, 1, TIME))
    with pytest.raises(NotDelivered, match="does not answer"):
        sink.send(verdict(1))
    sink.close()


def test_a_killed_broker_loses_nothing(sink, heard, broker, tmp_path, monkeypatch):
    outbox, send = Outbox(tmp_path), sink.send

    def send_while_heard(signal: Signal) -> None:
        until(lambda: "subscribed" in heard)  # a broker keeps nothing for who has not subscribed yet
        send(signal)
        if signal.part == 10:  # what it has taken and not passed on would die with it
            until(lambda: signal.id in ids())
            broker.kill()

    monkeypatch.setattr(sink, "send", send_while_heard)
    sink.open()
    delivery = Delivery("plc", sink, ("cap",), outbox)
    delivery.start()

    def ids() -> list[str]:
        return [Signal.from_json(message.payload).id for message in heard.get("cell/cap/signal", ())]

    for part in range(1, 101):
        outbox.finish(verdict(part))
    until(lambda: delivery.problem is not None)
    assert delivery.problem == "the broker does not answer" and delivery.count_waiting() > 0
    heard.pop("subscribed")
    broker.start()
    until(lambda: len({*ids()}) == 100)
    until(lambda: delivery.count_waiting() == 0)
    assert list(dict.fromkeys(ids())) == [verdict(part).id for part in range(1, 101)]
    delivery.stop(5)
    outbox.close()
