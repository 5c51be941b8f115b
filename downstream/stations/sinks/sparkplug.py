"""An edge node of Sparkplug B 3.0 on an MQTT connection: births, deaths and data, with a device for each station.

Payloads are protobuf by Sparkplug's own definition, of which this has the fields that a line sends. No package on PyPI
goes with paho 2. There is no primary host application, no alias, and one command: Node Control/Rebirth.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from paho.mqtt.client import Client

from downstream.service.monitoring import LOG
from downstream.stations.contract import StationState
from downstream.stations.signal import Signal

INT64, UINT64, DOUBLE, BOOLEAN, STRING = 4, 8, 10, 11, 12
REBIRTH = "Node Control/Rebirth"
# A signal that was said so long ago has waited on disk: hosts put it into their history, and do not take it for now.
HISTORICAL_S = 10.0
# Of a device: its metrics, each with its type. Those of a signal are null until there is one.
STATE = {"State/Mode": STRING, "State/Reason": STRING, "State/Busy": BOOLEAN, "State/Heartbeat": UINT64}
SIGNAL = {
    "Signal/Id": STRING, "Signal/Part": UINT64, "Signal/Name": STRING, "Signal/Verdict": STRING,
    "Signal/Reason": STRING, "Signal/Score": DOUBLE, "Signal/Threshold": DOUBLE, "Signal/Model": STRING,
    "Signal/Version": STRING, "Signal/LatencyMs": DOUBLE,
}  # fmt: skip
# Of the published sparkplug_b.proto: name, number, type.
FIELDS = {
    "Payload": (("timestamp", 1, "UINT64"), ("metrics", 2, "MESSAGE"), ("seq", 3, "UINT64")),
    "Metric": (("name", 1, "STRING"), ("timestamp", 3, "UINT64"), ("datatype", 4, "UINT32"),
               ("is_historical", 5, "BOOL"), ("is_null", 7, "BOOL"), ("long_value", 11, "UINT64"),
               ("double_value", 13, "DOUBLE"), ("boolean_value", 14, "BOOL"), ("string_value", 15, "STRING")),
}  # fmt: skip
VALUES = {INT64: "long_value", UINT64: "long_value", DOUBLE: "double_value", BOOLEAN: "boolean_value",
          STRING: "string_value"}  # fmt: skip


def _payload_class() -> type:
    file = FileDescriptorProto(name="sparkplug_b.proto", package="org.eclipse.tahu.protobuf", syntax="proto2")
    payload = file.message_type.add(name="Payload")
    for name, fields in FIELDS.items():
        message = payload if name == "Payload" else payload.nested_type.add(name=name)
        for field, number, kind in fields:
            is_list = kind == "MESSAGE"
            label = FieldDescriptorProto.LABEL_REPEATED if is_list else FieldDescriptorProto.LABEL_OPTIONAL
            added = message.field.add(
                name=field, number=number, type=FieldDescriptorProto.Type.Value(f"TYPE_{kind}"), label=label
            )
            if is_list:
                added.type_name = f".{file.package}.Payload.Metric"
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.Payload"))


Payload = _payload_class()


class EdgeNode:
    """`name` is GROUP/NODE. Its sequence numbers go with the order in which `client` publishes. From any thread."""

    def __init__(self, client: Client, name: str, stations: Sequence[str]) -> None:
        self._client, (self._group, self._node) = client, name.split("/")
        self._lock, self._is_born, self._sequence, self._births = threading.RLock(), False, 0, -1
        nothing = dict.fromkeys((*STATE, *SIGNAL))
        self._values: dict[str, dict[str, object]] = {station: dict(nothing) for station in stations}
        self._said_ms = {station: _now_ms() for station in stations}  # of the newest signal

    def before_connecting(self) -> None:
        """The broker publishes this death at the end of the connection that is made now."""
        with self._lock:
            self._is_born, self._births = False, (self._births + 1) % 256
            self._client.will_set(self._topic("NDEATH"), self._of_node({"bdSeq": (INT64, self._births)}), qos=1)

    def connected(self) -> None:
        self._client.subscribe(self._topic("NCMD"), qos=1)
        self._bear()

    def commanded(self, payload: bytes) -> None:
        """Births again, for a host that has missed them."""
        try:
            said = Payload.FromString(payload).metrics
            if any(metric.name == REBIRTH and metric.boolean_value for metric in said):
                self._bear()
        except Exception:  # or paho's thread would end
            LOG.exception("a command of Sparkplug was not followed", extra={"metadata": {"node": self._node}})

    def take(self, signal: Signal) -> None:
        """Its data, before the signal itself goes out as JSON on the same connection, whose acknowledgment is then for
        both: Sparkplug has data at QoS 0."""
        said_s = datetime.fromisoformat(signal.time).timestamp() + signal.latency_ms / 1e3
        values = (signal.id, signal.part, signal.name, signal.verdict, signal.reason, signal.score, signal.threshold,
                  signal.model, signal.version, signal.latency_ms)  # fmt: skip
        named = dict(zip(SIGNAL, values, strict=True))
        with self._lock:
            self._said_ms[signal.station] = int(1e3 * said_s)
            self._values[signal.station].update(named)
            self._tell(signal.station, named, is_historical=signal.age_s() > HISTORICAL_S)

    def show(self, state: StationState) -> None:
        """What has changed."""
        named = dict(zip(STATE, (state.mode, state.reason, state.busy, state.heartbeat), strict=True))
        with self._lock:
            known = self._values[state.station]
            changed = {name: value for name, value in named.items() if known[name] != value}
            known.update(changed)
            if changed:
                self._tell(state.station, changed)

    def _bear(self) -> None:
        with self._lock:
            self._sequence = 0
            born = {"bdSeq": (INT64, self._births), REBIRTH: (BOOLEAN, False)}
            self._client.publish(self._topic("NBIRTH"), self._of_node(born, seq=0))
            self._is_born = True
            for station, values in self._values.items():
                self._publish("DBIRTH", station, self._of_device(station, values, with_types=True))

    def _tell(self, station: str, values: Mapping[str, object], is_historical: bool = False) -> None:
        if self._is_born:
            self._publish("DDATA", station, self._of_device(station, values, is_historical=is_historical))

    def _publish(self, kind: str, station: str, payload) -> None:
        self._sequence = (self._sequence + 1) % 256
        payload.seq = self._sequence
        self._client.publish(f"{self._topic(kind)}/{station}", payload.SerializeToString())

    def _topic(self, kind: str) -> str:
        return f"spBv1.0/{self._group}/{kind}/{self._node}"

    def _of_node(self, metrics: Mapping[str, tuple[int, object]], seq: int | None = None) -> bytes:
        payload = Payload(timestamp=_now_ms(), seq=seq)
        for name, (datatype, value) in metrics.items():
            payload.metrics.add(name=name, timestamp=_now_ms(), datatype=datatype, **{VALUES[datatype]: value})
        return payload.SerializeToString()

    def _of_device(
        self, station: str, values: Mapping[str, object], with_types: bool = False, is_historical: bool = False
    ):
        """Types are said at a birth alone, as the specification wants it."""
        payload = Payload(timestamp=_now_ms())
        for name, value in values.items():
            datatype = SIGNAL.get(name) or STATE[name]
            metric = payload.metrics.add(
                name=name, timestamp=self._said_ms[station] if name in SIGNAL else payload.timestamp
            )
            if with_types:
                metric.datatype = datatype
            if is_historical:
                metric.is_historical = True
            if value is None:
                metric.is_null = True
            else:
                setattr(metric, VALUES[datatype], value)
        return payload


def _now_ms() -> int:
    return int(1e3 * time.time())
