"""The command: what it refuses to start with, and that what it answered is kept however it ends."""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import httpx
import pytest
from serving import postgres

from downstream.inspection.inspector import FILE
from downstream.serve import main, settings_of, settings_of_workers
from downstream.service.app import ENVIRONMENT, app_from_environment, make_app
from downstream.service.audit.log import entries
from downstream.service.config import Config, Settings
from downstream.service.database import Database, ResultFilter
from downstream.service.models import NoSuchModel
from downstream.service.service import Service
from pretrain.command import UserError, run_command
from pretrain.reading import parse_json
from scripts.attacks.serving import fill, image_bytes, served, small_disk

TOKEN = "a token of some length"


def send(url: str, seed: int) -> int | None:
    """The id of a result, or none if there was no answer. (To read certificates takes longer than to ask: not here.)"""
    try:
        answer = httpx.post(f"{url}/api/test_image", files={"image": image_bytes(seed)}, timeout=30, verify=False)
        return answer.json()["id"] if answer.status_code == 200 else None
    except httpx.TransportError:
        return None


def counted(url: str) -> float:
    """The images that were posted, by the metrics of all workers together."""
    metrics = httpx.get(f"{url}/metrics", verify=False).text
    (line,) = (line for line in metrics.splitlines() if line.startswith("heldout_http_requests_total{")
               and '"/api/test_image"' in line)  # fmt: skip
    return float(line.split()[-1])


@pytest.fixture
def full_folder(tmp_path):
    """A folder that holds 8 MB and no more."""
    try:
        with small_disk(tmp_path / "small", megabytes=8) as folder:
            yield folder
    except OSError as error:
        pytest.skip(str(error))


def test_a_full_disk_is_said_and_got_over(full_folder, models_folder):
    """And a Ctrl-C ends it."""
    with served(models_folder, full_folder, "--max-image-mb", "1", "--model", "mean", "--decoders", "1") as serving:
        first = serving.test(image_bytes(1), keep="true")
        assert first.status_code == 200
        filler = fill(full_folder)
        answers = [serving.test(image_bytes(seed), keep=keep) for seed in range(2, 14) for keep in ("true", "false")]
        refused = [answer for answer in answers if answer.status_code != 200]
        assert refused and {answer.status_code for answer in refused} == {507}
        assert all("no space is left" in answer.json()["detail"] for answer in refused)
        health = serving.client.get("/health")
        assert health.status_code == 503 and not health.json()["space"]
        filler.unlink()
        assert serving.client.get("/health").status_code == 200
        last = serving.test(image_bytes(50), keep="true")
        assert last.status_code == 200
        kept = serving.client.get("/api/results", params={"limit": 100}).json()["results"]
        answered = [first, *(answer for answer in answers if answer.status_code == 200), last]
        assert sorted(one["id"] for one in kept) == sorted(answer.json()["id"] for answer in answered)
        assert serving.stop(signal.SIGINT) in (0, 130)


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_every_answered_result_survives_a_kill(kind, models_folder, tmp_path):
    if kind == "postgresql":
        with postgres(tmp_path / "postgres") as url:
            killed_and_started_again(models_folder, tmp_path / "served", url)
    else:
        killed_and_started_again(models_folder, tmp_path / "served", str(tmp_path / "served" / "results.sqlite"))


def killed_and_started_again(models: Path, folder: Path, results: str) -> None:
    options = ("--results", results, "--model", "mean", "--decoders", "1")
    with served(models, folder, *options) as serving, ThreadPoolExecutor(8) as pool:
        serving.client.post("/api/load_model", json={"name": "mean"})
        serving.client.put("/api/threshold", json={"value": 0.125})
        sent = [pool.submit(send, serving.url, number) for number in range(400)]
        while sum(future.done() and future.result() is not None for future in sent) < 20:
            time.sleep(0.02)
        serving.process.kill()
        answered = {future.result() for future in sent} - {None}
    assert 20 <= len(answered) < 400  # it was killed in the middle
    again = Service(settings_of(Config(models=models, results=results, kept_images=folder / "images")))
    total, inspected = asked(again, total_and_inspection)
    assert total.json()["total"] >= len(answered)
    assert (inspected.json()["model"], inspected.json()["threshold"]) == ("mean", 0.125)  # what was set is there too
    database = Database(results)
    kept = {one.id for one in database.all_results(ResultFilter())}
    database.close()
    assert answered <= kept


def asked(service: Service, ask: Callable) -> tuple:
    """What `ask(client)` gets of a service that runs in this process meanwhile."""

    async def answered() -> tuple:
        await service.start()
        transport = httpx.ASGITransport(make_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answers = await ask(client)
        await service.stop()
        return answers

    return asyncio.run(answered())


async def total_and_inspection(client: httpx.AsyncClient) -> tuple[httpx.Response, httpx.Response]:
    total = await client.get("/api/results")
    return total, await client.post("/api/test_image", files={"image": image_bytes()})


@pytest.fixture(scope="module")
def guarded(models_folder, tmp_path_factory):
    """A server with a token and little room; the last of the tests that ask it stops it."""
    folder = tmp_path_factory.mktemp("guarded")
    with served(models_folder, folder, "--max-waiting", "16", "--batch-size", "2", token=TOKEN) as serving:
        yield serving


def test_beyond_what_may_wait_clients_are_told_when_to_come_back(guarded):
    data = image_bytes(size=(900, 700))
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda _: guarded.test(data), range(40)))
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {200, 429} and statuses[200] >= 3
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers if answer.status_code == 429)
    assert guarded.test(image_bytes()).status_code == 200
    assert guarded.client.get("/api/status").json()["images_in_progress"] == 0


def test_a_token_from_the_environment(guarded):
    assert guarded.client.get("/api/status").status_code == 200
    assert httpx.get(f"{guarded.url}/api/status", verify=False).status_code == 401
    assert httpx.get(f"{guarded.url}/health", verify=False).status_code == 200
    assert TOKEN not in guarded.log


def test_a_stop_answers_what_was_accepted(guarded):
    before = guarded.client.get("/api/results").json()["total"]
    with ThreadPoolExecutor(24) as pool:
        data = image_bytes(size=(900, 700))
        sent = [pool.submit(guarded.test, data) for _ in range(24)]
        end_s = time.monotonic() + 20
        while guarded.client.get("/api/status").json()["images_in_progress"] < 6:
            assert time.monotonic() < end_s
        assert guarded.stop() == 0
        outcomes = Counter()
        for future in sent:
            try:
                outcomes[future.result().status_code] += 1
            except httpx.TransportError:  # came after the stop: not accepted
                outcomes["not accepted"] += 1
        assert outcomes[200] >= 6 and set(outcomes) <= {200, 429, "not accepted"}
    database = Database(str(guarded.folder / "results.sqlite"))
    assert database.count(ResultFilter()) == before + outcomes[200]
    database.close()


@pytest.fixture
def settings(models_folder, tmp_path) -> Settings:
    return settings_of(
        Config(models=models_folder, results=str(tmp_path / "x.sqlite"), kept_images=tmp_path / "images")
    )


def test_an_image_that_takes_too_long_is_given_up(settings):
    async def inspection_and_health(client: httpx.AsyncClient) -> tuple[httpx.Response, httpx.Response]:
        answer = await client.post("/api/test_image", files={"image": image_bytes()})
        return answer, await client.get("/api/health")

    answer, health = asked(Service(replace(settings, timeout_s=1e-9)), inspection_and_health)
    assert answer.status_code in (408, 503) and "detail" in answer.json()
    assert health.status_code == 200


def test_the_model_named_at_the_start_is_used_whatever_was_chosen_last(settings):
    database = Database(settings.results)
    for chosen, named, used in (("mean", None, "mean"), ("mean", "hazelnut", "hazelnut"), ("gone", None, "hazelnut")):
        database.set("model", chosen)
        service = Service(replace(settings, model=named))
        assert service.current().loaded.name == used
        service.database.close()
    database.close()


def told(database: Database) -> list[tuple]:
    return [(one.by, one.action, one.subject, parse_json(one.after, object)) for one in entries(database)]


def test_a_worker_that_is_started_again_changes_nothing(settings, monkeypatch):
    named = replace(settings, model="hazelnut")
    first = Service(named)
    first.use_model("mean", "ada")
    before = told(first.database)
    monkeypatch.setenv(ENVIRONMENT, settings_of_workers(first))
    monkeypatch.setattr("downstream.service.app.start_logging", lambda: None)
    app_from_environment()
    assert first.current().loaded.name == "mean" and told(first.database) == before
    first.database.close()


def test_what_is_fitted_beside_a_service_is_not_put_into_use_by_a_worker(models_folder, settings, tmp_path):
    shutil.copytree(models_folder / "mean", tmp_path / "models" / "bolt")
    settings = replace(settings, models=str(tmp_path / "models"))
    first = Service(settings)
    shutil.copytree(models_folder / "mean", tmp_path / "models" / "anchor")
    workers = Settings(**json.loads(settings_of_workers(first)))
    again = Service(workers, is_first=False)
    assert {first.current().loaded.name, again.current().loaded.name} == {"bolt"}
    shutil.rmtree(tmp_path / "models" / "bolt")
    with pytest.raises(NoSuchModel):  # and none else judges in its place
        Service(workers, is_first=False).current()


def test_models_that_cannot_be_read_stop_no_start_and_are_not_gone(models_folder, settings, tmp_path):
    models = tmp_path / "models"
    for name in ("bolt", "anchor"):
        shutil.copytree(models_folder / "mean", models / name)
    settings = replace(settings, models=str(models))
    Service(settings).database.close()
    (models / "anchor" / FILE).unlink()
    (models / "anchor" / FILE).symlink_to("/proc/self/mem")  # nobody can read its beginning, not even root
    shutil.copytree(models_folder / "mean", models / os.fsdecode(b"\xff"))
    service = Service(settings)
    assert service.models.names() == ["anchor", "bolt"]
    assert [one[1:3] for one in told(service.database)] == [
        ("model version", "anchor"), ("model version", "bolt"), ("model", "in use"), ("model", "in use"),
    ]  # fmt: skip
    assert service.current().loaded.name == "bolt"
    service.database.close()


@pytest.mark.slow
def test_several_workers_agree(models_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    models = tmp_path / "models"  # none with an encoder, which each of three processes would take 2 s to open
    for name in ("first", "second"):
        shutil.copytree(models_folder / "mean", models / name)
    with served(models, tmp_path / "served", "--workers", "2", "--decoders", "1") as serving:
        for name in ("second", "first"):
            serving.client.post("/api/load_model", json={"name": name})
            with ThreadPoolExecutor(8) as pool:  # each request by a connection of its own, so by either worker
                models = pool.map(
                    lambda _: httpx.get(f"{serving.url}/api/status", verify=False).json()["model"], range(24)
                )
                assert set(models) == {name}
        with ThreadPoolExecutor(8) as pool:
            ids = list(pool.map(lambda number: send(serving.url, number), range(24)))
        assert len(set(ids)) == 24 and None not in ids
        # A request is counted once it is answered, so the last ones a moment after their clients have read the answers.
        end_s = time.monotonic() + 10
        while counted(serving.url) < 24 and time.monotonic() < end_s:
            time.sleep(0.05)
        assert counted(serving.url) == 24
        assert list(tmp_path.glob(".heldout-serve.*/*.db"))
        assert serving.stop() == 0
    assert not list(tmp_path.glob(".heldout-serve.*"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"models": Path("nowhere")}, "there is no model in nowhere"),
        ({"model": "hazlenut"}, "did you mean hazelnut"),
        ({"host": "0.0.0.0"}, "give --token-file FILE or HELDOUT_TOKEN"),
        ({"token_file": Path("nowhere")}, "the secret in nowhere cannot be read"),
        ({"token_file": Path("short.txt")}, "16 plain characters"),
        ({"users": Path("nowhere")}, "the users in nowhere cannot be read"),
        ({"users": Path("short.txt")}, "short.txt, line 1: a user is a line of"),
        ({"webhook": "file:///etc/passwd"}, "--webhook has to be an http"),
        ({"webhook": "http:///no-host"}, "--webhook has to be an http"),
        ({"webhook": "http://line:port/"}, "--webhook has to be an http"),
        ({"port": 70000}, "there is no port 70000"),
        ({"host": "no.such.host.invalid"}, "cannot listen at no.such.host.invalid"),
        ({"max_waiting": 0}, "--max-waiting 0 makes no service"),
        ({"timeout_s": -1.0}, "--timeout-s -1.0 makes no service"),
        ({"results": "mysql://x"}, "results cannot be kept in mysql"),
        ({"vectors": Path("nowhere")}, "nowhere"),
        ({"kept_images": Path("short.txt")}, "short.txt is a file"),
    ],
)
def test_mistakes_are_one_sentence(options, words, models_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HELDOUT_TOKEN", raising=False)
    (tmp_path / "short.txt").write_text("short\n")
    with pytest.raises(UserError, match=words):
        main(Config(**{"models": models_folder, "port": 0, **options}))


def test_a_port_that_is_taken_is_told(models_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run_command(main, Config, ["--models", str(models_folder), "--port", str(port)]) == 2
    assert f"127.0.0.1:{port}" in capsys.readouterr().err


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("downstream.service", sys.modules["downstream.service"])  # the same one for later tests
    for name in [name for name in sys.modules if name.startswith("downstream.serv")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(UserError, match=r"the service needs fastapi: pip install -e '\.\[serve\]'"):
        import_module("downstream.serve")


def test_secrets_and_places_from_files_and_the_environment(models_folder, tmp_path, monkeypatch):
    (tmp_path / "token").write_text(f"{TOKEN}\nmore\n")
    (tmp_path / "password").write_text("pass word\n")
    monkeypatch.setenv("HELDOUT_RESULTS", "postgresql://x@y/z")
    config = Config(models=models_folder, token_file=tmp_path / "token", results_password_file=tmp_path / "password")
    settings = settings_of(config)
    assert (settings.token, settings.results, settings.results_password) == (TOKEN, "postgresql://x@y/z", "pass word")
    assert "*" in settings.allowed_hosts and "*" not in settings_of(Config(models=models_folder / "mean")).allowed_hosts
