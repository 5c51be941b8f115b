"""Feedback over HTTP: said, refused, taken back, exported; and the order in which images are reviewed."""

import json
from pathlib import Path

import numpy as np
import pytest
from serving_here import serving_here
from stored_results import result

from downstream.service.feedback.schemas import FeedbackListResponse, FeedbackResponse, ReviewQueueResponse
from downstream.service.limits import MAX_JSON_BYTES
from scripts.attacks.serving import image_bytes


@pytest.fixture(scope="module")
def serving(models_folder, tmp_path_factory):
    with serving_here(models_folder, tmp_path_factory.mktemp("served"), model="hazelnut") as serving:
        yield serving


def judged(serving, seed: int, keep: bool = True, **fields: object) -> dict:
    return serving.test(image_bytes(seed, (64, 48)), f"image {seed}.png", keep=keep, **fields).json()


def say(serving, result: int, verdict: str, **fields: object):
    return serving.client.post("/api/feedback", json={"result": result, "verdict": verdict, **fields})


def test_a_false_alarm_is_said_and_taken_back(serving):
    result = judged(serving, 1, threshold=-1e9)
    answer = say(serving, result["id"], "false_alarm", note="a shadow\u202e")
    assert answer.status_code == 200
    record = FeedbackResponse(**answer.json())
    assert (record.result, record.by, record.note, record.was_defective) == (result["id"], "local", "a shadow", True)
    assert (record.digest, record.model_version) == (result["digest"], result["model_version"])
    taken = serving.client.post(f"/api/feedback/{record.id}/take_back")
    assert FeedbackResponse(**taken.json()).takes_back == record.id
    listed = FeedbackListResponse(**serving.client.get("/api/feedback", params={"result": result["id"]}).json())
    assert [one.verdict for one in listed.feedback] == ["taken_back", "false_alarm"]
    assert listed.feedback[1].taken_back_by == listed.feedback[0].id
    again = serving.client.post(f"/api/feedback/{record.id}/take_back")
    assert again.status_code == 409 and "already" in again.json()["detail"]
    assert serving.client.post("/api/feedback/0/take_back").status_code == 404


def test_a_missed_defect_is_marked_and_exported(serving):
    result = judged(serving, 2, threshold=1e9)
    marks = {"boxes": [[1, 2, 30, 40]], "strokes": [{"radius": 3, "points": [[5, 5], [20, 9]]}]}
    record = say(serving, result["id"], "missed_defect", marks=marks).json()
    assert record["marks"] == {**marks, "polygons": []}
    answer = serving.client.get("/api/feedback/export")
    assert answer.headers["Content-Type"].startswith("application/x-ndjson")
    (line,) = (one for one in map(json.loads, answer.text.splitlines()) if one["image_digest"] == result["digest"])
    assert line["verdict"] == "missed defect" and [*line["mask"][0]] == ["box"] and len(line["mask"]) == 2
    assert Path(line["image"]).read_bytes() == image_bytes(2, (64, 48))


def test_an_export_of_several_pages_has_every_record(serving, monkeypatch):
    digests = []
    for seed in range(20, 25):
        result = judged(serving, seed)
        digests.append(result["digest"])
        assert say(serving, result["id"], "agree").status_code == 200
    monkeypatch.setattr("downstream.service.streaming.ROWS_PER_PAGE", 2)
    exported = serving.client.get("/api/feedback/export").text.splitlines()
    assert [json.loads(line)["image_digest"] for line in exported][-5:] == digests
    for model, lines in (("hazelnut", exported), ("mean", [])):
        assert serving.client.get("/api/feedback/export", params={"model": model}).text.splitlines() == lines


@pytest.mark.parametrize(
    ("is_defective", "fields", "words"),
    [
        (False, {"verdict": "false_alarm"}, "a false alarm was called defective"),
        (True, {"verdict": "missed_defect"}, "this result is defective already"),
        (False, {"verdict": "agree", "marks": {"boxes": [[0, 0, 5, 5]]}}, "by this verdict there is none"),
        (True, {"verdict": "agree", "marks": {"boxes": [[64, 0, 70, 5]]}}, "outside of the image's 64 x 48"),
        (True, {"verdict": "agree", "marks": {"boxes": [[5, 0, 5, 5]]}}, "left below its right"),
        (True, {"verdict": "agree", "marks": {"polygons": [[[0, 0], [1, 1]]]}}, "at least 3"),
        (True, {"verdict": "agree", "marks": {"polygons": [[[1, 1]] * 2000] * 11}}, "may have 20000 points"),
        (True, {"verdict": "perhaps"}, "verdict"),
    ],
)
def test_what_cannot_be_said_is_refused_with_the_reason(serving, is_defective, fields, words):
    result = judged(serving, 3, threshold=-1e9 if is_defective else 1e9)
    answer = say(serving, result["id"], **fields)
    assert answer.status_code == 422 and words in answer.json()["detail"]


def test_marks_are_bounded_before_they_are_parsed(serving, monkeypatch):
    """As many points as are taken, with all the digits of a double, pass; thousands of strokes more are not parsed."""
    result, point = judged(serving, 3, threshold=1e9)["id"], [12.345678901234567, 23.456789012345678]
    most = {"polygons": [[point, [60.0, 1.0], [60.0, 40.0]]] + [[point] * 2000] * 9 + [[point] * 1997]}  # 20,000
    answer = say(serving, result, "missed_defect", marks=most)
    assert answer.status_code == 200 and len(answer.request.content) < MAX_JSON_BYTES / 2
    parsed = []
    monkeypatch.setattr("starlette.requests.Request.json", lambda request: parsed.append(request))
    hostile = {"strokes": [{"radius": 3, "points": [point] * 2000}] * 40}
    answer = say(serving, result, "missed_defect", marks=hostile)
    assert answer.status_code == 413 and parsed == []


def test_an_image_that_was_not_kept_is_kept_first(serving):
    result = judged(serving, 4, keep=False)
    assert say(serving, result["id"], "agree").status_code == 409
    kept = serving.client.post("/api/keep", files={"image": image_bytes(4, (64, 48))}).json()
    assert kept == {"digest": result["digest"]}
    assert say(serving, result["id"], "agree").status_code == 200
    (listed,) = serving.client.get("/api/results", params={"digest": result["digest"]}).json()["results"]
    assert listed["is_kept"]
    assert say(serving, 10**9, "agree").status_code == 404
    assert serving.client.post("/api/keep", files={"image": b"no"}).status_code == 415


def test_the_queue_has_what_nobody_spoke_of_the_most_doubtful_first(serving):
    for seed in range(10, 16):
        judged(serving, seed)
    judged(serving, 12)  # again: once is enough
    queue = ReviewQueueResponse(**serving.client.get("/api/feedback/queue").json())
    digests = [one.result.digest for one in queue.images]
    assert len(digests) == len(set(digests)) == queue.total >= 6
    threshold = serving.client.get("/api/threshold").json()["value"]
    near = [abs(one.result.anomaly_score - threshold) for one in queue.images if one.reason == "near the threshold"]
    assert near == sorted(near) and near[0] == min(abs(one.result.anomaly_score - threshold) for one in queue.images)
    far = [one.distance for one in queue.images if one.reason == "unlike the others"]
    assert far == sorted(far, reverse=True) and np.isfinite(far).all() and len(far) > 0
    say(serving, queue.images[0].result.id, "unsure")
    after = ReviewQueueResponse(**serving.client.get("/api/feedback/queue", params={"limit": 2}).json())
    assert after.total == queue.total - 1 and len(after.images) == 2
    assert digests[0] not in [one.result.digest for one in after.images]


def test_the_queue_goes_on_beyond_those_that_are_put_in_order_at_a_time(serving, monkeypatch):
    monkeypatch.setattr("downstream.service.feedback.routes.MAX_CANDIDATES", 4)
    for seed in range(40, 47):
        judged(serving, seed)
    newest = [one["digest"] for one in serving.client.get("/api/results", params={"limit": 7}).json()["results"]]
    seen, pages, skip = [], [], 0
    while skip is not None:
        answer = serving.client.get("/api/feedback/queue", params={"limit": 3, "skip": skip}).json()
        page = ReviewQueueResponse(**answer)
        digests = [one.result.digest for one in page.images]
        pages.append(len(digests))
        seen, skip = seen + digests, page.next_skip
    assert len(seen) == len(set(seen)) == page.total >= 7 and pages[:2] == [3, 1]
    assert set(seen[:4]) == set(newest[:4])  # put in order among themselves, and then those before them


def test_scores_of_two_versions_are_not_put_in_one_order(serving):
    client, service = serving.client, serving.service
    before = ReviewQueueResponse(**client.get("/api/feedback/queue").json())
    old = result(1, model="hazelnut", model_version="older", is_kept=True, threshold=50.0)
    service.database.add_results([old._replace(digest=f"{n:064x}", score=score) for n, score in ((1, 10.0), (2, 49.0))])
    now = ReviewQueueResponse(**client.get("/api/feedback/queue").json())
    assert [one.result.id for one in now.images] == [one.result.id for one in before.images]
    assert [(one.version, one.waiting, one.is_in_use) for one in now.versions] == [
        (before.version, before.total, True), ("older", 2, False)
    ]  # fmt: skip
    other = ReviewQueueResponse(**client.get("/api/feedback/queue", params={"version": "older"}).json())
    assert (other.version, other.total, other.next_skip) == ("older", 2, None)
    # By the threshold of its own time; no spread of its normals is known any more.
    assert [(one.result.anomaly_score, one.spreads) for one in other.images] == [(49.0, None), (10.0, None)]
    assert client.get("/api/feedback/queue", params={"version": "none"}).json()["images"] == []
    # A request that brought its own threshold says nothing of the others'.
    service.database.add_results([old._replace(digest=f"{3:064x}", score=10.0, threshold=15.0)])
    other = ReviewQueueResponse(**client.get("/api/feedback/queue", params={"version": "older"}).json())
    assert [one.result.anomaly_score for one in other.images] == [49.0, 10.0, 10.0]
    answer = client.get("/api/feedback/queue", params={"version": "\0"})  # PostgreSQL knows no such text
    assert answer.status_code == 422 and "printable" in answer.json()["detail"]
