"""A region over HTTP: drawn for a model's next fit, checked as its fit checks it, and in force once it is fitted so."""

import json
import shlex
import shutil

import pytest
from fitted_models import SMALL, run_detect
from serving_here import serving_here

from downstream.inspection.inspector import Inspector
from downstream.service.routes_roi import RoiResponse, fit_command
from scripts.attacks.serving import image_bytes

LEFT = [[0, 0], [128, 0], [128, 256], [0, 256]]
CORNER = [[0, 0], [40, 0], [0, 40.5]]
DRAWN = {"format": 1, "image_size": [256, 256], "include": [LEFT], "ignore": [CORNER]}


def of_zones(*zones: dict, **more: object) -> dict:
    return {"image_size": [256, 256], "zones": [{"include": [LEFT], **zone} for zone in zones], **more}


@pytest.fixture(scope="module")
def serving(models_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("roi")
    models = shutil.copytree(models_folder, folder / "models")
    (models / "exported.onnx").write_bytes(b"")
    with serving_here(models, folder, model="hazelnut") as serving:
        yield serving


def asked(serving, **query: str) -> RoiResponse:
    return RoiResponse(**serving.client.get("/api/roi", params=query).json())


def put(serving, roi: object, **query: str):
    return serving.client.put("/api/roi", json={"roi": roi}, params=query)


def test_what_is_drawn_is_kept_and_in_the_audit_log_and_decides_nothing(serving):
    before = serving.test(image_bytes()).json()
    assert (asked(serving).drawn, asked(serving).in_force, asked(serving).images) == (None, None, [])
    answer = put(serving, DRAWN)
    assert answer.status_code == 200 and answer.json()["drawn"] == DRAWN == asked(serving).drawn
    assert put(serving, DRAWN).status_code == 200  # which is no change
    after = serving.test(image_bytes(), keep=True).json()
    assert (after["anomaly_score"], after["model_version"]) == (before["anomaly_score"], before["model_version"])
    (kept,) = asked(serving).images
    assert (kept.path, kept.width) == (f"/api/images/kept/{after['digest']}", after["width"])
    assert put(serving, None).json()["drawn"] is None
    entries = serving.client.get("/api/audit").json()["entries"]
    told = [
        (one["subject"], one["by"], one["before"], one["after"]) for one in entries if one["action"] == "drawn region"
    ]
    assert told == [("hazelnut", "local", DRAWN, None), ("hazelnut", "local", None, DRAWN)]
    assert serving.client.get("/api/audit/verify").json()["is_whole"]


@pytest.mark.parametrize(
    ("roi", "words"),
    [
        ({"include": [LEFT]}, "it does not say what it was drawn on: give image_size"),
        ({"image_size": [256, 128], "include": [LEFT]}, "drawn on an image of 256x128 px"),
        ({"image_size": [256, 256], "include": [LEFT[:2]]}, "polygon 1 of include is no list of 3 points"),
        ({"image_size": [256, 256], "ignore": [[[-1, -1], [300, -1], [300, 300], [-1, 300]]]}, "leaves nothing of"),
        (of_zones({"name": "a"}, {"name": "a"}), "two zones are called 'a'"),
        (of_zones({"name": "a"}, include=[LEFT]), "it has include and zones"),
        (of_zones({"name": "a", "false_alarm_rate": 0.5}), "more than the 0.1 of the whole image"),
        (of_zones({"name": "a", "min_area_px": 60_000}), "so no defect in it could have its min_area_px"),
        (of_zones({"name": "a"}, {"name": "b"}), "nothing is left of zone 'a'"),
        ({"image_size": [256, 256], "include": [[[n % 256 + 0.123456, n // 256] for n in range(9000)]]}, "KiB as JSON"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(serving, roi, words):
    answer = put(serving, roi)
    assert answer.status_code in (413, 422) and words in answer.json()["detail"]
    assert answer.json()["detail"].count("\n") == 0 and asked(serving).drawn is None


def test_a_model_that_takes_no_region_says_so(serving):
    assert "sees images as a whole" in asked(serving, model="mean").refusal
    answer = put(serving, DRAWN, model="mean")
    assert answer.status_code == 409 and answer.json()["detail"] == asked(serving, model="mean").refusal
    assert put(serving, DRAWN, model="nothing").status_code == 404


def test_it_comes_into_force_with_the_fit_that_the_answer_names(serving, demo_folder, tmp_path, monkeypatch):
    model = serving.service.models.path_of("hazelnut").with_name("nut")
    arguments = ("--data", demo_folder, "--category", "hazelnut", "--method", "padim", "--false-alarm-rate", 0.2)
    assert run_detect("fit", *arguments, *SMALL, "--out", model) == 0
    zones = of_zones({"name": "left", "false_alarm_rate": 0.15, "min_area_px": 9}, ignore=[CORNER])
    answer = put(serving, zones, model="nut").json()
    python, script, *words = shlex.split(answer["command"])
    assert (python, script, words[-4:]) == (
        "python",
        "downstream/detect.py",
        ["--roi", "roi.json", "--out", str(model)],
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "roi.json").write_text(json.dumps(answer["drawn"]))
    assert run_detect(*words) == 0
    assert Inspector.load(model).metadata["false_alarm_rate"] == 0.2 and Inspector.load(model).size_px == 64
    found = asked(serving, model="nut")
    assert found.drawn is None and found.in_force == {"format": 1, **zones} == answer["drawn"]
    assert found.command == answer["command"] and not found.has_mask


def test_of_a_model_that_does_not_say_how_it_was_fitted_the_rest_is_left_to_fill_in(models_folder):
    old = Inspector.load(models_folder / "hazelnut")
    del old.metadata["arguments"]
    command = fit_command(old, models_folder / "hazelnut")
    assert "--data FOLDER_OF_GOOD_IMAGES --method padim --roi roi.json --out" in command
