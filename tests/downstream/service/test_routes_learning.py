"""Learning over HTTP: begun, looked at, proved and promoted; refused where it cannot be; nothing is lost by a kill."""

import os
import shutil
import signal
import time

import pytest
from serving_here import Here, serving_here

from downstream.learning.versions import PROOF, version_in_use
from downstream.service.routes_learning import LearningResponse, ProofResponse
from downstream.service.service import LEARNING_FOLDER
from pretrain.files import write_json


@pytest.fixture(scope="module")
def serving(fused_folder, models_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("learning")
    shutil.copytree(models_folder / "mean", folder / "models" / "mean")
    shutil.copytree(fused_folder, folder / "models" / "nut")
    with serving_here(folder / "models", folder, model="nut") as serving:
        yield serving


@pytest.fixture(scope="module")
def corrected(serving, sorted_images) -> int:
    """Images that were judged and of which somebody said what they are; one was taken back."""
    for path in sorted(sorted_images.glob("*/*.png")):
        if path.stem.endswith("_mask"):
            continue
        result = serving.test(path.read_bytes(), path.name, keep=True).json()
        is_right = result["is_defective"] == (path.parent.name == "defective")
        wrong = "false_alarm" if result["is_defective"] else "missed_defect"
        body = {"result": result["id"], "verdict": "agree" if is_right else wrong}
        assert serving.client.post("/api/feedback", json=body).status_code == 200
    return 10


def ended(serving: Here) -> LearningResponse:
    for _ in range(600):
        found = LearningResponse(**serving.client.get("/api/learn").json())
        if found.state != "runs":
            return found
        time.sleep(0.1)
    raise AssertionError("it never ended")


def test_what_cannot_learn_is_told_before_anything_begins(serving):
    assert serving.client.get("/api/learn").json()["state"] == "never"
    for model, status, words in (("nut", 409, "nobody has said"), ("mean", 409, "fused"), ("nothing", 404, "no model")):
        answer = serving.client.post("/api/learn", params={"model": model})
        assert answer.status_code == status and words in answer.json()["detail"]
    assert serving.client.get("/api/learn").json()["state"] == "never"
    answer = serving.client.get("/api/proof", params={"version": 1})
    assert answer.status_code == 404 and "version 1" in answer.json()["detail"]


def test_a_version_is_made_beside_the_one_in_use_and_proved_image_by_image(serving, corrected):
    path = serving.service.models.path_of("nut")
    before = serving.client.get("/api/status").json()
    answer = serving.client.post("/api/learn")
    assert answer.status_code == 202
    begun = LearningResponse(**answer.json())
    assert (begun.state, begun.model, begun.by, begun.number) == ("runs", "nut", "local", 1)
    other = serving.client.post("/api/learn")
    assert other.status_code == 409 and "nut learns just now" in other.json()["detail"]
    found = ended(serving)
    assert (found.state, found.version, found.reason) == ("done", 2, ""), found
    assert version_in_use(path) == 1 and serving.client.get("/api/status").json()["threshold"] == before["threshold"]
    entry = serving.client.get("/api/audit", params={"limit": 1}).json()["entries"][0]
    assert (entry["by"], entry["action"], entry["subject"]) == ("local", "learning", "nut")
    proof = ProofResponse(**serving.client.get("/api/proof", params={"version": 2}).json())
    assert (proof.version, proof.in_use, proof.is_current, proof.confirmed) == (2, 1, True, corrected)
    assert proof.learned["good"] + proof.learned["defective"] + proof.after.good + proof.after.defective == corrected
    assert proof.before.good == proof.after.good and proof.total_changed == len(proof.changes)
    for change in proof.changes:
        assert change.said_before != change.said_after and change.name.endswith(".png")
        assert serving.client.get(change.image).headers["Content-Type"] == "image/jpeg"
    assert serving.client.post("/api/promote", json={"version": 2}).status_code == 200
    assert not serving.client.get("/api/proof", params={"version": 2}).json()["is_current"]
    assert serving.client.post("/api/roll_back").status_code == 200


def test_killed_while_it_learns_it_leaves_the_version_in_use_and_learns_again(serving, corrected, sorted_images):
    path = serving.service.models.path_of("nut")
    image = next((sorted_images / "good").glob("*.png")).read_bytes()
    before = serving.test(image).json()["model_version"]
    assert serving.client.post("/api/learn").status_code == 202
    os.kill(serving.service.learning._process.pid, signal.SIGKILL)
    found = ended(serving)
    assert found.state == "failed" and "ended before it was done" in found.reason
    assert version_in_use(path) == 1 and serving.test(image).json()["model_version"] == before
    status = serving.service.learning.start(path, "nut", [], "ada")  # the next one may begin
    assert status.state == "runs" and ended(serving).state == "failed"  # of no records


def test_a_damaged_proof_and_a_damaged_word_of_how_it_went_are_told(serving, corrected):
    folder = serving.service.models.path_of("nut") / "versions" / "7"
    folder.mkdir()
    write_json(folder / PROOF, {"in_use": 1, "images": [{}]})
    answer = serving.client.get("/api/proof", params={"version": 7})
    assert answer.status_code == 409 and "damaged" in answer.json()["detail"]
    status = serving.service.learning._folder / "status.json"
    assert status.parent.name == LEARNING_FOLDER
    status.write_text("{")
    assert serving.client.get("/api/learn").json()["state"] == "never"
