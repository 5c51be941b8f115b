"""A message that comes begins one part, at a real broker; one of before begins none."""

import pytest
from line_here import surroundings, until
from mosquitto import mosquitto
from paho.mqtt.publish import single

from downstream.stations.triggers.config import Mqtt
from downstream.stations.triggers.mqtt import MqttTrigger, name_in


@pytest.mark.parametrize(
    ("payload", "name"),
    [(b'{"name": "17"}', "17"), (b" 17\n", "17"), (b"cap 17", "cap 17"), (b"", ""), (b"\xff", "\ufffd"), (b"{}", ""),
     (b'{"name": 17}', "17"), (b'"17"', "17"), (b"0017", "0017"), (b"x" * 999, "x" * 200), (b"[" * 99999, "[" * 200)],
)  # fmt: skip
def test_every_message_has_a_name_or_none(payload, name):
    assert name_in(payload) == name


def test_each_message_begins_one_part(tmp_path):
    with mosquitto(tmp_path) as broker:

        def publish(name: str, qos: int = 1, retain: bool = False) -> None:
            single("heldout/cap/trigger", name, qos, retain, "127.0.0.1", broker.port)

        publish("of before", retain=True)
        opened = []

        def open_part(name: str) -> str:
            opened.append(name)
            if name == "1":
                raise OSError("the disk is full")
            return name

        trigger = MqttTrigger(Mqtt(f"mqtt://127.0.0.1:{broker.port}", delay_ms=5), surroundings(tmp_path, "cap"))
        assert trigger.delay_ms == 5 and "has not answered" in trigger.problem
        trigger.start(open_part)

        def listens() -> bool:
            publish("is it there?")
            return bool(opened)

        until(listens)
        assert trigger.problem is None
        for number in range(4):
            publish(str(number), qos=number % 3)
        until(lambda: {*"0123"} <= {*opened})
        # One at QoS 0 overtakes one at QoS 2, which takes four messages.
        assert sorted(name for name in opened if name != "is it there?") == [*"0123"]
        publish("4")
        until(lambda: "4" in opened)
        broker.kill()
        until(lambda: "broker is away" in (trigger.problem or ""))  # the station is a fault: no part can begin
        trigger.stop()
