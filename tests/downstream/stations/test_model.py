"""A model that many ask at once answers each as it would alone, in time or not at all."""

import shutil
import threading
import time
from pathlib import Path

import pytest
from line_here import until

from downstream.inspection.inspector import Inspector
from downstream.service.models import Models
from downstream.stations import model as module
from downstream.stations.model import NotJudged, SharedModel, model_named
from pretrain.command import UserError
from pretrain.data.decode import decode


@pytest.fixture(scope="module")
def shared(padim_folder):
    model = SharedModel(Models(padim_folder, 4), padim_folder.name, 4)
    yield model
    model.stop()


@pytest.fixture(scope="module")
def images(demo_folder, shared):
    paths = sorted((demo_folder / "hazelnut/test").rglob("*.png"))[:8]
    return [decode(path, shared.loaded.inspector.size_px) for path in paths]


def far() -> float:
    return time.monotonic() + 60


def test_each_image_gets_what_it_would_get_alone(shared, images, padim_folder):
    found = [future.result(30) for future in [shared.judge(image, far()) for image in images]]
    inspector = Inspector.load(padim_folder)
    for inspection, image in zip(found, images, strict=True):
        (alone,) = inspector.inspect_decoded([Path()], [image])
        assert inspection.is_defective == alone.is_defective
        assert inspection.score == pytest.approx(alone.score, rel=1e-5)


class Gate:
    """Holds the model up until it is opened; `sizes` of the batches that came."""

    def __init__(self, shared, monkeypatch) -> None:
        self.sizes, self.opened, predict = [], threading.Event(), shared.loaded.inspector.method.predict

        def held(batch):
            self.sizes.append(len(batch))
            assert self.opened.wait(30)
            return predict(batch)

        monkeypatch.setattr(shared.loaded.inspector.method, "predict", held)


@pytest.fixture
def gate(shared, images, monkeypatch):
    """With one image before it."""
    made = Gate(shared, monkeypatch)
    made.first = shared.judge(images[0], far())
    until(lambda: made.sizes)
    yield made
    made.opened.set()
    made.first.result(30)


def test_what_waits_is_taken_together_the_most_urgent_first(shared, images, gate):
    done, futures = [], []
    for number, image in enumerate(images[1:]):
        futures.append(shared.judge(image, far() + 60 - number))
        futures[-1].add_done_callback(lambda _, number=number: done.append(number))
    gate.opened.set()
    for future in futures:
        future.result(30)
    assert gate.sizes == [1, 4, 3] and set(done[:4]) == {3, 4, 5, 6}


def test_a_batch_is_no_larger_than_its_most_urgent_image_has_time_for(shared, images, gate, monkeypatch):
    futures = [shared.judge(image, far() - number) for number, image in enumerate(images[1:5])]
    monkeypatch.setattr(module, "NEWEST_SHARE", 0.0)
    shared._image_s = 25.0  # two of them fit into a minute
    gate.opened.set()
    for future in futures:
        future.result(30)
    assert gate.sizes == [1, 2, 2]
    shared._image_s = 0.0


def test_what_is_too_late_is_not_judged_at_all(shared, images, gate):
    late = shared.judge(images[1], time.monotonic() + 0.05)
    time.sleep(0.1)
    gate.opened.set()
    with pytest.raises(NotJudged, match="too busy"):
        late.result(30)
    assert gate.sizes == [1]


def test_one_that_hangs_says_so(shared, images, gate, monkeypatch):
    monkeypatch.setattr(module, "HANGS_S", 0.02)
    until(lambda: "does not answer" in (shared.what_is_wrong() or ""))
    gate.opened.set()
    until(lambda: shared.what_is_wrong() is None)


def test_an_image_that_brings_it_to_fail_is_alone_with_that(shared, images, monkeypatch):
    predict = shared.loaded.inspector.method.predict

    def fails_for_two(batch):
        time.sleep(0.05)
        if len(batch) > 1 or float(batch[0].mean()) == 0.0:
            raise RuntimeError("a fault of the test's own")
        return predict(batch)

    monkeypatch.setattr(shared.loaded.inspector.method, "predict", fails_for_two)
    black = images[1]._replace(pixels=images[1].pixels * 0)
    futures = [shared.judge(image, far()) for image in (images[0], black, images[2])]
    assert futures[0].result(30) and futures[2].result(30)
    with pytest.raises(NotJudged, match="the model failed"):
        futures[1].result(30)


def test_a_version_that_was_written_since_is_taken_and_a_damaged_one_is_not(padim_folder, tmp_path):
    folder = shutil.copytree(padim_folder, tmp_path / "nut")
    model = SharedModel(Models(folder, 4), "nut", 4)
    before = model.loaded
    model.refresh()
    assert model.loaded is before
    inspector = Inspector.load(folder)
    inspector.decide_at(123.0)
    inspector.save_decision(folder)
    model.refresh()
    assert model.loaded.inspector.decision.value == 123.0 and model.loaded.fingerprint != before.fingerprint
    (folder / "inspector.json").write_text("{}")
    model.refresh()
    assert model.what_is_wrong() is None and model.loaded.inspector.decision.value == 123.0
    model.stop()


def test_the_only_model_need_not_be_named(padim_folder, models_folder):
    assert model_named(Models(padim_folder, 1), None) == padim_folder.name
    with pytest.raises(UserError, match="there are 2 models: name one, of hazelnut, mean"):
        model_named(Models(models_folder, 1), None)
