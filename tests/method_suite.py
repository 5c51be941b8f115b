"""The suite that every method passes: each check is one promise of the contract in `baselines/contract/method.py`.

A check takes `make`, which gives a fresh unfitted method from keyword arguments, and `material`; it raises
AssertionError where the method breaks the contract. `tests/downstream/methods/test_catalogue.py` runs every method of
the catalogue through every check, and `tests/baselines/contract/test_method.py` proves on methods that were broken on
purpose that the checks can fail.
"""

import atexit
import copy
import inspect
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.pool import Pool
from pathlib import Path

import pytest
import torch
from pretended_gpu import Gpu, pretended_gpu
from torch import Tensor
from two_ranks import imported

from baselines.contract.method import Images, Method, NotFitted, Prediction, Sample, Samples
from baselines.contract.threshold import is_anomalous, threshold_from_normals
from pretrain.data.dataset import load

Make = Callable[..., Method]
CLOSE = {"rtol": 1e-5, "atol": 1e-9}
BETWEEN_DEVICES = 1e-4


@dataclass(frozen=True, eq=False)
class Material:
    """`training` of other categories; `normals`, and `tests` with `synthetic` ones, of the category that is tested.
    `fitted` holds each method fitted to it, for all checks that only read; `altered` those that wrote into images."""

    training: Sequence[Sample]
    normals: list[Tensor]
    tests: list[Tensor]
    synthetic: list[Tensor]
    synthetic_masks: list[Tensor]
    fitted: dict[Make, Method] = field(default_factory=dict)
    altered: set[Make] = field(default_factory=set)


def make_material(folder: Path, size_px: int) -> Material:
    """Of a demo set: good leather, with and without a blatant defect; methods that learn from others have hazelnuts."""
    image_set = load(folder, size_px)
    leather, others = image_set.of("leather"), image_set.of("hazelnut")
    images = [Images(leather)[i] for i, record in enumerate(leather.records) if not record.is_anomaly]
    normals, tests = images[:10], images[10:]
    synthetic, masks = zip(*(_blotched(image, number) for number, image in enumerate(tests)), strict=True)
    return Material(Samples(others), normals, tests, list(synthetic), list(masks))


def _blotched(image: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """A bright square of a tenth of the side, at a position of its own, and its mask."""
    mask = torch.zeros(image.shape[-2:], dtype=torch.bool)
    top, left = 8 + 5 * (number % 8), 44 - 4 * (number % 9)
    mask[top : top + 7, left : left + 7] = True
    return torch.where(mask, torch.tensor([1.0, 1.0, 0.2])[:, None, None], image), mask


def shared(make: Make, material: Material) -> Method:
    """The method fitted once for all checks that only read it."""
    if make not in material.fitted:
        images = [*material.normals, *material.tests]
        before = [image.clone() for image in images]
        material.fitted[make] = ready(make(), material)
        if not same_images(images, before):
            material.altered.add(make)
    return material.fitted[make]


def same_images(images: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return all(torch.equal(image, other) for image, other in zip(images, others, strict=True))


def ready(method: Method, material: Material) -> Method:
    """Fitted, and referred to the test category's normals."""
    return method.fit(material.training).refer(material.normals)


def predict(method: Method, images: Sequence[Tensor]) -> Prediction:
    """The predictions of all batches in one."""
    parts = list(method.predict(images))
    maps = None if parts[0].maps is None else torch.cat([part.maps for part in parts])
    return Prediction(torch.cat([part.scores for part in parts]), maps)


def assert_same(first: Prediction, second: Prediction, exactly: bool = False, rtol: float = CLOSE["rtol"]) -> None:
    tolerance = {"rtol": 0, "atol": 0} if exactly else {**CLOSE, "rtol": rtol}
    torch.testing.assert_close(first.scores, second.scores, **tolerance)
    assert (first.maps is None) == (second.maps is None)
    if first.maps is not None:
        # A map's small values are differences of large ones: its own largest value sets the scale.
        scale = {} if exactly else {"rtol": 0, "atol": rtol * float(first.maps.abs().max())}
        torch.testing.assert_close(first.maps, second.maps, **(scale or tolerance))


def check_has_the_shape_of_a_method(make: Make, material: Material) -> None:
    method = shared(make, material)
    assert isinstance(method, Method)
    assert isinstance(method.sees_normals, bool)


def check_constructor_only_stores_keyword_arguments(make: Make, material: Material) -> None:
    method = make()
    parameters = inspect.signature(type(method)).parameters.values()
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters)
    assert set(vars(method)) == {parameter.name for parameter in parameters}


def check_asks_to_be_fitted_first(make: Make, material: Material) -> None:
    with pytest.raises(NotFitted):
        list(make().predict(material.tests))


def check_predictions_are_complete(make: Make, material: Material) -> None:
    scores, maps = predict(shared(make, material), material.tests)
    assert scores.shape == (len(material.tests),)
    assert scores.dtype == torch.float32
    assert scores.isfinite().all()
    if maps is not None:
        assert maps.shape == (len(material.tests), *material.tests[0].shape[-2:])
        assert maps.dtype == torch.float32
        assert maps.isfinite().all()


def check_no_images_no_predictions(make: Make, material: Material) -> None:
    assert list(shared(make, material).predict([])) == []


def check_fit_forgets_what_was_before(make: Make, material: Material) -> None:
    once = predict(shared(make, material), material.tests)
    others = [material.training[i] for i in range(0, len(material.training), 2)]
    method = make().fit(others).refer(material.tests)
    assert_same(once, predict(ready(method, material), material.tests), exactly=True)


def check_randomness_comes_from_the_arguments(make: Make, material: Material) -> None:
    torch.manual_seed(1)
    first = shared(make, material)
    torch.manual_seed(2)
    second = ready(make(), material)
    assert_same(predict(first, material.tests), predict(second, material.tests), exactly=True)
    torch.testing.assert_close(first.normal_scores_, second.normal_scores_, rtol=0, atol=0)


def check_batch_size_does_not_matter(make: Make, material: Material) -> None:
    together = predict(shared(make, material), material.tests)
    method = ready(make(batch_size=3), material)
    for batch_size in (3, 1):  # once fitted it is read for every prediction
        method.batch_size = batch_size
        assert_same(together, predict(method, material.tests))


def check_neighbors_do_not_matter(make: Make, material: Material) -> None:
    method = shared(make, material)
    alone = predict(method, material.tests)
    among = predict(method, [*material.synthetic, *material.tests[::-1]])
    reversed_maps = None if among.maps is None else among.maps[len(material.synthetic) :].flip(0)
    assert_same(alone, Prediction(among.scores[len(material.synthetic) :].flip(0), reversed_maps))


def check_threads_do_not_matter(make: Make, material: Material) -> None:
    method = shared(make, material)
    threads = torch.get_num_threads()
    before = predict(method, material.tests)
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        assert_same(before, predict(method, material.tests))
    finally:
        torch.set_num_threads(threads)


def check_images_stay_as_they_are(make: Make, material: Material) -> None:
    images = [*material.normals, *material.tests]
    before = [image.clone() for image in images]
    predict(shared(make, material), material.tests)
    assert make not in material.altered and same_images(images, before)


def check_saved_is_loaded(make: Make, material: Material) -> None:
    method = shared(make, material)
    with tempfile.TemporaryDirectory() as folder:
        method.save(Path(folder))
        suffixes = {path.suffix for path in Path(folder).rglob("*") if path.is_file()}
        loaded = type(method).load(Path(folder))
        assert_same(predict(method, material.tests), predict(loaded, material.tests), exactly=True)
        torch.testing.assert_close(method.normal_scores_, loaded.normal_scores_, rtol=0, atol=0)
    assert suffixes <= {".safetensors", ".json", ".onnx", ".faiss"}, "what is saved must not be able to run"


def check_another_process_agrees(make: Make, material: Material) -> None:
    method = shared(make, material)
    with tempfile.TemporaryDirectory() as folder:
        method.save(Path(folder))
        work = (type(method), folder, torch.stack(material.tests).numpy(), torch.get_num_threads())
        scores = _another_process().apply(_scores_elsewhere, work)
    torch.testing.assert_close(predict(method, material.tests).scores, torch.from_numpy(scores), rtol=0, atol=0)


def check_device_does_not_matter(make: Make, material: Material) -> None:
    method = shared(make, material)
    with pretended_gpu() as gpu:
        assert_same_there(method, material, gpu)


def assert_same_there(method: Method, material: Material, gpu: Gpu) -> None:
    """A method of the CPU, loaded on a GPU: the same answers there, without a wait for it in between; what it saves
    there predicts on the CPU as if it had never been away."""
    images = [*material.tests[:2], *material.synthetic[:2]]
    before = predict(method, images)
    with tempfile.TemporaryDirectory() as folder:
        method.save(Path(folder) / "here")
        moved = type(method).load(Path(folder) / "here").to(gpu.device)
        list(moved.predict(images[:1]))  # what is made once
        gpu.waits.clear()
        there = list(moved.predict(images))
        assert gpu.waits == [] and there[0].scores.device.type == gpu.device.type
        assert moved.normal_scores_.device.type == gpu.device.type
        after = predict(moved, images).cpu()
        moved.save(Path(folder) / "there")
        assert_same(before, predict(type(method).load(Path(folder) / "there"), images), exactly=True)
    assert_same(before, after, rtol=BETWEEN_DEVICES)
    assert_same_decisions(method, before, after)


def assert_same_decisions(method: Method, before: Prediction, after: Prediction) -> None:
    limit = threshold_from_normals(method.normal_scores_.cpu().numpy(), 0.1).value
    decisions = [[bool(is_anomalous(score, limit)) for score in each.scores.tolist()] for each in (before, after)]
    assert decisions[0] == decisions[1]


def check_normal_scores_are_not_in_sample(make: Make, material: Material) -> None:
    """Normals that were learned from look better than they are; one's own normal scores must not be those."""
    method = shared(make, material)
    assert method.normal_scores_.ndim == 1
    assert method.normal_scores_.isfinite().all()
    if hasattr(method, "held_out_"):  # it sets some normals aside, and learns from the others alone
        aside = [material.normals[position] for position in method.held_out_]
        assert 0 < len(aside) < len(material.normals)
        torch.testing.assert_close(method.normal_scores_, predict(method, aside).scores, **CLOSE)
    elif method.sees_normals:
        assert len(method.normal_scores_) == len(material.normals)
        assert method.normal_scores_.mean() > predict(method, material.normals).scores.mean()


def check_one_normal_is_enough(make: Make, material: Material) -> None:
    method = copy.copy(shared(make, material)).refer(material.normals[:1])
    assert predict(method, material.tests).scores.isfinite().all()


def check_finds_synthetic_defects(make: Make, material: Material) -> None:
    """The same images with a blatant defect score higher, and the map is hottest at the defect."""
    method = shared(make, material)
    clean, synthetic = predict(method, material.tests), predict(method, material.synthetic)
    assert (synthetic.scores > clean.scores).float().mean() > 0.8
    if synthetic.maps is not None:
        growth = synthetic.maps - clean.maps
        at_defect = [
            bool(mask.flatten()[change.argmax()])
            for change, mask in zip(growth, map(grown, material.synthetic_masks), strict=True)
        ]
        assert sum(at_defect) > 0.8 * len(at_defect)


def grown(mask: Tensor, by_px: int = 4) -> Tensor:
    """A bool mask (h, w) with a margin for coarse maps."""
    return torch.nn.functional.max_pool2d(mask[None].float(), 2 * by_px + 1, 1, by_px)[0].bool()


@cache
def _another_process() -> Pool:
    """One for all methods: to import torch takes longer than any check."""
    pool = imported().Pool(1)
    atexit.register(pool.terminate)
    return pool


def _scores_elsewhere(method_class: type, folder: str, images, threads: int):
    torch.set_num_threads(threads)
    return predict(method_class.load(Path(folder)), list(torch.from_numpy(images))).scores.numpy()


CHECKS = [check for name, check in sorted(globals().items()) if name.startswith("check_")]
