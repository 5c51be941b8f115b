"""A client of asyncua's as PLC."""

import math
import re
import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest
from asyncua import ua
from asyncua.sync import Client
from line_here import surroundings, until
from made_signals import TIME, verdict

from downstream.stations import lamps
from downstream.stations.contract import StationState
from downstream.stations.signal import Signal
from downstream.stations.sinks.config import OpcUa
from downstream.stations.sinks.opcua import NODES, OpcUaSink
from pretrain.command import UserError


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A sink, and a client of it."""
    folder = tmp_path_factory.mktemp("opcua")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    sink = OpcUaSink(OpcUa(port=port, fresh_s=600), surroundings(folder))
    sink.open()
    with pytest.MonkeyPatch.context() as patched, Client(f"opc.tcp://127.0.0.1:{port}/heldout") as client:
        patched.setattr(lamps, "SILENCE_S", 600)  # the machine may be slow
        client.port = port
        yield sink, client
    sink.close()
    with socket.socket() as asking:
        assert asking.connect_ex(("127.0.0.1", port)) != 0


def read(client, *names: str) -> list:
    space = client.get_namespace_index("urn:heldout:line")
    return client.read_values([client.get_node(f"ns={space};s=cap.{name}") for name in names])


def lit(client) -> str:
    names = ("Pass", "Fail", "Busy", "Fault")
    return " ".join(name for name, on in zip(names, read(client, *names), strict=True) if on)


def state(mode="running", busy=False) -> StationState:
    return StationState("cap", mode, "", busy, 7, TIME)


def test_a_plc_reads_the_newest_verdict(served):
    sink, client = served
    until(lambda: lit(client) == "Fault")
    assert read(client, "CurrentState", "Part", "Score") == ["Halted", 0, math.inf]
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    sink.show(state())
    sink.send(verdict(17, "pass", time=now))
    until(lambda: lit(client) == "Pass")
    signal = verdict(17, "pass", time=now, regions=[])
    assert read(client, "ResultId", "Part", "Score", "Threshold", "Heartbeat", "InternalRecipeId") == [
        signal.id, 17, 0.5, 1.0, 7, "m@v",
    ]  # fmt: skip
    content, created = read(client, "ResultContent", "CreationTime")
    assert Signal.from_json(content) == signal
    assert created == datetime.fromisoformat(now)
    sink.show(state(busy=True))
    until(lambda: lit(client) == "Busy")
    assert read(client, "CurrentState") == ["SingleExecution"]
    sink.send(verdict(18, "fail", time=now, score=None))
    until(lambda: "Fail" in lit(client))
    assert read(client, "Part", "Score") == [18, math.inf]
    sink.show(state("fault"))
    until(lambda: lit(client) == "Fault")
    assert read(client, "CurrentState") == ["Error"]


def test_nobody_writes_and_every_node_is_there(served):
    _, client = served
    space = client.get_namespace_index("urn:heldout:line")
    cap = client.get_node(f"ns={space};s=cap")
    assert {node.read_browse_name().Name for node in cap.get_children()} == {*NODES}
    with pytest.raises(ua.UaError):
        client.get_node(f"ns={space};s=cap.Pass").write_value(True)
    with pytest.raises(ua.UaError):
        cap.add_variable(space, "more", 1)
    with pytest.raises(ua.UaError):
        client.delete_nodes([cap])


def test_a_taken_port_is_said(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        sink = OpcUaSink(OpcUa(port=taken.getsockname()[1]), surroundings(tmp_path))
        with pytest.raises(UserError, match="cannot listen at 127.0.0.1"):
            sink.open()
        sink.close()


def test_the_lines_of_the_docs_read_it(served, capsys):
    sink, client = served
    sink.show(state())
    sink.send(verdict(18, "fail", time=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")))
    until(lambda: lit(client) == "Fail")
    page = (Path(__file__).resolve().parents[4] / "docs/opcua.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code.replace("192.168.10.5:4840", f"127.0.0.1:{client.port}"), {})
    assert capsys.readouterr().out == "Part 18\nPass False\nFault False\nHeartbeat 7\nReason \n"
