"""The command: a configuration is checked, a line runs, is stopped and is killed, and each part keeps one signal."""

import json
import os
import random
import re
import shutil
import signal as signals
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml
from line_here import until

from downstream.line import main
from downstream.stations.config import Config

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = re.search(r"```yaml\n(.*?)```", (REPOSITORY / "docs/line.md").read_text(), re.DOTALL)[1]


def run(*arguments: object, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, REPOSITORY / "downstream/line.py", *map(str, arguments)], text=True,
                          capture_output=True, check=False, **options)  # fmt: skip


class Process:
    """A line of its own; `url` is where its HTTP is."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        self._log = open(folder / "log", "a")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, REPOSITORY / "downstream/line.py", "--config", folder / "line.yaml"], text=True,
            stdout=subprocess.PIPE, stderr=self._log, env=environment, cwd=folder,
        )  # fmt: skip
        self.url = ""
        for line in self._process.stdout:
            if line.startswith("line: "):
                self.url = line.split()[1]
            if line.startswith("stations: "):
                return
        self.end(signals.SIGKILL)
        raise AssertionError((folder / "log").read_text()[-2000:])

    def end(self, how: signals.Signals) -> int:
        self._process.send_signal(how)
        self._process.communicate(timeout=60)
        self._log.close()
        return self._process.returncode


@contextmanager
def process(folder: Path) -> Iterator[Process]:
    started = Process(folder)
    try:
        yield started
    finally:
        if started._process.poll() is None:
            started.end(signals.SIGKILL)


@pytest.fixture
def folder(onnx_file, demo_folder, tmp_path) -> Path:
    """A line with a folder and with pushed images; images of the test wait in `images`."""
    shutil.copytree(demo_folder / "hazelnut/test/good", tmp_path / "images")
    (tmp_path / "models").mkdir()
    shutil.copy(onnx_file, tmp_path / "models")
    line = {
        "models": "models", "state": "state", "port": 0, "threads": 1,
        "stations": [
            {"name": "folder", "budget_ms": 20_000,
             "source": {"type": "folder", "path": "in", "done": "done", "settle_s": 0.05, "every_s": 0.02}},
            {"name": "push", "budget_ms": 20_000, "source": {"type": "push"}},
        ],
        "sinks": [{"type": "csv", "path": "parts.csv"}],
    }  # fmt: skip
    (tmp_path / "line.yaml").write_text(yaml.safe_dump(line))
    return tmp_path


def test_the_example_of_the_docs_is_right_and_who_is_away_is_named(onnx_file, tmp_path):
    (tmp_path / "models").mkdir()
    shutil.copy(onnx_file, tmp_path / "models/bolt.onnx")
    example = EXAMPLE.replace("192.168.1.20", "127.0.0.1").replace('stream"', 'stream"').replace(":8080", ":1")
    (tmp_path / "line.yaml").write_text(example.replace("model: bolt", "model: bolt.onnx"))
    secrets = {"CAMERA_PASSWORD": "secret", "MES_SECRET": "secret", "PYTHONPATH": str(REPOSITORY)}
    done = run("--config", "line.yaml", "--check", cwd=tmp_path, env={**os.environ, **secrets})
    assert done.returncode == 0, done.stderr
    assert "the configuration is right: 2 stations, 4 sinks" in done.stdout
    assert "sink mes: nobody answers at 127.0.0.1:1" in done.stdout and "secret" not in done.stdout
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("--stations", '[{"name": "a", "sorce": 1}]'), "stations[0]: there is no key sorce; did you mean source?"),
     (("--modles", "x"), "there is no option --modles; did you mean --models?"), ((), "no station is named")],
)  # fmt: skip
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments, words):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "") and words in done.stderr and done.stderr.count("\n") == 1


def test_the_schemas_are_printed(capsys):
    for which, key in (("line", "stations"), ("signal", "verdict")):
        assert main(Config(schema=which)) == 0
        assert key in json.loads(capsys.readouterr().out)["properties"]


class Belt:
    """Puts parts on a line that is killed now and then, and knows what it was told of each."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.chance = folder, random.Random(seed)
        self.images = sorted((folder / "images").iterdir())
        self.files, self.keys, self.told = [], [], {}
        (folder / "in").mkdir(exist_ok=True)

    def put(self, url: str) -> None:
        """A file, or an image that is pushed under a key of its own; as a client would, whom a kill may cut off."""
        image = self.chance.choice(self.images)
        if self.chance.random() < 0.5:
            name = f"{len(self.files):05d}.png"
            self.files.append(name)
            shutil.copy(image, self.folder / "in" / f".{name}")
            (self.folder / "in" / f".{name}").rename(self.folder / "in" / name)
            return
        self.keys.append(f"key {len(self.keys)}")
        self.ask(url, self.keys[-1], image)

    def ask(self, url: str, key: str, image: Path | None = None) -> None:
        try:
            answer = httpx.post(f"{url}/api/stations/push/parts", content=(image or self.images[0]).read_bytes(),
                                headers={"Idempotency-Key": key}, timeout=30, verify=False)  # fmt: skip
            self.told.setdefault(key, []).append(answer.json())
        except httpx.HTTPError:  # killed meanwhile: asked again, with the same key, after the next start
            self.told.setdefault(key, [])


def check_nothing_lost(belt: Belt, kills: int) -> None:
    """Each part has one signal, in the state and at the sink, whatever was killed when."""
    connection = sqlite3.connect(belt.folder / "state/line.sqlite")
    stored = [json.loads(text) for (text,) in connection.execute("SELECT json FROM signals ORDER BY number")]
    assert connection.execute("SELECT COUNT(*) FROM open_parts").fetchone() == (0,)
    connection.close()
    by_id = {each["id"]: each for each in stored}
    assert len(by_id) == len(stored)
    # Every file was judged, once, and by the model: it was still there after each kill.
    assert sorted(each["name"] for each in stored if each["station"] == "folder") == belt.files
    assert {each["verdict"] for each in stored if each["station"] == "folder"} <= {"pass", "fail"}
    assert not list((belt.folder / "in").glob("[!.]*"))
    # Whoever pushed an image has one answer however often it was asked, and it is the one that is kept.
    for key, answers in belt.told.items():
        assert answers and len({json.dumps(answer, sort_keys=True) for answer in answers}) == 1, key
        assert by_id[answers[0]["id"]] == answers[0]
    faults = [each for each in stored if each["verdict"] == "fault"]
    assert len(faults) <= kills and {each["reason"] for each in faults} <= {"the line was stopped before it was judged"}
    # The sink has each at least once, in order, and no two signals of one part.
    rows = [line.split(",")[:5] for line in (belt.folder / "parts.csv").read_text().splitlines()[1:]]
    assert {row[0] for row in rows} == {*by_id} and all(by_id[row[0]]["verdict"] == row[4] for row in rows)
    firsts = list(dict.fromkeys(row[0] for row in rows))
    assert firsts == [each["id"] for each in stored]


def kill_now_and_then(folder: Path, kills: int, seed: int) -> None:
    belt = Belt(folder, seed)
    for _ in range(kills):
        with process(folder) as line:
            killing = threading.Timer(belt.chance.uniform(0.05, 0.8), line.end, [signals.SIGKILL])
            killing.start()
            while line._process.poll() is None:  # what is on its way in that moment is cut off
                belt.put(line.url)
            killing.join()
    with process(folder) as line:
        for key in [key for key in belt.keys if not belt.told.get(key)] + belt.keys[:2]:
            belt.ask(line.url, key)
        until(lambda: not list((folder / "in").glob("[!.]*")), 60)
        assert line.end(signals.SIGTERM) == 0
    check_nothing_lost(belt, kills)


def test_a_line_that_is_killed_keeps_one_signal_of_each_part(folder):
    kill_now_and_then(folder, kills=1, seed=0)


@pytest.mark.slow
def test_a_line_that_is_killed_200_times(folder):
    kill_now_and_then(folder, kills=200, seed=1)
