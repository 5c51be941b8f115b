"""A whole line between a trigger by MQTT and three controllers: each sees the part that was triggered."""

import json
import socket
import time

from line_here import running, until
from mosquitto import mosquitto
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from pymodbus.client import ModbusTcpClient


def test_a_message_begins_a_part_and_a_plc_reads_its_verdict(onnx_file, tmp_path, demo_folder):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with mosquitto(tmp_path) as broker:
        url = f"mqtt://127.0.0.1:{broker.port}"
        source = {"type": "replay", "path": str(demo_folder / "hazelnut/test/good"), "rate": 20, "loops": 0}
        stations = [{"name": "nut", "budget_ms": 20_000, "source": source, "trigger": {"type": "mqtt", "url": url}}]
        sinks = [{"type": "mqtt", "url": url}, {"type": "modbus", "port": port, "fresh_s": 600}]
        got: dict[str, list] = {}
        plc = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
        plc.on_message = lambda client, _, message: got.setdefault(message.topic, []).append(
            json.loads(message.payload)
        )
        plc.connect("127.0.0.1", broker.port)
        plc.subscribe("heldout/nut/#", qos=1)
        plc.loop_start()
        with running(onnx_file, tmp_path, stations, sinks) as here, ModbusTcpClient("127.0.0.1", port=port) as polling:
            until(lambda: "heldout/nut/state" in got)  # it is connected, as its trigger is in a moment

            last_s = 0.0

            def asked() -> bool:
                nonlocal last_s
                if time.monotonic() > last_s + 0.5:  # each begins a part, which the line judges before it stops
                    plc.publish("heldout/nut/trigger", '{"name": "17"}', qos=2)
                    last_s = time.monotonic()
                return "heldout/nut/signal" in got

            until(asked)
            first = got["heldout/nut/signal"][0]
            assert first["name"] == "17" and first["verdict"] in ("pass", "fail")
            registers = polling.read_holding_registers(0, count=8).registers
            assert registers[5] >= first["part"] == 1 and registers[7] & 3
            assert here.signals()[0].id == first["id"]
        plc.disconnect()
        plc.loop_stop()
