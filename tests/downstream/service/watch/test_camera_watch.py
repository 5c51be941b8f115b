"""The camera over HTTP: learned from accepted images, said with the verdict, counted, and begun anew."""

import io
import math

import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from serving_here import serving_here
from stored_results import result

from downstream.service.audit.log import entries
from downstream.service.database import Database
from downstream.service.models import NoSuchModel
from downstream.service.watch.camera import FROZEN_IMAGES, REFERENCES, look_at
from downstream.service.watch.camera_watch import CameraWatch
from downstream.service.watch.drift import Ks
from downstream.service.watch.routes import WatchResponse
from downstream.service.watch.summary import Drift, Drifts


@pytest.fixture(scope="module")
def serving(models_folder, tmp_path_factory):
    with serving_here(models_folder, tmp_path_factory.mktemp("served"), model="mean") as serving:
        yield serving


def image(seed: int, light: float = 1.0, size: int = 64) -> np.ndarray:
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    gray = (60 + 100 * (np.hypot(rows - size / 2, columns - size / 2) < size / 4)) * light
    return np.repeat((gray + random.normal(0, 4, gray.shape)).clip(0, 255)[..., None], 3, 2).astype(np.uint8)


def judged(serving, pixels: np.ndarray) -> dict:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return serving.test(file.getvalue(), threshold=1e9).json()


def test_a_dark_camera_is_said_with_the_verdict_counted_and_forgotten(serving):
    model, version = "mean", serving.service.models.load("mean").fingerprint
    serving.service.set_threshold(1e9, "a test")
    for seed in range(REFERENCES - 3):
        serving.service.camera.accept(model, version, look_at(image(seed)))
    for seed in range(100, 103):
        assert judged(serving, image(seed, 0.3 if seed == 101 else 1))["camera"] == ""  # too few to say so
    before = WatchResponse(**serving.client.get("/api/watch").json())
    assert before.camera.references == before.camera.references_needed == REFERENCES
    serving.service.camera.begin_anew(model, version, "a test")
    for seed in range(REFERENCES):
        serving.service.camera.accept(model, version, look_at(image(seed)))
    assert judged(serving, image(200))["camera"] == ""
    assert "too dark" in judged(serving, image(201, light=0.3))["camera"]
    listed = serving.client.get("/api/results").json()["results"]
    assert "too dark" in listed[0]["camera"] and listed[1]["camera"] == ""
    watch = WatchResponse(**serving.client.get("/api/watch").json())
    assert watch.camera.problems["too dark"] == 1 and watch.camera.recent >= 5
    families = {one.name: one for one in text_string_to_metric_families(serving.client.get("/metrics").text)}
    counted = {sample.labels["problem"]: sample.value for sample in families["heldout_camera_problems"].samples
               if sample.name.endswith("_total")}  # fmt: skip
    assert counted["too dark"] == 1
    assert families["heldout_drift"].samples[0].value == 0
    anew = WatchResponse(**serving.client.post("/api/watch/begin_anew").json())
    assert anew.camera.references == 0
    entry = serving.client.get("/api/audit", params={"limit": 1}).json()["entries"][0]
    assert (entry["action"], entry["before"], entry["after"]) == ("camera references", REFERENCES, 0)
    assert judged(serving, image(202, light=0.3))["camera"] == ""


def test_figures_are_of_every_model_in_memory_also_where_the_one_in_use_is_gone(serving, monkeypatch):
    def drift() -> dict[str, float]:
        serving.service.metrics.watched_until_s = 0.0
        families = {one.name: one for one in text_string_to_metric_families(serving.client.get("/metrics").text)}
        return {sample.labels["model"]: sample.value for sample in families["heldout_drift"].samples}

    def load(name: str):
        raise NoSuchModel(f"{name} is gone")

    models = serving.service.models
    for name in ("mean", "hazelnut"):
        models.load(name)
    monkeypatch.setattr(models, "load", load)
    assert drift() == {"hazelnut": 0, "mean": 0}
    held = models._loaded.pop("hazelnut")
    assert drift() == {"hazelnut": 0, "mean": 0}  # out of memory, and perhaps in that of another worker
    monkeypatch.setattr(models, "names", lambda: ["mean"])
    assert math.isnan(drift()["hazelnut"]) and drift()["mean"] == 0
    models._loaded["hazelnut"] = held


def test_what_a_request_accepts_by_its_own_threshold_teaches_the_camera_nothing(serving):
    version = serving.service.models.load("mean").fingerprint
    serving.service.set_threshold(None, "a test")
    serving.service.camera.begin_anew("mean", version, "a test")
    pixels = np.zeros((64, 64, 3), np.uint8)
    assert judged(serving, pixels)["is_defective"] is False and not judged(serving, pixels)["camera"]
    assert serving.service.camera.count("mean", version) == 0
    serving.service.set_threshold(1e9, "a test")
    judged(serving, pixels)
    assert serving.service.camera.count("mean", version) == 1


def test_one_image_again_and_again_is_a_frozen_frame(serving):
    said = [judged(serving, image(300))["camera"] for _ in range(FROZEN_IMAGES)]
    assert [words == "frozen" for words in said] == [False] * (FROZEN_IMAGES - 1) + [True]
    assert "frozen" not in judged(serving, image(301))["camera"]


def test_drift_is_looked_for_after_so_many_images_of_each_model(serving, monkeypatch):
    looked = []
    monkeypatch.setattr("downstream.service.service.KS_WINDOW", 3)
    monkeypatch.setattr("downstream.service.service.drifts_of", lambda *asked: looked.append(asked[1:]) or told)
    told = Drifts(Drift(200, 100, None, None), Drift(200, 100, Ks(1.0, 0.0), None))
    said = []
    monkeypatch.setattr(serving.service.webhook, "tell", lambda kind, model, *_: said.append((kind, model)))
    for result_id in range(1, 13, 2):
        for one, problems in ((result(0, model="pin", id=result_id), []), (result(5, model="pin", id=result_id), []),
                              (result(0, model="nut", id=result_id + 1), ["too dark"])):  # fmt: skip
            serving.service._watch(one, look_at(image(0)), problems, 2.5)
    assert looked == [("pin", "a version", 2.5)] * 2
    assert [one for one in said if one[1] == "pin"] == [("image drift", "pin")] * 2


def test_what_an_image_is_like_as_a_whole_is_kept_where_the_method_says_it(serving):
    client = serving.client
    assert client.put("/api/threshold", params={"model": "hazelnut"}, json={"value": 1e9}).status_code == 200
    for model, distances in (("hazelnut", 2), ("mean", 0)):
        for seed in (400, 401):
            file = io.BytesIO()
            Image.fromarray(image(seed)).save(file, "PNG")
            answer = serving.test(file.getvalue(), model=model)
            assert answer.status_code == 200 and "distance" not in answer.json()
        drift = WatchResponse(**client.get("/api/watch", params={"model": model}).json()).image_drift
        assert (drift.references if drift else 0) == distances


def test_what_one_worker_learned_is_known_to_others(location):
    first, second = Database(location), Database(location)
    one, other = CameraWatch(first), CameraWatch(second)
    for seed in range(REFERENCES + 2):
        (one, other)[seed % 2].accept("bolt", "1", look_at(image(seed)))
    assert one.count("bolt", "1") == other.count("bolt", "1") == REFERENCES
    dark = image(900, light=0.3)
    assert "too dark" in one.check("bolt", "1", dark, "a")[1] and "too dark" in other.check("bolt", "1", dark, "b")[1]
    assert one.check("nut", "1", dark, "a")[1] == []
    np.testing.assert_array_equal(one.references("bolt", "1").mean, other.references("bolt", "1").mean)
    first.close()
    second.close()


def test_another_version_learns_its_own_camera_and_the_one_before_keeps_its(tmp_path):
    """A version that sees images at another size found every one of them blurred."""
    database = Database(str(tmp_path / "results.sqlite"))
    watch = CameraWatch(database)
    for seed in range(REFERENCES):
        watch.accept("bolt", "64 px", look_at(image(seed)))
    large = image(900, size=256)
    assert watch.check("bolt", "64 px", large, "a")[1] != []
    assert watch.check("bolt", "256 px", large, "b")[1] == [] and watch.count("bolt", "256 px") == 0
    for seed in range(REFERENCES):
        watch.accept("bolt", "256 px", look_at(image(seed, size=256)))
    assert watch.check("bolt", "256 px", large, "c")[1] == []
    assert watch.check("bolt", "64 px", image(901), "d")[1] == []  # rolled back
    watch.begin_anew("bolt", "256 px", "ada")
    assert watch.count("bolt", "64 px") == 0  # by the same camera
    CameraWatch(database).accept("bolt", "64 px", look_at(image(0)))
    watch.begin_anew("bolt", "256 px", "bob")  # which has none: what others lose is told all the same
    changes = [(one.by, one.before, one.after) for one in entries(database)]
    assert changes == [("ada", f"{2 * REFERENCES}", "0"), ("bob", "1", "0")]
    database.close()


def test_what_one_worker_begins_anew_is_begun_anew_by_others(tmp_path, monkeypatch):
    monkeypatch.setattr("downstream.service.watch.camera_watch.TRUSTED_S", 0.0)
    database = Database(str(tmp_path / "results.sqlite"))
    one, other = CameraWatch(database), CameraWatch(database)
    for light in (1.0, 0.3):
        for seed in range(REFERENCES):
            one.accept("bolt", "1", look_at(image(seed, light)))
        # The other one looks only now, when there are as many again, and of the same ids.
        assert other.check("bolt", "1", image(900, light), f"{light}")[1] == []
        one.begin_anew("bolt", "1", "ada")
    assert other.references("bolt", "1") is None
    database.close()
