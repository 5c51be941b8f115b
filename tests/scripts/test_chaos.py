"""The campaign: it finds nothing here, and says so where there is something."""

import ast
import io
import json
import os
import random
import re
import runpy
import shutil
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, nullcontext, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from conftest import REPOSITORY
from serving_here import serving_here

from downstream.service.database import Database, StoredResult
from downstream.stations.signal import Signal
from embeddings.config import Extract
from embeddings.extract import extract
from heldout import COMMANDS
from pretrain.command import Names, UserError, read_config
from scripts import chaos
from scripts.attacks import (
    damage,
    full_disk,
    hostile_images,
    http_abuse,
    kills,
    line_kills,
    pairs,
    ray_kills,
    soak,
    writers,
)
from scripts.attacks.attack import Attack
from scripts.attacks.command_lines import CommandLines
from scripts.attacks.http_abuse import ONLY_ODD, HttpAbuse, drawn, json_bodies
from scripts.attacks.line_abuse import CALLED, PUSHED, LineAbuse
from scripts.attacks.line_kills import unsaid
from scripts.attacks.lost_results import lost
from scripts.attacks.material import CATEGORY, Material, copied_models
from scripts.attacks.serving import served
from scripts.attacks.soak import Sample, Soak, judged, sample
from scripts.attacks.writers import NO_WRITERS, WRITERS, Writer
from scripts.config import Chaos


@pytest.fixture
def no_material(monkeypatch):
    """For parts that need none."""
    monkeypatch.setattr(chaos, "make_material", Material)


JSON = {"Content-Type": "application/json"}


class Falls(Attack):
    """Every third try fails, every fourth breaks."""

    unit = "a step"

    def __init__(self, material: Material) -> None:
        self.tries = 0

    def attempt(self, random, folder: Path) -> str | None:
        self.tries += 1
        (folder / "left.txt").write_text(str(random.random()))
        if self.tries % 4 == 0:
            raise KeyError("broken")
        return "it fell" if self.tries % 3 == 0 else None


class FaultyService(socketserver.ThreadingTCPServer):
    """Answers any bytes with `status` and closes, scores as `score`, and logs `added_log` with each score."""

    status, score, added_log = 200, 1.0, ""
    daemon_threads, request_queue_size = True, 128

    class RequestHandlerClass(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(f"HTTP/1.1 {self.server.status} Internal\r\n\r\n".encode())

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.RequestHandlerClass)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}).start()
        self.url = "http://{}:{}".format(*self.server_address)
        self.log, self.process = "", SimpleNamespace(pid=0, poll=lambda: None)
        self.client = SimpleNamespace(get=lambda _: httpx.Response(200, json={"paths": {}}))

    def test(self, data: bytes, **fields) -> httpx.Response:
        self.log += self.added_log
        return httpx.Response(200, json={"anomaly_score": self.score})


@pytest.fixture
def faulty_service() -> Iterator[FaultyService]:
    with FaultyService() as serving:
        yield serving
        serving.shutdown()


def test_made_up_command_lines_are_read_or_refused(no_material, tmp_path, capsys):
    config = Chaos(minutes=10, tries=30, parts=Names("command-lines"), out=tmp_path / "out")
    assert chaos.main(config) == 0
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "command-lines" in line)
    _, _, tries, _, failures, _ = (cell.strip() for cell in row.split("|"))
    assert tries == "30" and failures == "0" and not (tmp_path / "out").exists()


def test_what_did_not_hold_is_kept_counted_and_the_same_again(no_material, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(chaos.PARTS, "falls", Falls)
    kept = []
    for out in (tmp_path / "first", tmp_path / "second"):
        config = Chaos(minutes=0.005, parts=Names("falls"), out=out, record=tmp_path / "record.md")
        assert chaos.main(config) == 1
        kept.append((out / "falls-2" / "left.txt").read_text())
    assert "it fell" in (tmp_path / "first" / "falls-2" / "what.txt").read_text()
    assert "KeyError" in (tmp_path / "first" / "falls-3" / "what.txt").read_text()
    assert kept[0] == kept[1]
    (out / "mine.txt").write_text("not of a campaign")
    assert chaos.main(Chaos(minutes=0.001, parts=Names("command-lines"), tries=1, out=out)) == 0
    assert [left.name for left in out.iterdir()] == ["mine.txt"]
    assert "| falls |" in (tmp_path / "record.md").read_text()


def test_parts_are_tried_as_often_as_is_typed_and_what_is_not_run_is_named(no_material, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(chaos, "PARTS", {name: Falls for name in ("first", "second", "postgres", "soak")})
    monkeypatch.setattr(Falls, "attempt", lambda self, chance, folder: None)
    monkeypatch.setattr(chaos, "program", lambda _: None)
    config = read_config(Chaos, ["--tries", "first=3,second=2", "--minutes", "0.0001", "--out", str(tmp_path / "out")])
    assert chaos.main(config) == 0
    rows = [[cell.strip() for cell in line.split("|")[1:5]] for line in capsys.readouterr().out.splitlines()[-4:]]
    assert rows == [["first", "3", "a step", "0"], ["second", "2", "a step", "0"],
                    ["postgres", "not run", "PostgreSQL is not installed", ""],
                    ["soak", "not run", "it takes 240 minutes or more", ""]]  # fmt: skip
    assert read_config(Chaos, ["--tries", "7"]).tries == 7
    for typed, said in (("frist=3", "did you mean first"), ("first", "no number"), ("first=0", "no number")):
        with pytest.raises(UserError, match=said):
            chaos.main(Chaos(tries=Names(typed), out=tmp_path))


def test_an_unknown_part_is_refused(tmp_path):
    with pytest.raises(UserError, match="did you mean kills"):
        chaos.main(Chaos(parts=Names("kill"), out=tmp_path))


@pytest.fixture
def material(demo_folder, padim_folder, tmp_path, monkeypatch) -> Material:
    """Made of what the session has already: the campaign's own takes half a minute."""
    made = Material(tmp_path / "material")
    made.folder.mkdir()
    made.data.symlink_to(demo_folder)
    shutil.copytree(padim_folder, made.model)
    extract(Extract(data=demo_folder, out=made.vectors, encoder=made.encoder, size_px=64, precision="32-true"))
    monkeypatch.setattr(chaos, "make_material", lambda folder: made)
    return made


@pytest.fixture
def one_service(material, monkeypatch) -> Iterator[None]:
    """For the parts that do not end it, since each takes seconds to start."""
    models = copied_models(material, material.folder / "models")
    with served(models, material.folder / "soaked", "--max-image-mb", 4) as serving:
        monkeypatch.setattr(soak, "copied_models", lambda material, folder: folder)
        for module in (http_abuse, soak):
            monkeypatch.setattr(module, "served", lambda *_: nullcontext(serving))
        yield


SERVICES = ("http", "service-kills", "line-kills", "line-http", "postgres", "ray", "soak")


@pytest.mark.parametrize("with_services", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_short_campaign_touches_every_part_and_finds_nothing(
    with_services, material, tmp_path, capsys, monkeypatch, request
):
    """With what is made in a moment: other commands and files take seconds each."""
    monkeypatch.setattr(damage, "KINDS", {name: damage.KINDS[name] for name in ("model", "vectors", "index", "run")})
    monkeypatch.setattr(hostile_images, "COMMANDS", (hostile_images.surveying,))
    monkeypatch.setattr(line_kills, "KILLS", 1)
    monkeypatch.setattr(ray_kills, "KILLS", 1)
    monkeypatch.setattr("scripts.attacks.material.IMPORTED", ["downstream.line", "pretrain.survey"])
    for module in (kills, full_disk, pairs):
        monkeypatch.setattr(module, "WRITERS", {"survey": WRITERS["survey"]})
    not_run = chaos.parts_without(chaos.SOAK_FROM_MINUTES)
    parts = [name for name in chaos.PARTS if name not in not_run and with_services == (name in SERVICES)]
    if with_services:
        request.getfixturevalue("one_service")
    assert chaos.main(Chaos(minutes=10, tries=1, parts=Names(parts), out=tmp_path / "out")) == 0
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [[cell.strip() for cell in (row[1], row[2], row[4])] for row in rows[2:]] == [
        [name, "1", "0"] for name in parts
    ]


@pytest.mark.slow
def test_fifty_kills_on_ray_lose_nothing_and_repeat_nothing(material, tmp_path):
    attack = ray_kills.RayKills(material)
    while len(attack.killed) < 50:
        folder = tmp_path / str(attack.number)
        folder.mkdir()
        assert attack.attempt(random.Random(attack.number), folder) is None, attack.killed
        attack.number += 1
    assert {*attack.killed} == {*ray_kills.VICTIMS}


def test_a_campaign_that_is_stopped_tells_what_it_did(no_material, tmp_path, monkeypatch, capsys):
    class IsStopped(Falls):
        def attempt(self, random, folder: Path) -> str | None:
            if self.number == 2:
                raise KeyboardInterrupt
            return None

    monkeypatch.setattr(chaos, "PARTS", {"first": IsStopped, "second": Falls})
    parts = Names("first,second")
    assert chaos.main(Chaos(minutes=10, parts=parts, out=tmp_path, record=tmp_path / "record.md")) == 0
    record = (tmp_path / "record.md").read_text()
    assert "| first | 2 | a step | 0 |\n| second | 0 | a step | 0 |" in record and "Stopped by hand" in record


def test_one_try_is_done_again_by_its_name(no_material, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(chaos.PARTS, "falls", Falls)
    seen = []
    monkeypatch.setattr(Falls, "attempt", lambda self, chance, folder: seen.append((self.number, chance.random())))
    chaos.main(Chaos(minutes=10, tries=4, seed=3, parts=Names("falls"), out=tmp_path))
    chaos.main(Chaos(seed=3, only=Names("falls-2"), out=tmp_path))
    assert [number for number, _ in seen] == [0, 1, 2, 3, 2] and seen[-1] == seen[2]
    for typed in ("falls", "falls-all", "2"):
        with pytest.raises(UserError, match="is no try"):
            chaos.main(Chaos(only=Names(typed), out=tmp_path))


def test_a_failure_says_how_to_do_it_again_and_that_removes_no_other(no_material, tmp_path, monkeypatch):
    monkeypatch.setitem(chaos.PARTS, "falls", Falls)
    monkeypatch.setattr(Falls, "conclude", lambda self, folder: "it grew")
    chaos.main(Chaos(minutes=10, tries=4, seed=3, parts=Names("falls,command-lines"), out=tmp_path))
    said = {path.parent.name: path.read_text().splitlines()[0] for path in tmp_path.glob("*/what.txt")}
    assert said == {f"falls-{which}": f"python scripts/chaos.py --seed 3 {options}" for which, options in (
        (2, "--only falls-2"), (3, "--only falls-3"), ("all", "--parts falls --minutes 5 --tries 4"))}  # fmt: skip
    chaos.main(Chaos(seed=3, only=Names("falls-2"), out=tmp_path))  # which holds, as the first of its part
    assert sorted(path.name for path in tmp_path.iterdir()) == ["falls-3", "falls-all"]


def test_a_fault_of_a_line_before_its_last_turn_is_found(tmp_path, monkeypatch):
    coming = iter([Ended(0, "Traceback of the first"), Ended(0), Ended(0)])
    image = tmp_path / "demo" / CATEGORY / "test" / "good" / "0.png"
    image.parent.mkdir(parents=True)
    image.touch()
    monkeypatch.setattr(line_kills, "Started", lambda *words: next(coming))
    monkeypatch.setattr(line_kills, "_came", lambda *_: True)
    monkeypatch.setattr(line_kills, "time", SimpleNamespace(sleep=lambda _: None))
    assert line_kills.LineKills(Material(tmp_path)).attempt(random.Random(0), tmp_path) == "Traceback of the first"


def test_command_lines_are_made_of_every_command():
    attack = CommandLines(Material(Path()))
    names = {config.__module__ for config in attack._configs}
    assert {"pretrain.config", "downstream.learning.config", "downstream.stations.config", "scripts.config"} < names
    assert {"Learn", "Promote", "AreaValidate", "Triage", "Push", "Pull", "Verify"} < {
        config.__name__ for config in attack._configs
    }


def test_every_command_that_writes_is_attacked_or_it_is_said_why_not(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "made", lambda material, name: material.folder / name)
    material, commands = Material(tmp_path), set()
    for module in COMMANDS.values():
        file = f"{module.replace('.', '/')}.py"
        several = [call for call in ast.walk(ast.parse((REPOSITORY / file).read_text()))
                   if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "start_commands"]  # fmt: skip
        commands |= {f"{file} {name}" for name in subcommands(file)} if several else {file}
    attacked = set()
    for writer in WRITERS.values():
        file, *options = map(str, writer.words(material, tmp_path / "out"))
        attacked.add(file if file in commands else f"{file} {options[0]}")
    assert attacked | {*NO_WRITERS} == commands and not attacked & {*NO_WRITERS}


def subcommands(file: str) -> list[str]:
    """As the command itself lists them."""
    said = io.StringIO()
    with redirect_stdout(said), pytest.MonkeyPatch.context() as patch, suppress(SystemExit):
        patch.setattr(sys, "argv", [file, "--help"])
        patch.setattr(sys, "path", [*sys.path])
        runpy.run_path(str(REPOSITORY / file), run_name="__main__")
    return re.search("{(.*)}", said.getvalue())[1].split(",")


def test_a_part_without_its_one_signal_is_found(tmp_path):
    signals = [Signal(str(number), "a", number, f"{number}.png", "pass", "", 0.5, 1.0, "m", "1", "2026-01-31", 1.0)
               for number in (1, 2)]  # fmt: skip
    table = tmp_path / "parts.csv"
    table.write_text("id,verdict\n1,pass\n2,pass\n")
    assert unsaid(["1.png", "2.png"], signals, table) is None
    assert "one signal each" in unsaid(["1.png", "2.png", "3.png"], signals, table)
    assert "one signal each" in unsaid(["1.png", "2.png"], [*signals, replace(signals[0], id="3")], table)
    faulty = [signals[0], replace(signals[1], verdict="fault", reason="late")]
    assert "late" in unsaid(["1.png", "2.png"], faulty, table)
    table.write_text("id,verdict\n1,pass\n")
    assert "1 of 2 signals" in unsaid(["1.png", "2.png"], signals, table)


def test_a_fault_of_a_service_is_found(faulty_service, tmp_path, monkeypatch):
    """A status, a changed score, a traceback in its log, a log without end."""
    monkeypatch.setattr(http_abuse, "served", lambda *_: nullcontext(faulty_service))
    with closing(HttpAbuse(Material(tmp_path))) as attack:
        assert attack.attempt(random.Random(0), tmp_path) is None
        for name, value, said in (
            ("status", 500, "500 Internal"),
            ("score", 2.0, "answered 1.0 is now answered 2.0"),
            ("added_log", "Traceback (most recent", "Traceback"),
            ("added_log", "a line\n" * 100_000, "the log grew by 700000 bytes"),
        ):
            with monkeypatch.context() as changed:
                changed.setattr(faulty_service, name, value)
                assert said in attack.attempt(random.Random(0), tmp_path)
        assert attack.attempt(random.Random(0), tmp_path) is None


def test_bodies_are_drawn_for_every_endpoint_that_takes_json(models_folder, tmp_path):
    models = shutil.copytree(models_folder / "mean", tmp_path / "models" / "mean").parent
    with serving_here(models, tmp_path) as serving:
        described = serving.client.get("/openapi.json").json()
        bodies = json_bodies(described)
        assert {("PUT", "/api/threshold"), ("POST", "/api/feedback"), ("PUT", "/api/roi")} < {of[:2] for of in bodies}
        chance, statuses = random.Random(0), {}
        for _ in range(12):
            for method, path, schema in bodies:
                if path not in ONLY_ODD and "{" not in path:
                    body = json.dumps(drawn(schema, described, chance)).encode()
                    status = serving.client.request(method, path, content=body, headers=JSON).status_code
                    statuses.setdefault(path, set()).add(status)
        assert statuses["/api/threshold"] >= {200, 422}  # what is drawn is taken, and refused
        assert not any(status >= 500 for found in statuses.values() for status in found)


def test_what_is_sent_to_a_service_is_sent_to_a_line_where_it_takes_images():
    aim, chance = object.__new__(LineAbuse), random.Random(0)
    sent = [(make(chance), aim.drawn_body(chance)) for make in http_abuse.ABUSES for _ in range(5)]
    aimed = [aim.aimed(first).data for first, _ in sent] + [second.data for _, second in sent]
    assert not any(b"test_image" in data for data in aimed)
    assert {PUSHED, CALLED} <= {
        data.split(b" ")[1].decode() for data in aimed if data.startswith(b"POST /api/stations")
    }


@pytest.mark.parametrize(
    ("opened", "said"),
    [
        (lambda folder, _: (folder / "file").read_bytes(), "it gives something else, and no word"),
        (lambda folder, _: json.loads((folder / "file").read_bytes()), "Error"),
        (lambda folder, _: b"the same", None),
    ],
)
def test_damage_that_goes_unnoticed_is_found(opened, said, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "file").write_text('{"threshold": 1.5}')
    monkeypatch.setattr(damage, "KINDS", {"fake": damage.Kind(lambda _: whole, opened)})
    found = damage.Damage(Material(tmp_path)).attempt(random.Random(0), tmp_path)
    assert found is None if said is None else said in found


class Ended:
    """A command that has ended."""

    def __init__(self, returncode: int, stderr: str = "") -> None:
        self.returncode, self.stderr = returncode, stderr

    def communicate(self, timeout: float) -> tuple[str, str]:
        return "", self.stderr

    def kill(self) -> None:
        pass

    terminate = kill


def opened_if_whole(out: Path) -> None:
    if (out / "half").exists():
        raise ValueError("only half is there")


WRITER = Writer(lambda material, out: (out,), opened_if_whole)
WAITS, NO_SPACE = Ended(2, "error: another process writes"), Ended(2, "error: no space left; put that right")


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ((Ended(0), WAITS), None),
        ((Ended(0), Ended(0)), None),
        ((WAITS, WAITS), "both are refused"),
        ((Ended(0), Ended(2, "Killed")), "exit code 2: Killed"),
        ((Ended(0), Ended(70, "Traceback")), "exit code 70"),
    ],
)
def test_a_pair_that_ends_badly_is_found(ends, said, tmp_path, monkeypatch):
    coming = iter(ends)
    monkeypatch.setattr(pairs, "WRITERS", {"fake": WRITER})
    monkeypatch.setattr(pairs, "Started", lambda *words: next(coming))
    monkeypatch.setattr(pairs, "MOST_APART_S", 0)
    found = pairs.Pairs(Material(tmp_path)).attempt(random.Random(0), tmp_path)
    assert found is None if said is None else said in found


@pytest.mark.parametrize(
    ("ends", "left", "said"),
    [
        ((NO_SPACE, Ended(0)), None, None),
        ((Ended(0), Ended(0)), None, None),
        ((Ended(2, "error: sorry"), Ended(0)), None, "does not say what is wrong"),
        ((Ended(70, "Traceback"), Ended(0)), None, "exit code 70"),
        ((NO_SPACE, Ended(0)), ".model.host-1.part", "leaves ['.model.host-1.part']"),
        ((NO_SPACE, NO_SPACE), None, "does not go on"),
        ((NO_SPACE, Ended(0)), "half", "leaves half a result: ValueError: only half is there"),
        ((Ended(0), Ended(0)), "half", "only half is there"),
    ],
)
def test_what_a_full_disk_leaves_is_found(ends, left, said, tmp_path, monkeypatch):
    coming = iter((Ended(0), *ends))  # the first is undisturbed

    def end(out: Path) -> Ended:
        out.mkdir(exist_ok=True)
        if left and out.parent.name == "disk":
            (out / left).touch()
        return next(coming)

    monkeypatch.setattr(full_disk, "WRITERS", {"fake": WRITER})
    monkeypatch.setattr(full_disk, "command", end)
    monkeypatch.setattr(full_disk, "may_mount", lambda _: True)
    monkeypatch.setattr(full_disk, "small_disk", lambda folder, _: folder.mkdir() or nullcontext(folder))
    monkeypatch.setattr(full_disk, "fill_but", lambda disk, _: (disk / "filler").touch() or disk / "filler")
    attack = full_disk.FullDisk(Material(tmp_path))
    try:
        found = attack.attempt(random.Random(0), tmp_path)
    except ValueError as error:
        found = str(error)
    assert found is None if said is None else said in found


def test_a_lost_result_is_found(tmp_path):
    database = Database(str(tmp_path / "results.sqlite"))
    result = StoredResult("2026-01-31T23:59:59.123Z", "m", "nut", "a", "0", 1, 1, 0.5, 1.0, False, 0.9, [], 1.0)
    ids = set(database.add_results([result] * 3))
    database.close()
    assert lost(ids, str(tmp_path / "results.sqlite")) is None
    assert lost({*ids, 99}, str(tmp_path / "results.sqlite")) == "1 of 4 answered results are lost: [99]"


@pytest.mark.parametrize(
    ("grown", "said"),
    [
        (Sample(0, 0, 0, 0, 9), None),
        (Sample(0, 6, 0, 0, 0), "memory_mb grows by 6."),
        (Sample(0, 0, 2, 0, 0), "descriptors grows by 2.0"),
        (Sample(0, 0, 0, 2, 0), "threads grows by 2.0"),
    ],
)
def test_growth_is_told_from_noise(grown, said):
    """By the slope: a peak, wherever it is, is none."""
    samples = [
        Sample(1000 * n, 500 + grown[1] * n + 9 * (n == 8), 60 + grown[2] * n, 20 + grown[3] * n, grown[4] * n)
        for n in range(12)
    ]
    failed = judged(samples)[1]
    assert failed is None if said is None else said in failed


def test_what_a_process_and_its_children_hold_is_counted(tmp_path):
    (tmp_path / "kept").write_bytes(bytes(3_000_000))
    alone = sample(os.getpid(), tmp_path, 7)
    child = subprocess.Popen(["sleep", "60"])
    both = sample(os.getpid(), tmp_path, 7)
    child.kill()
    child.wait()
    assert alone.requests == 7 and alone.memory_mb > 50 and alone.folder_mb == 3
    assert both.threads == alone.threads + 1 and both.descriptors > alone.descriptors


def test_a_fault_during_a_soak_is_found(faulty_service, tmp_path, monkeypatch):
    good = tmp_path / "demo" / CATEGORY / "test" / "good"
    good.mkdir(parents=True)
    (good / "0.png").write_bytes(b"image")
    (tmp_path / "model").mkdir()
    monkeypatch.setattr(soak, "served", lambda *_: nullcontext(faulty_service))
    monkeypatch.setattr(soak, "REQUESTS", (Soak.whole,))
    monkeypatch.setattr(soak, "REQUESTS_A_SECOND", 1000)
    with closing(Soak(Material(tmp_path))) as attack:
        assert attack.attempt(random.Random(0), tmp_path) is None
        faulty_service.score = 2.0
        assert "answered 1.0 is now answered 2.0" in attack.attempt(random.Random(0), tmp_path)
        assert attack.conclude(tmp_path) is None and "too few" in attack.said
        assert (tmp_path / "samples.csv").read_text().startswith("requests,")


@pytest.mark.slow
def test_a_campaign_of_all_parts_finds_nothing(tmp_path):
    assert chaos.main(Chaos(minutes=4, out=tmp_path / "out")) == 0
