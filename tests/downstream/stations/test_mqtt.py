"""The client knows nobody who is not certified, and nobody knows it without its password. Against a real broker."""

import shutil
import subprocess

import pytest
from line_here import until
from mosquitto import mosquitto

from downstream.stations.mqtt import client_of
from downstream.stations.options import Secret
from downstream.stations.sinks.config import Mqtt

SELF_SIGNED = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost " \
              "-addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem"  # fmt: skip


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A broker that has TLS and one user, and the folder of its certificate."""
    folder = tmp_path_factory.mktemp("mosquitto")
    settings = ["allow_anonymous false", f"password_file {folder}/users", f"certfile {folder}/cert.pem",
                f"keyfile {folder}/key.pem"]  # fmt: skip
    if shutil.which("mosquitto_passwd"):
        subprocess.run(["mosquitto_passwd", "-c", "-b", "users", "line", "right"], cwd=folder, check=True)
    subprocess.run(SELF_SIGNED.split(), cwd=folder, check=True, capture_output=True)
    with mosquitto(folder, settings) as broker:
        yield broker, folder


@pytest.mark.parametrize(
    ("password", "ca", "answer"),
    [("right", "cert.pem", "Success"), ("wrong", "cert.pem", "Not authorized"), ("right", None, "no connection")],
)
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")  # paho leaves it to be collected
def test_only_who_is_known_on_both_sides(guarded, monkeypatch, password, ca, answer):
    broker, folder = guarded
    monkeypatch.setenv("MQTT_PASSWORD", password)
    url = f"mqtts://localhost:{broker.port}"
    client = client_of(Mqtt(url, "line", Secret(env="MQTT_PASSWORD"), folder / ca if ca else None))
    answers = []
    client.on_connect = lambda client, _, flags, code, properties: answers.append(str(code))
    client.on_connect_fail = lambda client, _: answers.append("no connection")
    client.loop_start()
    until(lambda: answers)
    client.disconnect()
    client.loop_stop()
    assert answers[0] == answer
