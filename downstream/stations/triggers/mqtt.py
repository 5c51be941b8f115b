"""A part when a message comes, as a PLC or another program publishes it."""

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from downstream.service.monitoring import LOG
from downstream.stations.contract import OpenPart, Surroundings, Trigger
from downstream.stations.mqtt import client_of
from downstream.stations.triggers import config
from pretrain.reading import parse_json

MAX_NAME = 200


class MqttTrigger(Trigger):
    """Fulfills the contract. Only what comes while it listens begins a part: nothing retained, nothing of before.

    A message is acknowledged when its part is on disk."""

    def __init__(self, options: config.Mqtt, surroundings: Surroundings) -> None:
        self.delay_ms = options.delay_ms
        self.problem = "the trigger's broker has not answered yet"
        self._station = surroundings.station
        self._topic = options.topic or f"heldout/{surroundings.station}/trigger"
        client = self._client = client_of(options)
        client.on_connect, client.on_disconnect = self._connected, self._disconnected
        client.on_message = self._came

    def start(self, open_part: OpenPart) -> None:
        self._open_part = open_part
        self._client.loop_start()

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    # Called by paho, from its thread.

    def _connected(
        self, client: Client, _: object, flags: ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        if code.is_failure:
            self._warn(f"the broker refuses it: {code}")
        else:
            self.problem = None
            # As good as it was published: at QoS 2 a message comes once.
            client.subscribe(
                self._topic, options=SubscribeOptions(2, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
            )

    def _disconnected(
        self, client: Client, _: object, flags: DisconnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        if code.is_failure:
            self._warn(f"the broker is away: {code}")

    def _came(self, client: Client, _: object, message: MQTTMessage) -> None:
        if not message.retain:
            try:
                self._open_part(name_in(message.payload))
            except Exception:  # or paho's thread would end
                LOG.exception("a trigger began no part", extra={"metadata": {"station": self._station}})

    def _warn(self, reason: str) -> None:
        self.problem = f"of the trigger, {reason}"
        LOG.warning("a trigger hears nothing", extra={"metadata": {"station": self._station, "reason": reason}})


def name_in(payload: bytes | bytearray) -> str:
    """Of {"name": "17"}, or of a text alone. Whatever the message says, its part is there: one that cannot be read
    leaves it without a name."""
    text = payload.decode("utf-8", "replace").strip()
    try:
        said = parse_json(text, object)
    except ValueError:
        said = text
    if isinstance(said, dict):
        text = str(said.get("name", ""))
    return (said if isinstance(said, str) else text)[:MAX_NAME]
