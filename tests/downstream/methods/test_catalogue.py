"""The catalogue: what is listed takes part where its entry says so, and every method passes the shared suite."""

from dataclasses import replace
from functools import partial

import method_suite
import pytest
import torch
from method_suite import CHECKS, Material, assert_same, assert_same_there, make_material, predict, ready
from pretended_gpu import Gpu, pretended_gpu

from downstream.methods.catalogue import (
    CONTROLS,
    METHODS,
    PATCHES,
    REFERENCES,
    Entry,
    at_scales,
    detect_class,
    study_methods,
)
from pretrain.command import UserError


def test_every_method_takes_part_in_the_study():
    assert [method.name for method in study_methods()] == [name for name in METHODS if name != "ensemble"]
    assert {"logistic", "knn", "fine-tuned", "padim", "patchcore", "residual", "mean", "frame"} <= set(METHODS)


def test_quick_drops_no_family():
    quick, every = study_methods(quick=True), study_methods()
    assert {method.family for method in quick} == {method.family for method in every}
    assert len(quick) < len(every) / 2 + 1
    assert "fused" in {method.name for method in quick}, "detect's default method must be in a first look"


def test_quick_takes_the_methods_that_were_asked_for():
    assert [method.name for method in study_methods(["residual", "padim"], quick=True)] == [
        "padim", "residual", "mean", "frame",
    ]  # fmt: skip


def test_without_a_gpu_training_is_smaller_and_titles_say_so():
    small, published = study_methods(["ae", "fine-tuned"]), study_methods(["ae", "fine-tuned"], has_gpu=True)
    assert [method.title for method in small][:2] == ["fine-tuned encoder, at 96 px", "auto-encoder, at 64 px"]
    assert [method.arguments for method in published][:2] == [{}, {}]


def test_controls_take_part_whatever_was_asked_for():
    assert [method.name for method in study_methods(["padim"])] == ["padim", "mean", "frame"]
    assert [method.name for method in study_methods(["frame"])] == ["frame", "mean"]


def test_a_mistyped_method_is_a_mistake():
    with pytest.raises(UserError, match="did you mean padim"):
        study_methods(["padin"])
    with pytest.raises(UserError, match="did you mean patchcore"):
        detect_class("patchcor")


def test_one_entry_adds_a_method(monkeypatch):
    monkeypatch.setitem(METHODS, "new", Entry("new", "new", PATCHES, "baselines.trivial.MeanImage"))
    (new,) = (method for method in study_methods() if method.name == "new")
    assert new.family == PATCHES and new.sees_normals and not new.takes_encoder
    monkeypatch.setitem(METHODS, "new", Entry("new", "new", PATCHES, "baselines.trivial.MeanImage", in_study=False))
    assert "new" not in {method.name for method in study_methods()}


def test_entries_are_under_their_names_and_made_with_their_arguments():
    """A mistyped path, argument or `start` fails here."""
    for name, entry in METHODS.items():
        assert entry.name == name
    for quick in (False, True):
        for method in study_methods(quick=quick):
            made = method.make(**({"seed": 5} if method.takes_seed else {}))
            assert all(getattr(made, name) == value for name, value in method.arguments.items())
    assert [name for name, entry in METHODS.items() if entry.family == CONTROLS] == ["mean", "frame"]


def test_patch_methods_alone_look_at_several_scales():
    methods = {method.name: at_scales(method, [0.5, 1]) for method in study_methods(["padim", "residual"])}
    assert {name for name, method in methods.items() if method.title.endswith("at 0.5 and 1 of the size")} == {"padim"}
    made = methods["padim"].make(seed=3)
    assert (type(made).__name__, made.method, made.scales, made.seed) == ("Ensemble", "padim", [0.5, 1], 3)
    assert at_scales(methods["mean"], []) == methods["mean"]


def test_who_needs_other_categories():
    needing = {method.name for method in study_methods() if method.needs_training}
    assert {"logistic", "knn", "fine-tuned", "residual"} <= needing
    assert not needing & {"fused", "padim", "patchcore", "mean", "frame"}


# Every method at a size at which a check takes a moment.
LEVELS = ("level1", "level2")
# Heads promise to find nothing here: a network that a test can train in a moment does as well as the default.
TINY = {"encoder": "random", "architecture": "timm/test_resnet", "input_px": None}
SMALL_AE = {"size_px": 32, "width": 4, "instances": 60, "train_batch": 4}
SMALL = {
    "logistic": TINY,
    "knn": TINY,
    "fine-tuned": {**TINY, "epochs": 1, "train_batch": 8},
    "fused": {"levels": LEVELS, "dimensions": 40},
    "padim": {"levels": LEVELS, "dimensions": 40},
    "patchcore": {"levels": LEVELS, "dimensions": 32},
    "ensemble": {"method": "patchcore", "scales": (0.75, 1.0), "options": {"levels": LEVELS, "dimensions": 32}},
    "residual": {"levels": LEVELS, "dimensions": 32, "hidden": 8, "grid": 16},
    "vgg-cam": {"width": 1 / 16, "input_px": 32, "epochs": 2, "train_batch": 8, "learning_rate": 1e-3},
    "cam": {
        "architecture": "timm/test_resnet",
        "weights": "random",
        "epochs": 1,
        "train_batch": 8,
        "learning_rate": 1e-3,
    },
    "ae": SMALL_AE,
    "vae": SMALL_AE,
    "cae": {"size_px": 64, "instances": 30, "train_batch": 4},
    "mean": {},
    "frame": {},
}
MAKE = {name: partial(METHODS[name].method_class, **arguments) for name, arguments in SMALL.items()}
# A frame does not show a product, and what a head knows of defects it has from other products.
PROMISE_NO_FINDS = ("frame", "logistic", "knn", "fine-tuned", "vgg-cam", "cam")


pytestmark = pytest.mark.usefixtures("few_steps")


@pytest.fixture(scope="module")
def material(demo_folder) -> Material:
    return make_material(demo_folder, 64)


def test_no_method_is_left_out_of_the_suite():
    assert set(SMALL) == set(METHODS)


@pytest.mark.parametrize(
    ("name", "check"),
    [
        pytest.param(name, check, id=f"{name}-{check.__name__.removeprefix('check_')}")
        for name in SMALL
        for check in CHECKS
        if name not in PROMISE_NO_FINDS or check is not method_suite.check_finds_synthetic_defects
    ],
)
def test_method(name, check, material):
    check(MAKE[name], material)


@pytest.fixture(scope="module")
def strips(material) -> Material:
    """The same of images of 48 x 64 pixels."""
    rows = slice(4, 52)  # in which all the blotches lie
    training = [sample._replace(image=sample.image[:, rows], mask=None) for sample in list(material.training)[::2]]
    normals, tests, synthetic = (
        [image[:, rows] for image in images] for images in (material.normals, material.tests, material.synthetic)
    )
    return Material(training, normals, tests, synthetic, [mask[rows] for mask in material.synthetic_masks])


# Those whose rectangles no other test has; patch methods: tests/downstream/test_detect.py.
@pytest.mark.parametrize("name", ["residual", "ae", "cae", "cam", "vgg-cam", "knn", "mean"])
def test_rectangles_keep_their_shape_in_every_method(name, strips):
    method_suite.check_predictions_are_complete(MAKE[name], strips)
    if name not in PROMISE_NO_FINDS:
        method_suite.check_finds_synthetic_defects(MAKE[name], strips)


NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.gpu
@NO_GPU
@pytest.mark.parametrize("name", SMALL)
def test_a_gpu_answers_as_the_cpu_does(name, material):
    assert_same_there(ready(MAKE[name](), material), material, Gpu(torch.device("cuda"), [], []))
    learned_there = ready(MAKE[name]().to("cuda"), material)
    assert learned_there.normal_scores_.isfinite().all() and learned_there.normal_scores_.is_cuda
    if METHODS[name].family in (PATCHES, REFERENCES, CONTROLS):  # where a little rounding grows to no other weights
        here, there = (predict(method, material.tests) for method in (ready(MAKE[name](), material), learned_there))
        assert_same(here, there.cpu(), rtol=1e-2)


# One of each way to learn; the auto-encoders are one way.
LEARNING = ("knn", "fine-tuned", "fused", "residual", "cam", "ae", "frame")


@pytest.mark.parametrize("name", LEARNING)
def test_methods_learn_where_they_were_moved(name, material, monkeypatch):
    """On a GPU that is pretended: every operation has its tensors on one device, and the result is the CPU's."""
    monkeypatch.setattr("downstream.methods.patchcore.MIN_PATCHES", 32)
    monkeypatch.setattr("downstream.methods.residual.STEPS", 3)
    small = {"fused": {"grid": 4}, "residual": {"grid": 4}, "ae": {"instances": 8}}.get(name, {})
    samples = [material.training[i] for i in range(0, len(material.training), 3)]
    few = replace(material, training=samples, normals=material.normals[:3], tests=material.tests[:2])
    here = predict(ready(MAKE[name](**small), few), few.tests)
    with pretended_gpu() as gpu:
        method = ready(MAKE[name](**small).to(gpu.device), few)
        assert method.normal_scores_.device == gpu.device
        there = predict(method, few.tests).cpu()
    assert_same(here, there, rtol=method_suite.BETWEEN_DEVICES)
