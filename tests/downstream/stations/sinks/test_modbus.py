"""A client of pymodbus's as PLC."""

import re
import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest
from line_here import surroundings
from made_signals import TIME, verdict
from pymodbus.client import ModbusTcpClient

from downstream.stations import lamps
from downstream.stations.contract import StationState
from downstream.stations.sinks.config import Modbus
from downstream.stations.sinks.modbus import ModbusSink
from pretrain.command import UserError

PASS, FAIL, BUSY, FAULT = ([place == lamp for place in range(4)] for lamp in range(4))


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def running(station="cap", busy=False) -> StationState:
    return StationState(station, "running", "", busy, 65_537, TIME)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A sink of two stations, and a client of it."""
    monkeypatch.setattr(lamps, "SILENCE_S", 600)  # the machine may be slow
    sink = ModbusSink(Modbus(port=0, fresh_s=600), surroundings(tmp_path)._replace(stations=("cap", "lid")))
    sink.open()
    with ModbusTcpClient("127.0.0.1", port=sink.port) as client:
        yield sink, client
    sink.close()


def coils(client, unit=1) -> list[bool]:
    found = client.read_coils(0, count=4, device_id=unit).bits[:4]
    assert found == client.read_discrete_inputs(0, count=4, device_id=unit).bits[:4]
    assert found == [client.read_coils(place, count=1, device_id=unit).bits[0] for place in range(4)]
    return found


def test_a_plc_reads_the_newest_verdict_of_each_station(served):
    sink, client = served
    assert coils(client) == coils(client, 2) == FAULT
    for station in ("cap", "lid"):
        sink.show(running(station))
    sink.send(verdict(70_000, "pass", score=-0.5004, threshold=2_000.0, time=now()))
    sink.send(verdict(1, "fail", "lid", score=None, threshold=1e9, time=now()))
    assert (coils(client), coils(client, 2)) == (PASS, FAIL)
    registers = client.read_holding_registers(0, count=8, device_id=1).registers
    whole = [client.convert_from_registers(registers[at : at + 2], client.DATATYPE.INT32) for at in (0, 2, 4)]
    assert whole == [-500, 2_000_000, 70_000] and registers[6:] == [1, 1]
    other = client.read_input_registers(0, count=8, device_id=2).registers
    assert other == [0x8000, 0, 0x7FFF, 0xFFFF, 0, 1, 1, 2]
    sink.show(running(busy=True))
    assert coils(client) == BUSY
    sink.show(StationState("lid", "stopped", "", False, 9, TIME))
    assert coils(client, 2) == FAULT


def test_nobody_writes_and_there_is_nothing_else(served):
    _, client = served
    refused = [client.write_coil(0, True, device_id=1), client.write_register(4, 7, device_id=1),
               client.write_coils(0, [False] * 2, device_id=1), client.write_registers(0, [0, 0], device_id=1),
               client.read_coils(0, count=4, device_id=3), client.read_holding_registers(8, device_id=1)]  # fmt: skip
    assert all(answer.isError() for answer in refused)
    assert coils(client) == FAULT and client.read_holding_registers(4, count=2, device_id=1).registers == [0, 0]


def test_one_station_answers_as_any_unit_and_a_taken_port_is_said(tmp_path):
    sink = ModbusSink(Modbus(port=0), surroundings(tmp_path))
    sink.open()
    with ModbusTcpClient("127.0.0.1", port=sink.port) as client:
        assert coils(client, 0) == coils(client, 255) == FAULT
    other = ModbusSink(Modbus(port=sink.port), surroundings(tmp_path))
    with pytest.raises(UserError, match="cannot listen at 127.0.0.1"):
        other.open()
    for each in (other, sink):
        each.close()
    with socket.socket() as asking:
        assert asking.connect_ex(("127.0.0.1", sink.port)) != 0


def test_the_lines_of_the_docs_read_it(served, capsys):
    sink, client = served
    sink.show(running())
    sink.send(verdict(65_537, "pass", time=now()))
    page = (Path(__file__).resolve().parents[4] / "docs/modbus.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code.replace("192.168.10.5", "127.0.0.1").replace("5020", str(sink.port)), {})
    assert capsys.readouterr().out == "part 65537 passes\n"
