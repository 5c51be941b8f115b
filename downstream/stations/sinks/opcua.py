"""An OPC UA server that a PLC reads or subscribes to: the newest verdict of each station, which nobody can write.

Nodes have the words of OPC 40100-1 (machine vision) where it has one; its types and methods are not there.
"""

import asyncio
import math
from datetime import UTC, datetime

from asyncua import Node, Server, ua

from downstream.service.listening import listen
from downstream.service.monitoring import LOG
from downstream.stations.contract import Sink, StationState, Surroundings
from downstream.stations.lamps import Lamps, Shown
from downstream.stations.loop import Loop
from downstream.stations.options import Address
from downstream.stations.signal import Signal
from downstream.stations.sinks import config
from pretrain.command import UserError

NAMESPACE = "urn:heldout:line"
# So often at least it looks for what has grown old.
LOOK_S = 0.1
NEVER = datetime(1970, 1, 1, tzinfo=UTC)
# By station: the states of the standard's state machine, its result's fields, and what only heldout says.
NODES: dict[str, ua.VariantType] = {
    "CurrentState": ua.VariantType.String, "ResultId": ua.VariantType.String, "PartId": ua.VariantType.String,
    "CreationTime": ua.VariantType.DateTime, "InternalRecipeId": ua.VariantType.String,
    "ResultContent": ua.VariantType.String, "Part": ua.VariantType.UInt32, "Score": ua.VariantType.Double,
    "Threshold": ua.VariantType.Double, "Reason": ua.VariantType.String, "Heartbeat": ua.VariantType.UInt32,
    "Fail": ua.VariantType.Boolean, "Busy": ua.VariantType.Boolean, "Fault": ua.VariantType.Boolean,
    "Pass": ua.VariantType.Boolean,
}  # fmt: skip


class OpcUaSink(Sink):
    """Fulfills the contract."""

    def __init__(self, options: config.OpcUa, surroundings: Surroundings) -> None:
        self._options, self._loop, self._server = options, Loop("opc ua"), None
        self._lamps = {station: Lamps(options.fresh_s) for station in surroundings.stations}
        self._modes: dict[str, str] = {}
        self._nodes: dict[str, dict[str, Node]] = {}
        self._written: dict[str, dict[str, object]] = {station: {} for station in self._lamps}
        self._changed = asyncio.Event()

    def open(self) -> None:
        try:
            listen(self._options.host, self._options.port).close()  # before a second goes into making nodes
            self._loop.start()
            self._loop.run(self._listen())
        except (OSError, UserError):
            address = Address(self._options.host, self._options.port)
            raise UserError(f"the OPC UA server cannot listen at {address}: is the port taken?") from None

    def send(self, signal: Signal) -> None:
        self._lamps[signal.station].take(signal)
        self._loop.call(self._changed.set)

    def show(self, state: StationState) -> None:
        self._modes[state.station] = state.mode
        self._lamps[state.station].show(state)
        self._loop.call(self._changed.set)

    def close(self) -> None:
        if self._server is not None:
            self._loop.run(self._server.stop())
            self._server = None
        self._loop.stop()

    # In its loop.

    async def _listen(self) -> None:
        server = Server()
        await server.init()
        server.set_endpoint(f"opc.tcp://{Address(self._options.host, self._options.port)}/heldout")
        server.set_server_name("heldout line")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        space = await server.register_namespace(NAMESPACE)
        for station in self._lamps:
            system = await server.nodes.objects.add_object(ua.NodeId(station, space), ua.QualifiedName(station, space))
            self._nodes[station] = {
                name: await system.add_variable(
                    ua.NodeId(f"{station}.{name}", space), ua.QualifiedName(name, space), _nothing(kind), kind
                )
                for name, kind in NODES.items()
            }
            await self._write(station)
        await server.start()
        self._server, self._writing = server, asyncio.create_task(self._keep_writing())

    async def _keep_writing(self) -> None:
        while True:
            try:
                for station in self._nodes:
                    await self._write(station)
            except Exception:  # or a pass would stand for ever
                LOG.exception("a fault of the OPC UA server")
            try:
                await asyncio.wait_for(self._changed.wait(), LOOK_S)
            except TimeoutError:
                continue
            self._changed.clear()

    async def _write(self, station: str) -> None:
        """What has changed. A pass ends first and comes last: it is never there beside another part's number."""
        values = values_of(self._lamps[station].shown(), self._modes.get(station, "stopped"))
        written, nodes = self._written[station], self._nodes[station]
        changed = {name: value for name, value in values.items() if written.get(name) != value}
        if changed.keys() & {"Part", "Pass"}:
            await nodes["Pass"].write_value(False, ua.VariantType.Boolean)
            changed["Pass"] = changed.pop("Pass", values["Pass"])
        for name, value in changed.items():
            await nodes[name].write_value(value, NODES[name])
        written.update(changed)


def values_of(shown: Shown, mode: str) -> dict[str, object]:
    """Of every node."""
    signal = shown.signal
    state = {"fault": "Error", "stopped": "Halted"}.get(mode, "SingleExecution" if shown.busy else "Ready")
    values = {"CurrentState": state, "Heartbeat": shown.heartbeat & 0xFFFFFFFF, "Fail": shown.fails,
              "Busy": shown.busy, "Fault": shown.faults}  # fmt: skip
    if signal is not None:
        values |= {
            "ResultId": signal.id, "PartId": signal.name, "Part": signal.part & 0xFFFFFFFF, "Reason": signal.reason,
            "CreationTime": datetime.fromisoformat(signal.time),
            "InternalRecipeId": f"{signal.model}@{signal.version}" if signal.model else "",
            "Score": math.inf if signal.score is None else signal.score,
            "Threshold": -math.inf if signal.threshold is None else signal.threshold,
            "ResultContent": signal.to_json(),
        }  # fmt: skip
    return values | {"Pass": shown.passes}


def _nothing(kind: ua.VariantType) -> object:
    """Before the first signal. A score that is missing is above any threshold."""
    return {ua.VariantType.String: "", ua.VariantType.DateTime: NEVER, ua.VariantType.Double: math.inf,
            ua.VariantType.Boolean: False}.get(kind, 0)  # fmt: skip
