"""Versions over HTTP: listed, promoted, rolled back, and used by the next image."""

import errno
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from serving_here import add_second_version, serving_here

from downstream.inspection.inspector import Inspector
from downstream.learning import versions
from downstream.learning.versions import version_in_use
from downstream.service import service as service_of_images
from downstream.service.audit.log import page_before
from downstream.service.routes_versions import VersionsResponse, changed
from downstream.service.service import Service
from pretrain import files
from scripts.attacks.serving import image_bytes


@pytest.fixture(scope="module")
def serving(models_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("versions")
    models = shutil.copytree(models_folder, folder / "models")
    with serving_here(models, folder, model="mean") as serving:
        yield serving


@pytest.fixture(scope="module")
def second(serving) -> float:
    """The threshold of version 2 of the model, which is not in use yet."""
    add_second_version(serving.service.models.path_of("mean"), 123.0)
    return 123.0


def test_a_version_is_promoted_and_rolled_back_and_the_next_image_is_judged_by_it(serving, second):
    client = serving.client
    before = serving.test(image_bytes()).json()
    listed = VersionsResponse(**client.get("/api/versions").json())
    assert [(one.number, one.is_in_use) for one in listed.versions] == [(1, True), (2, False)]
    assert listed.versions[1].learned == {"good": 3, "defective": 1} and listed.versions[0].learned is None
    promoted = VersionsResponse(**client.post("/api/promote", json={"version": 2}).json())
    assert [one.is_in_use for one in promoted.versions] == [False, True]
    assert [(one.version, one.how, one.by) for one in promoted.history[1:]] == [(2, "promoted", "local")]
    after = serving.test(image_bytes()).json()
    assert after["threshold"] == second != before["threshold"]
    assert after["model_version"] != before["model_version"]
    back = VersionsResponse(**client.post("/api/roll_back").json())
    assert [one.is_in_use for one in back.versions] == [True, False]
    again = serving.test(image_bytes()).json()
    assert (again["threshold"], again["model_version"]) == (before["threshold"], before["model_version"])
    told = [(one["action"], one["by"], one["before"], one["after"])
            for one in client.get("/api/audit", params={"limit": 4}).json()["entries"]]  # fmt: skip
    first, other = before["model_version"], after["model_version"]
    assert told == [  # the newest first: what shall be, and what came of it
        ("model version", "local (history.json)", other, first), ("version in use", "local", 2, 1),
        ("model version", "local (history.json)", first, other), ("version in use", "local", 1, 2),
    ]  # fmt: skip


def test_who_changed_a_model_by_a_command_is_told_as_its_history_says_and_nobody_where_it_does_not(serving, second):
    client, path = serving.client, serving.service.models.path_of("mean")

    def told() -> str:
        client.get("/api/threshold", params={"model": "mean"})
        entry = client.get("/api/audit", params={"limit": 1}).json()["entries"][0]
        assert entry["action"] == "model version"
        return entry["by"]

    versions.promote(path, 2, "ann")
    assert told() == "ann (history.json)"
    decided = Inspector.load(path)
    decided.decide_at(99.0)  # as area.py does, which asks nobody for a name
    decided.save(path)
    assert told() == "service"
    versions.promote(path, 1)
    assert told() == "service"


def test_no_version_comes_into_use_untold_and_what_did_not_is_told_too(serving, second, monkeypatch):
    """Killed, or out of space, at the very exchange."""
    client, path = serving.client, serving.service.models.path_of("mean")
    seen, exchange = [], files._exchange

    def failing(unfinished: Path, folder: Path) -> None:
        if folder != path.resolve():  # the version in use is stored beside itself
            exchange(unfinished, folder)
            return
        seen.append(client.get("/api/audit", params={"limit": 1}).json()["entries"][0])
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(files, "_exchange", failing)
        assert client.post("/api/promote", json={"version": 2}).status_code == 507
    assert [(one["by"], one["action"], one["before"], one["after"]) for one in seen] == [
        ("local", "version in use", 1, 2)
    ]
    last = client.get("/api/audit", params={"limit": 1}).json()["entries"][0]
    assert (last["by"], last["before"], last["after"]) == ("service", 2, 1) and version_in_use(path) == 1


def test_what_came_into_use_is_not_said_to_be_taken_back_where_the_answer_fails(serving, second, monkeypatch):
    client, path, asked = serving.client, serving.service.models.path_of("mean"), []
    known = versions.version_of

    def failing(model: Path, number: int) -> versions.Version:
        asked.append(number)
        if len(asked) == 2:  # after the exchange
            raise OSError(errno.ENOSPC, "no space")
        return known(model, number)

    with monkeypatch.context() as patch:
        patch.setattr(versions, "version_of", failing)
        assert client.post("/api/promote", json={"version": 2}).status_code == 507
    last = client.get("/api/audit", params={"limit": 1}).json()["entries"][0]
    assert version_in_use(path) == 2 and (last["by"], last["before"], last["after"]) == ("local", 1, 2)
    assert client.post("/api/roll_back").status_code == 200


def test_an_image_on_its_way_is_judged_by_the_version_that_it_came_for(serving, second, monkeypatch):
    before = serving.test(image_bytes()).json()
    reached, go = threading.Event(), threading.Event()
    judge = service_of_images.forward

    def held(jobs: list) -> list:
        reached.set()
        assert go.wait(30)
        return judge(jobs)

    with monkeypatch.context() as patch, ThreadPoolExecutor(1) as pool:
        patch.setattr(service_of_images, "forward", held)
        waiting = pool.submit(serving.test, image_bytes())
        assert reached.wait(30)
        assert serving.client.post("/api/promote", json={"version": 2}).status_code == 200
        go.set()
        answer = waiting.result().json()
    after = serving.test(image_bytes()).json()
    assert serving.client.post("/api/roll_back").status_code == 200
    assert (answer["model_version"], answer["threshold"]) == (before["model_version"], before["threshold"])
    assert (after["model_version"], after["threshold"]) != (before["model_version"], before["threshold"])


def test_each_version_that_comes_into_use_is_told_whichever_worker_saw_the_one_before(serving, second):
    one, other = serving.service, Service(serving.service.settings, is_first=False)
    first = one.current("mean").loaded.fingerprint
    changed(other, "mean", "ada", 2)
    changed(one, "mean", "ada", None)  # a worker that never judged by version 2
    last = [entry for entry in page_before(one.database, 4, None) if entry.action == "model version"]
    assert len(last) == 2 and json.loads(last[0].after) == json.loads(last[1].before) == first
    other.database.close()


def test_what_is_no_version_is_told(serving, second):
    client = serving.client
    for version in (1, 7):
        answer = client.post("/api/promote", json={"version": version})
        assert answer.status_code == 409 and f"version {version}" in answer.json()["detail"]
    assert client.post("/api/promote", json={"version": 0}).status_code == 422
    assert client.get("/api/versions", params={"model": "nothing"}).status_code == 404
    (only,) = client.get("/api/versions", params={"model": "hazelnut"}).json()["versions"]
    assert only["number"] == 1 and only["is_in_use"]
    answer = client.post("/api/roll_back", params={"model": "hazelnut"})
    assert answer.status_code == 409 and "no version" in answer.json()["detail"]
