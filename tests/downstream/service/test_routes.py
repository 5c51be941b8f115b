"""What is asked of a running server, and what it says."""

import base64
import csv
import hashlib
import io
import json
import shutil
import sqlite3
from contextlib import closing
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from serving_here import serving_here

from downstream.inspection.inspector import FILE, Inspector
from downstream.service.openapi import EXAMPLES
from downstream.service.routes_results import CSV_FIELDS
from downstream.service.schemas import (
    BatchResponse,
    HealthResponse,
    ImageResponse,
    MapResponse,
    ModelsResponse,
    ResultsResponse,
    SearchResponse,
    StatusResponse,
    ThresholdResponse,
    safe_name,
)
from pretrain.files import read_tensors, write_tensors
from scripts.attacks.serving import image_bytes


@pytest.fixture(scope="module")
def serving(models_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    with serving_here(models_folder, folder, max_megapixels=1.0, max_image_mb=1, max_images=5) as serving:
        yield serving
        assert "Traceback" not in serving.log


@pytest.fixture(autouse=True)
def as_at_the_start(serving):
    yield
    serving.client.post("/api/load_model", json={"name": "hazelnut"})
    serving.client.put("/api/threshold", json={"value": None})


@pytest.fixture(scope="module")
def good(demo_folder) -> bytes:
    return (demo_folder / "hazelnut" / "test" / "good" / "000.png").read_bytes()


@pytest.fixture(scope="module")
def bad(good) -> bytes:
    image = Image.open(BytesIO(good)).convert("RGB")
    image.paste((255, 0, 255), (100, 60, 140, 110))
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_an_image_is_judged_as_the_command_judges_it(serving, good, bad, models_folder, tmp_path):
    inspector = Inspector.load(models_folder / "hazelnut")
    for name, data in (("good.png", good), ("bad.png", bad)):
        (tmp_path / name).write_bytes(data)
        (wanted,) = inspector.inspect([tmp_path / name])
        answer = serving.test(data, name).json()
        assert ImageResponse(**answer).anomaly_score == pytest.approx(wanted.score, rel=1e-5)
        assert answer["is_defective"] == wanted.is_defective == (name == "bad.png")
        assert answer["confidence"] == pytest.approx(wanted.confidence, rel=1e-4)
        assert [region["box"] for region in answer["regions"]] == [list(region.box) for region in wanted.regions]
        assert (answer["name"], answer["width"], answer["height"]) == (name, 256, 256)
        assert answer["digest"] == hashlib.sha256(data).hexdigest()
        assert answer["anomaly_map"] is None and answer["reconstruction_error"] is None
        assert answer["milliseconds"] >= answer["model_milliseconds"] > 0


def test_the_map_as_numbers_and_as_an_image(serving, bad, models_folder, tmp_path):
    (tmp_path / "bad.png").write_bytes(bad)
    (wanted,) = Inspector.load(models_folder / "hazelnut").inspect([tmp_path / "bad.png"])
    numbers = np.array(serving.test(bad, map="array").json()["anomaly_map"])
    np.testing.assert_allclose(numbers, wanted.anomaly_map, rtol=1e-3, atol=1e-5 * np.abs(wanted.anomaly_map).max())
    kind, _, data = serving.test(bad, map="png").json()["anomaly_map"].partition(",")
    image = Image.open(BytesIO(base64.b64decode(data)))
    assert kind == "data:image/png;base64" and image.mode == "RGBA" and image.size == (64, 64)
    alpha = np.asarray(image)[..., 3]
    assert alpha[wanted.anomaly_map < wanted.map_threshold / 2].max(initial=0) <= 1
    assert alpha[wanted.anomaly_map > wanted.map_threshold].min() > 100


def test_kinds_are_told_by_content(serving):
    for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP"):
        assert serving.test(image_bytes(kind=kind), "anything.exe").status_code == 200
    answer = serving.test(b"<svg/>", "image.png")
    assert answer.status_code == 415 and "PNG" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("data", "fields", "status", "words"),
    [
        (b"", {}, 415, "empty"),
        (image_bytes()[:100], {}, 422, "damaged"),
        (image_bytes(size=(1100, 1000), kind="JPEG"), {}, 413, "million"),
        (image_bytes() + bytes(1 << 20), {}, 413, "1 MiB"),
        (image_bytes() + bytes(6 << 20), {}, 413, "request may have"),
        (image_bytes(), {"threshold": "much"}, 422, "threshold"),
        (image_bytes(), {"threshold": "nan"}, 422, "threshold"),
        (image_bytes(), {"map": "all"}, 422, "map"),
        (image_bytes(), {"keep": "perhaps"}, 422, "keep"),
    ],
)
def test_what_cannot_be_judged_is_told_in_a_sentence(serving, data, fields, status, words):
    answer = serving.test(data, **fields)
    assert answer.status_code == status and words in answer.json()["detail"]


def test_forms_that_are_none(serving):
    client = serving.client
    assert client.post("/api/test_image").status_code == 422
    assert client.post("/api/test_image", data={"image": "text"}).status_code == 422
    assert client.post("/api/test_image", json={"image": "/etc/passwd"}).status_code == 422
    broken = client.post("/api/test_image", content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert broken.status_code == 400 and "detail" in broken.json()


def test_a_batch_says_which_failed_and_why(serving, good, bad):
    files = [("images", ("a.png", good)), ("images", ("b.txt", b"no")), ("images", ("c.png", bad))]
    answer = BatchResponse(**serving.client.post("/api/batch_test", files=files).json())
    assert [(one.position, one.name, one.is_defective) for one in answer.results] == [
        (0, "a.png", False),
        (2, "c.png", True),
    ]
    assert [(one.position, one.name, one.status) for one in answer.failures] == [(1, "b.txt", 415)]
    assert answer.total_processed == 2 and answer.response_time > 0
    none = serving.client.post("/api/batch_test", files=files[1:2])
    assert none.status_code == 422 and none.json()["failures"][0]["position"] == 0
    assert serving.client.post("/api/batch_test", files=files * 2).status_code == 413
    assert serving.client.post("/api/batch_test").status_code == 422


def test_a_threshold_for_once_for_all_and_back(serving, bad):
    fitted = ThresholdResponse(**serving.client.get("/api/threshold").json())
    assert fitted.value == fitted.fitted and len(fitted.normal_scores) == 12
    assert not serving.test(bad, threshold=1e9).json()["is_defective"]
    assert serving.test(bad).json()["is_defective"]
    changed = serving.client.put("/api/threshold", json={"value": 1e9}).json()
    assert changed["value"] == 1e9 and changed["fitted"] == fitted.fitted
    answer = serving.test(bad).json()
    assert not answer["is_defective"] and answer["threshold"] == 1e9 and answer["regions"]
    assert serving.client.get("/api/status").json()["threshold"] == 1e9
    serving.client.post("/api/load_model", json={"name": "mean"})
    assert serving.client.get("/api/threshold").json()["value"] < 1  # each model has its own
    serving.client.post("/api/load_model", json={"name": "hazelnut"})
    assert serving.client.put("/api/threshold", json={"value": None}).json()["value"] == fitted.fitted
    for wrong in ({"value": "x"}, {"value": [1]}, {"value": True}, {"value": "1"}, {}, [], "x"):
        assert serving.client.put("/api/threshold", json=wrong).status_code == 422


def test_models_are_loaded_by_name_and_by_nothing_else(serving, bad, models_folder):
    assert ModelsResponse(**serving.client.get("/api/models").json()).model_dump()["models"] == [
        {"name": "hazelnut", "is_loaded": True},
        {"name": "mean", "is_loaded": False},
    ]
    assert serving.client.post("/api/load_model", json={"name": "mean"}).json()["model"] == "mean"
    assert serving.test(bad).json()["model"] == "mean"
    status = StatusResponse(**serving.client.get("/api/status").json())
    assert (status.model, status.method, status.category) == ("mean", "mean", "hazelnut")
    for name in ("nothing", "..", ".", "../models/mean", str(models_folder / "mean"), "mean/", "mean\0", "MEAN"):
        assert serving.client.post("/api/load_model", json={"name": name}).status_code == 404
    assert serving.client.get("/api/status").json()["model"] == "mean"


def test_a_request_names_its_product(serving, bad, models_folder):
    """Whichever model is in use, each has a threshold, results, a queue and a watch of its own."""
    own = serving.client.get("/api/threshold", params={"model": "mean"}).json()
    assert own["model"] == "mean" and own["value"] != serving.client.get("/api/threshold").json()["value"]
    assert serving.test(bad, model="mean").json()["model"] == "mean"
    assert serving.test(bad).json()["model"] == "hazelnut"
    files = [("images", ("a.png", bad)), ("images", ("b.png", bad))]
    batch = serving.client.post("/api/batch_test", files=files, data={"model": "mean"}).json()
    assert {one["model"] for one in batch["results"]} == {"mean"}
    changed = serving.client.put("/api/threshold", params={"model": "mean"}, json={"value": 0.125}).json()
    assert (changed["model"], changed["value"]) == ("mean", 0.125)
    assert serving.test(bad, model="mean").json()["threshold"] == 0.125
    assert serving.client.get("/api/status").json()["model"] == "hazelnut"
    assert serving.client.get("/api/watch", params={"model": "mean"}).json()["model"] == "mean"
    kept = serving.test(bad, model="mean", keep=True).json()["id"]
    queue = serving.client.get("/api/feedback/queue", params={"model": "mean"}).json()
    assert [one["result"]["id"] for one in queue["images"]] == [kept]
    assert serving.client.put("/api/threshold", params={"model": "mean"}, json={"value": None}).status_code == 200
    for answer in (serving.test(bad, model="mena"), serving.client.get("/api/watch", params={"model": "../mean"})):
        assert answer.status_code == 404 and "there is no model of that name" in answer.json()["detail"]


def test_a_damaged_model_is_refused_and_the_one_in_use_stays(serving, models_folder):
    shutil.copytree(models_folder / "mean", models_folder / "damaged")
    try:
        file = models_folder / "damaged" / "method.safetensors"
        tensors, metadata = read_tensors(file)
        written = json.loads((models_folder / "damaged" / FILE).read_text())
        del written["parts"]  # as models of before have none
        (models_folder / "damaged" / FILE).write_text(json.dumps(written))
        cut = {name: tensor[..., :3].contiguous() for name, tensor in tensors.items()}
        for damage in (lambda: file.write_bytes(b"x" * 100), lambda: write_tensors(file, cut, metadata)):
            damage()
            answer = serving.client.post("/api/load_model", json={"name": "damaged"})
            assert answer.status_code == 409 and "damaged" in answer.json()["detail"]
            assert serving.client.get("/api/status").json()["model"] == "hazelnut"
    finally:
        shutil.rmtree(models_folder / "damaged")


def test_where_the_model_in_use_is_damaged_the_service_is_not_well_and_another_can_be_chosen(serving, models_folder):
    shutil.copytree(models_folder / "mean", models_folder / "spoiled")
    try:
        assert serving.client.post("/api/load_model", json={"name": "spoiled"}).status_code == 200
        (models_folder / "spoiled" / FILE).write_text("{}")
        answer = serving.client.get("/health")
        assert (answer.status_code, HealthResponse(**answer.json()).model_loaded) == (503, False)
        models = {one["name"]: one["is_loaded"] for one in serving.client.get("/api/models").json()["models"]}
        assert models["spoiled"] and not models["hazelnut"]
        assert serving.client.get("/health").status_code == 503  # of what is known, without reading it again
        assert "spoiled" in serving.service.models._failed
        shutil.copy(models_folder / "mean" / FILE, models_folder / "spoiled" / FILE)  # with nobody asking for it
        assert serving.client.get("/health").status_code == 200
        (models_folder / "spoiled" / FILE).write_text("{}")
        assert serving.client.get("/health").status_code == 503
        assert serving.client.post("/api/load_model", json={"name": "hazelnut"}).status_code == 200
        assert serving.client.get("/health").status_code == 200
    finally:
        serving.client.post("/api/load_model", json={"name": "hazelnut"})
        shutil.rmtree(models_folder / "spoiled")


def test_results_are_paged_and_filtered(serving, good, bad):
    ids = [serving.test(data, f"page {number}.png").json()["id"] for number, data in enumerate((good, bad, good, bad))]
    page = ResultsResponse(**serving.client.get("/api/results", params={"limit": 3, "name": "PAGE"}).json())
    assert [one.id for one in page.results] == ids[:0:-1] and page.total == 4
    rest = serving.client.get("/api/results", params={"limit": 3, "name": "page", "before": page.next_before}).json()
    assert [one["id"] for one in rest["results"]] == ids[:1] and rest["next_before"] is None
    found = serving.client.get("/api/results", params={"name": "page", "is_defective": True}).json()
    assert [one["id"] for one in found["results"]] == [ids[3], ids[1]]
    created = page.results[0].created
    assert serving.client.get("/api/results", params={"since": created, "name": "page"}).json()["total"] >= 1
    assert serving.client.get("/api/results", params={"until": "2020-01-01"}).json()["total"] == 0
    later = serving.client.get("/api/results", params={"since": "2020-01-01T00:00:00+14:00", "name": "page"}).json()
    assert later["total"] == 4
    for wrong in ({"limit": 0}, {"limit": 501}, {"before": 2**63}, {"since": "soon"}, {"digest": "x"}, {"name": "\0"},
                  {"until": "0001-01-01T00:00:00+14:00"}):  # fmt: skip
        assert serving.client.get("/api/results", params=wrong).status_code == 422


@pytest.mark.parametrize("regions", ["'[{'", "CAST(x'ff' AS TEXT)"])
def test_a_damaged_row_is_said_and_hides_no_other(serving, good, regions):
    number, whole = (serving.test(good, f"{name}.png").json()["id"] for name in ("damaged", "a row"))
    with closing(sqlite3.connect(str(serving.service.database), isolation_level=None)) as file:
        file.execute(f"UPDATE results SET regions = {regions} WHERE id = {number}")
        answer = serving.client.get("/api/results", params={"name": "damaged"})
        found = serving.client.get("/api/results", params={"name": "a row.png"}).json()
        file.execute(f"DELETE FROM results WHERE id = {number}")
    assert answer.status_code == 503 and "the database is damaged" in answer.json()["detail"]
    assert whole in [one["id"] for one in found["results"]]


def test_results_as_csv_hold_no_formula(serving, good, monkeypatch):
    monkeypatch.setattr("downstream.service.streaming.ROWS_PER_PAGE", 2)
    serving.test(good, "=cmd('x'),1.png")
    answer = serving.client.get("/api/results", params={"format": "csv", "name": "cmd"})
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert "attachment" in answer.headers["Content-Disposition"]
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert row["name"] == "'=cmd('x'),1.png" and float(row["anomaly_score"]) > 0
    everything = serving.client.get("/api/results", params={"format": "csv"}).text.splitlines()
    assert len(everything) - 1 == serving.client.get("/api/results").json()["total"]


def test_kept_images_are_found_again(serving, good, bad):
    assert serving.test(good, "kept good.png", keep=True).json()["is_kept"]
    serving.test(bad, "kept bad.png", keep=True)
    serving.test(bad, "kept bad again.png", keep=True)
    found = SearchResponse(**serving.client.post("/api/search", files={"image": good}, data={"k": 5}).json())
    assert found.num_searched == 2
    (neighbor,) = found.neighbors
    assert (neighbor.name, neighbor.is_defective, neighbor.origin) == ("kept bad again.png", True, "kept")
    shown = serving.client.get(neighbor.image)
    assert shown.headers["Content-Type"] == "image/jpeg"
    assert Image.open(BytesIO(shown.content)).size == (256, 256)
    other = serving.client.post("/api/search", files={"image": image_bytes()}, data={"k": 1}).json()
    assert len(other["neighbors"]) == 1
    for place in ("kept/" + "0" * 64, "kept/..%2F..%2Fresults.sqlite", "kept/x", "index/1", "index/-1"):
        assert serving.client.get(f"/api/images/{place}").status_code == 404
    assert serving.client.get("/api/images/other/1").status_code == 422
    assert serving.client.post("/api/search", files={"image": good}, data={"k": 0}).status_code == 422
    assert serving.client.post("/api/search", files={"image": b"no"}).status_code == 415


def test_the_map_of_a_kept_image_is_made_again_by_the_version_that_judged_it(serving, bad):
    first = serving.test(bad, "bad.png", keep=True, map="array", threshold=1.25).json()
    again = MapResponse(**serving.client.get(f"/api/results/{first['id']}/map").json())
    assert (again.anomaly_map, again.map_threshold, again.why_none) == (
        first["anomaly_map"], first["map_threshold"], "")  # fmt: skip
    (stored,) = serving.service.database.results_of([first["id"]])
    others = {"another version": {"model_version": "one of before"}, "not kept": {"digest": "0" * 64},
              "no model of that name": {"model": "gone"}}  # fmt: skip
    for words, changed in others.items():
        (other,) = serving.service.database.add_results([stored._replace(**changed)])
        found = MapResponse(**serving.client.get(f"/api/results/{other}/map").json())
        assert found.anomaly_map is None and words in found.why_none
    assert serving.client.get("/api/results/123456/map").status_code == 404


def test_metrics_for_prometheus(serving, good):
    serving.test(good)
    families = {family.name: family for family in text_string_to_metric_families(serving.client.get("/metrics").text)}
    judged = {sample.labels["verdict"]: sample.value for sample in families["heldout_images_inspected"].samples
              if sample.name.endswith("_total")}  # fmt: skip
    assert judged["good"] >= 1
    routes = {sample.labels["route"] for sample in families["heldout_http_requests"].samples}
    assert "/api/test_image" in routes
    assert families["heldout_images_in_progress"].samples[0].value == 0


def test_where_nothing_can_be_kept_it_is_said_why(serving, good, tmp_path):
    kept = Path(serving.service.settings.kept_images)
    before = kept.rename(tmp_path / "before") if kept.exists() else None
    kept.write_text("a file in its place, as root may write everywhere")
    try:
        answer = serving.test(good, keep=True)
        assert answer.status_code == 507 and str(kept) in answer.json()["detail"]
        assert (serving.client.get("/health").status_code, serving.test(good).status_code) == (503, 200)
    finally:
        kept.unlink()
        if before:
            before.rename(kept)
    assert serving.client.get("/health").status_code == 200


def test_health_page_and_unknown_places(serving):
    for place in ("/health", "/api/health"):
        assert HealthResponse(**serving.client.get(place).json()).status == "ok"
    page = serving.client.get("/")
    assert page.status_code == 200 and page.headers["Content-Type"].startswith("text/html")
    for place in ("/nothing", "/api/nothing", "/..%2f..%2fsetup.cfg", "/docs", "/redoc"):
        answer = serving.client.get(place)
        assert answer.status_code == 404 and set(answer.json()) == {"detail"}
    assert serving.client.delete("/api/results").status_code == 405
    assert httpx.get(f"{serving.url}/health", headers={"Host": "evil.example"}).status_code == 400


def test_logs_have_no_contents(serving, good):
    serving.test(good, "secret name.png")
    serving.client.get("/api/results", params={"name": "secret name"})
    lines = [json.loads(line) for line in serving.log.splitlines() if line.startswith("{")]
    assert {"time", "request", "route", "status", "milliseconds"} <= set(lines[-1])
    assert "secret name" not in serving.log


def test_examples_in_the_description_are_of_the_form_that_it_says(serving):
    described = serving.client.get("/openapi.json").json()
    schemas = {
        "status": StatusResponse, "test_image": ImageResponse, "batch_test": BatchResponse, "results": ResultsResponse,
        "search": SearchResponse, "threshold": ThresholdResponse, "load_model": ThresholdResponse,
        "models": ModelsResponse, "health": HealthResponse,
    }  # fmt: skip
    for name, schema in schemas.items():
        assert set(EXAMPLES[name]) == set(schema.model_fields)
        schema(**EXAMPLES[name])
        (operation, *_) = described["paths"][f"/api/{name}"].values()
        assert operation["responses"]["200"]["content"]["application/json"]["example"] == EXAMPLES[name]
    responses = described["paths"]["/api/test_image"]["post"]["responses"]
    assert {"400", "401", "403", "408", "413", "415", "422", "429", "503"} <= set(responses)
    assert EXAMPLES["csv"].splitlines()[0].split(",") == [*CSV_FIELDS, "regions", "zones"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\x\\y.png", "y.png"),
        ("a\0\n\u202eb.png", "ab.png"),
        (None, ""),
        ("é漢", "é漢"),
        ("x" * 999, "x" * 200),
    ],
)
def test_names_of_clients_are_only_words(given, kept):
    assert safe_name(given) == kept
