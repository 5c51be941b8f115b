"""An image that names no product finds it among the models, or is told that it is of none of them."""

import shutil

import pytest
import torch
from fitted_models import LEARNING, SIZE_PX, run_detect
from serving_here import serving_here

from downstream.inspection.inspector import FILE
from downstream.service.models import Models, NoSuchModel
from downstream.service.routing import Router
from pretrain.command import UserError
from pretrain.data.size import sides
from pretrain.encoder import Encoder


@pytest.fixture(scope="module")
def serving(demo_folder, fused_folder, models_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("routing")
    shutil.copytree(fused_folder, folder / "models" / "nut")
    shutil.copytree(models_folder / "mean", folder / "models" / "mean")  # which sees no image as a whole
    method, options = LEARNING["fused, tiny"]
    arguments = (
        "--data",
        demo_folder,
        "--category",
        "bottle",
        "--out",
        folder / "models" / "bottle",
        "--method",
        method,
    )
    assert run_detect("fit", *arguments, "--size-px", SIZE_PX, "--encoder", "random", "--options", options) == 0
    with serving_here(folder / "models", folder, model="nut", route=True) as serving:
        yield serving


@pytest.fixture(scope="module")
def images(demo_folder) -> dict[str, bytes]:
    found = {}
    for category in ("bottle", "hazelnut", "leather"):
        for path in sorted((demo_folder / category / "test").glob("*/00[01].png")):
            found[f"{category} {path.parent.name} {path.name}"] = path.read_bytes()
    return found


def test_each_image_is_judged_by_the_model_of_its_product_or_by_none(serving, images):
    names = {"bottle": "bottle", "hazelnut": "nut"}
    for name, data in images.items():
        answer = serving.test(data, name)
        category = name.split()[0]
        if category in names:
            assert answer.status_code == 200 and answer.json()["model"] == names[category], name
        else:
            assert answer.status_code == 422, name
            assert "does not look like any of the 2 products" in answer.json()["detail"]
            assert "name its model" in answer.json()["detail"]
            assert serving.test(data, name, model="nut").json()["model"] == "nut"  # who names one knows it


def test_images_of_one_request_are_each_of_their_own_product(serving, images):
    chosen = [next(name for name in images if name.startswith(start)) for start in ("leather", "bottle", "hazelnut")]
    files = [("images", (name, images[name])) for name in chosen]
    answer = serving.client.post("/api/batch_test", files=files).json()
    assert [(one["position"], one["model"]) for one in answer["results"]] == [(1, "bottle"), (2, "nut")]
    assert [(one["position"], one["status"]) for one in answer["failures"]] == [(0, 422)]


def test_a_model_that_is_fitted_anew_or_gone_is_known_as_it_is_now(serving, fused_folder, images):
    path = serving.service.models.path_of("bottle")
    before = serving.service.router.products()
    assert serving.service.router.products()[0] is before[0]  # and not read for every image
    shutil.copytree(fused_folder, path.with_name("another nut"))
    assert {one.name for one in serving.service.router.products()} == {"another nut", "bottle", "nut"}
    shutil.rmtree(path.with_name("another nut"))
    assert {one.name for one in serving.service.router.products()} == {"bottle", "nut"}


def test_products_of_equal_weights_share_one_encoder(serving):
    by_name = {one.name: one.method for one in serving.service.router.products()}
    assert by_name["bottle"]._patches.encoder is by_name["nut"]._patches.encoder
    held = [value for method in by_name.values() for value in vars(method).values() if isinstance(value, Encoder)]
    assert held == []  # beside that one
    for name, method in by_name.items():  # and see as their models do
        images = torch.rand(1, 3, *sides(method.size_px_), generator=torch.Generator().manual_seed(0))
        whole = serving.service.models.load(name).inspector.method
        assert method.apart(images).item() == pytest.approx(whole.apart(images).item(), rel=1e-5)


def test_what_keeps_an_image_from_its_model_is_the_trouble_of_that_image_alone(serving, images, monkeypatch):
    def refused(status: int) -> float:
        return serving.service.metrics.refused_images.labels(status)._value.get()

    def load(name: str, loaded=serving.service.models.load):
        if name == "nut":
            raise NoSuchModel("it was taken away")
        return loaded(name)

    serving.service.router.products()
    monkeypatch.setattr(serving.service.models, "load", load)
    chosen = [next(name for name in images if name.startswith(start)) for start in ("bottle", "hazelnut")]
    before = [refused(status) for status in (409, 415)]
    files = [("images", (name, images.get(name, b"no image"))) for name in (*chosen, "no image")]
    answer = serving.client.post("/api/batch_test", files=files)
    assert answer.status_code == 200
    assert [(one["position"], one["model"]) for one in answer.json()["results"]] == [(0, "bottle")]
    failures = answer.json()["failures"]
    assert [(one["position"], one["status"]) for one in failures] == [(1, 409), (2, 415)]
    assert failures[0]["reason"] == "it was taken away."
    assert [refused(status) for status in (409, 415)] == [count + 1 for count in before]


def test_a_model_that_cannot_be_loaded_is_tried_once_until_it_is_another(fused_folder, tmp_path, monkeypatch):
    for name in ("bad", "nut"):
        shutil.copytree(fused_folder, tmp_path / name)
    whole = (tmp_path / "bad" / FILE).read_bytes()
    (tmp_path / "bad" / FILE).write_text("half")
    models, tried = Models(tmp_path, 1), []
    monkeypatch.setattr(models, "load", lambda name, load=models.load: tried.append(name) or load(name))
    router = Router(models)
    for _ in range(2):
        assert [product.name for product in router.products()] == ["nut"] and tried == ["bad", "nut"]
    (tmp_path / "bad" / FILE).write_bytes(whole)
    assert [product.name for product in router.products()] == ["bad", "nut"] and tried == ["bad", "nut", "bad"]


def test_models_that_see_no_image_as_a_whole_find_no_product(models_folder):
    with pytest.raises(UserError, match="no model here can find its product"):
        Router(Models(models_folder / "mean", 1)).products()
