"""Signals to an MQTT 5 broker at QoS 1, states beside them, and a last will that says when the line has gone.

TOPIC/STATION/signal    each signal as JSON, by `heldout line --schema signal`; not retained: a pass of before is none
TOPIC/STATION/state     the station's newest state as JSON, retained, until it is no longer renewed
TOPIC/status            online, or offline by the last will; retained. With `sparkplug` the last will is the death of
                        the edge node, and this is not there
"""

import json
import time

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage, MQTTMessageInfo
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from downstream.stations.contract import NotDelivered, Refused, Sink, StationState, Surroundings
from downstream.stations.mqtt import client_of
from downstream.stations.signal import Signal
from downstream.stations.sinks import config
from downstream.stations.sinks.sparkplug import EdgeNode

ACKNOWLEDGE_S, LOOK_S = 5.0, 0.1
# A retained state that nobody renews is forgotten by the broker: it must not say "running" of a line that has gone.
STATE_LIVES_S = 10
# The broker has understood, and will never take it: topic name invalid, packet too large, payload format invalid.
NEVER = (0x90, 0x95, 0x99)
# Of a packet, beside payload and topic: its header and properties.
OVERHEAD_BYTES = 128
AWAY = "the broker does not answer"


class MqttSink(Sink):
    """Fulfills the contract. One signal at a time is on its way; paho sends it again where the connection broke."""

    def __init__(self, options: config.Mqtt, surroundings: Surroundings) -> None:
        self._topic, self._largest = options.topic, 1 << 28
        self._problem: str | None = AWAY  # until it is connected
        self._is_closed = False
        self._on_its_way: tuple[str, int, MQTTMessageInfo] | None = None  # id, and of which connection
        self._connections = 0
        self._refusals: dict[int, ReasonCode] = {}
        client = self._client = client_of(options)
        self._node = EdgeNode(client, options.sparkplug, surroundings.stations) if options.sparkplug else None
        if self._node is not None:
            client.on_pre_connect = lambda *_: self._node.before_connecting()
            client.on_message = self._commanded
        else:
            client.will_set(f"{self._topic}/status", "offline", qos=1, retain=True)
        client.on_connect, client.on_disconnect = self._connected, self._disconnected
        client.on_publish, client.on_connect_fail = self._published, self._failed

    def open(self) -> None:
        self._client.loop_start()

    def send(self, signal: Signal) -> None:
        if self._on_its_way is None or self._on_its_way[0] != signal.id:
            self._on_its_way = signal.id, self._connections, self._publish(signal)
        _, connection, info = self._on_its_way
        until_s = time.monotonic() + ACKNOWLEDGE_S
        while not info.is_published():
            if self._problem is not None or self._is_closed or time.monotonic() > until_s:
                raise NotDelivered(self._problem or "the broker does not acknowledge")
            info.wait_for_publish(LOOK_S)
        self._on_its_way = None
        if self._node is not None and connection != self._connections:  # paho has sent the JSON again, alone
            raise NotDelivered(AWAY)
        if (refusal := self._refusals.pop(info.mid, None)) is not None:
            raise (Refused if refusal.value in NEVER else NotDelivered)(f"the broker refuses it: {refusal}")

    def show(self, state: StationState) -> None:
        if self._problem is None:
            lives = Properties(PacketTypes.PUBLISH)
            lives.ContentType, lives.MessageExpiryInterval = "application/json", STATE_LIVES_S
            topic = f"{self._topic}/{state.station}/state"
            self._client.publish(topic, json.dumps(state.to_dict()), qos=0, retain=True, properties=lives)
        if self._node is not None:
            self._node.show(state)

    def close(self) -> None:
        """The broker publishes the last will at this end too."""
        self._is_closed = True
        self._client.disconnect(ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message"))
        self._client.loop_stop()

    def _publish(self, signal: Signal) -> MQTTMessageInfo:
        if self._problem is not None:
            raise NotDelivered(self._problem)
        topic, payload = f"{self._topic}/{signal.station}/signal", signal.to_json().encode()
        if len(payload) + len(topic) + OVERHEAD_BYTES > self._largest:  # it would end the connection each time
            raise Refused(f"the broker takes {self._largest} bytes at most")
        if self._node is not None:
            self._node.take(signal)
        told = Properties(PacketTypes.PUBLISH)
        told.ContentType, told.PayloadFormatIndicator, told.UserProperty = "application/json", 1, ("id", signal.id)
        info = self._client.publish(topic, payload, qos=1, properties=told)
        if info.rc:  # it broke just now; paho may send it still, and it comes twice
            raise NotDelivered(AWAY)
        return info

    # Called by paho, from its thread.

    def _connected(
        self, client: Client, _: object, flags: ConnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        if code.is_failure:
            self._problem = f"the broker refuses the line: {code}"
            return
        self._largest = getattr(properties, "MaximumPacketSize", 1 << 28)
        self._connections += 1
        if self._node is not None:
            self._node.connected()
        else:
            client.publish(f"{self._topic}/status", "online", qos=0, retain=True)
        self._problem = None

    def _disconnected(
        self, client: Client, _: object, flags: DisconnectFlags, code: ReasonCode, properties: Properties | None
    ) -> None:
        if self._problem is None:
            self._problem = AWAY

    def _failed(self, client: Client, _: object) -> None:
        self._problem = AWAY

    def _commanded(self, client: Client, _: object, message: MQTTMessage) -> None:
        self._node.commanded(message.payload)

    def _published(
        self, client: Client, _: object, number: int, code: ReasonCode, properties: Properties | None
    ) -> None:
        """Before its `info.is_published()`."""
        if code.is_failure:
            self._refusals[number] = code
