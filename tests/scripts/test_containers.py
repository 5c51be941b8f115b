"""The compose files and what they build: no container engine runs here, so this is all that stands in for one."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from line_here import until
from mosquitto import mosquitto
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from downstream.service.access import HEADERS
from downstream.service.config import Config
from downstream.stations import config as line_config
from downstream.stations.reading_config import read_line
from downstream.stations.sinks.config import Modbus
from pretrain.command import read_config

FOLDER = REPOSITORY / "scripts" / "containers"
COMPOSE = REPOSITORY / "compose.yaml"
LINE = FOLDER / "line"
SERVICES, LINE_SERVICES = (yaml.safe_load(file.read_text())["services"] for file in (COMPOSE, LINE / "compose.yaml"))
FILES = sorted(FOLDER.glob("*Containerfile"))


def tool(name: str) -> Path:
    """A checker that the extra `test` installs, beside the Python that runs this or on the PATH."""
    place = Path(sys.executable).with_name(name)
    found = place if place.exists() else shutil.which(name)
    assert found, f"{name} is not installed: pip install -e .[test]"
    return Path(found)


def test_the_files_are_of_the_form_that_the_specification_asks_for(tmp_path):
    command = [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    files = [COMPOSE, LINE / "compose.yaml"]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(COMPOSE.read_text().replace("cap_drop:", "cap_dorp:"))
    assert subprocess.run([*command, wrong], capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_images_pass_their_linter(file):
    done = subprocess.run([tool("hadolint"), "--strict-labels", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_all_parts_are_there():
    by_profile = {name: set(service["profiles"]) for name, service in SERVICES.items()}
    assert by_profile == {
        "inference-cpu": {"cpu"}, "inference-gpu": {"gpu"}, "web": {"cpu", "gpu"}, "database": {"cpu", "gpu"},
        "training": {"training"}, "training-gpu": {"training-gpu"},
    }  # fmt: skip
    for name, service in SERVICES.items():
        assert ("deploy" in service) == name.endswith("-gpu")


@pytest.mark.parametrize("name", {**SERVICES, **LINE_SERVICES})
def test_a_service_is_kept_small(name):
    service = {**SERVICES, **LINE_SERVICES}[name]
    assert int(service["user"].partition(":")[0]) > 0
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"test", "interval", "timeout", "retries", "start_period"} == set(service["healthcheck"])
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert service.get("network_mode", "none") == "none"
    if "image" in service and "build" not in service:
        assert re.search(r":\d", service["image"]), "an image without a version"
    for volume in service.get("volumes", ()):
        assert not volume.startswith("/") and "docker.sock" not in volume


def test_the_database_is_reached_by_the_service_alone():
    networks = yaml.safe_load(COMPOSE.read_text())["networks"]
    assert networks["back"]["internal"] and "ports" not in SERVICES["database"]
    members = {name for name, service in SERVICES.items() if "back" in service.get("networks", ())}
    assert members == {"database", "inference-cpu", "inference-gpu"}


def test_no_secret_has_a_default():
    secrets = set()
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search("TOKEN|PASSWORD|SECRET|KEY", variable):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), f"{variable} of {name}"
                secrets.add(variable)
            assert not re.search("://[^/]*:[^/]*@", value), "a password in a URL"
    assert secrets == {"HELDOUT_TOKEN", "PGPASSWORD", "POSTGRES_PASSWORD"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_images_copy_what_is_there_and_are_nobodys(file):
    lines = file.read_text().replace("\\\n", " ").splitlines()
    ignored = file.with_name(f"{file.name}.dockerignore").read_text().splitlines()
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (REPOSITORY / source).exists() and f"!{source}" in ignored, line
    stages = re.split(r"(?m)^FROM ", "\n".join(lines))[1:]
    served = [stage for stage in stages if "ENTRYPOINT" in stage or "EXPOSE" in stage]
    assert served and all("HEALTHCHECK" in stage for stage in served)
    users = re.findall(r"(?m)^USER (\d+):\d+", "\n".join(lines))
    assert users and "0" not in users


def test_all_that_is_installed_is_copied():
    """pip reads the version from heldout.py: without that file no image is built."""
    setup = ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    packages = [name.rstrip("*") for name in setup["options.packages.find"]["include"].split()]
    modules = [f"{name}.py" for name in setup["options"]["py_modules"].split()]
    files = ["setup.cfg", "pyproject.toml", "README.md", setup["metadata"]["license_files"]]
    copied = re.findall(r"(?m)^COPY (?!--from)(.*) \S+$", (FOLDER / "Containerfile").read_text())
    assert {*packages, *modules, *files} == {source for line in copied for source in line.split()}


def test_the_service_understands_how_it_is_started():
    text = (FOLDER / "Containerfile").read_text()
    entry = json.loads(re.findall(r"(?m)^ENTRYPOINT (.*downstream.serve.*)$", text)[0])
    assert entry[:3] == ["python", "-m", "downstream.serve"]
    config = read_config(Config, [*entry[3:], *SERVICES["inference-cpu"]["command"]])
    assert (config.host, config.port) == ("0.0.0.0", 5000)
    assert SERVICES["inference-cpu"]["ports"] == [f"127.0.0.1:{config.port}:{config.port}"]
    environment = {**SERVICES["inference-cpu"]["environment"]}
    assert environment["HELDOUT_RESULTS"] == "postgresql://heldout@database/heldout"
    assert SERVICES["database"]["environment"]["POSTGRES_USER"] == "heldout"


def test_the_line_understands_how_it_is_started(monkeypatch):
    text, service = (FOLDER / "Containerfile").read_text(), LINE_SERVICES["line"]
    entry = json.loads(re.findall(r"(?m)^ENTRYPOINT (.*downstream.line.*)$", text)[0])
    assert entry == ["python", "-m", "downstream.line"] and service["build"]["target"] == "line"
    monkeypatch.setattr("downstream.stations.options.secret_in", lambda file: file.name)
    assert service["command"] == ["--config", "/config/line.yaml"]
    config = read_config(line_config.Config, ["--config", str(LINE / "line.yaml")])
    line = read_line(config)
    modbus = next(sink.options for sink in line.sinks if isinstance(sink.options, Modbus))
    assert service["ports"] == [f"127.0.0.1:{port}:{port}" for port in (config.port, modbus.port)]
    assert {config.host, modbus.host} == {"0.0.0.0"}
    secrets = {"token": config.token_file, "mqtt": line.stations[0].trigger.password.file}
    assert {*service["secrets"]} == {*secrets} and all(
        path == Path(f"/run/secrets/{name}") for name, path in secrets.items()
    )
    assert config.state.is_relative_to("/work/runs") and "line:/work/runs" in service["volumes"]


def test_the_line_is_given_its_files():
    volumes = [volume for service in LINE_SERVICES.values() for volume in service["volumes"]]
    given = {volume.partition(":")[0] for volume in volumes if volume.startswith("./")} - {"./models"}
    assert given == {f"./{file.name}" for file in LINE.iterdir()} - {"./compose.yaml"}


def test_the_broker_asks_for_a_password(tmp_path):
    """mosquitto itself reads the file, with the paths and the port of here."""
    text = (LINE / "mosquitto.conf").read_text()
    assert "\nlistener 1883\n" in text and LINE_SERVICES["broker"]["secrets"] == ["passwords"]
    settings = [line for line in text.splitlines() if not line.startswith(("#", "listener"))]
    (tmp_path / "passwords").touch()
    settings = [line.replace("/run/secrets", str(tmp_path)) for line in settings]
    with mosquitto(tmp_path, settings) as broker:
        got = []
        client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)
        client.on_connect = lambda *about: got.append(str(about[3]))
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        until(lambda: got)
        client.disconnect()
        client.loop_stop()
    assert got[0] == "Not authorized"


def test_the_page_has_the_same_headers_from_the_web_server():
    said = {}
    for line in (FOLDER / "web.conf").read_text().splitlines():
        if line.strip().startswith("add_header"):
            _, name, value, _ = shlex.split(line.strip())
            said[name] = value
    assert said == {**HEADERS, "Cache-Control": "no-cache"}
