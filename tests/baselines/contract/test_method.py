"""The suite of all methods, tried on methods that were broken on purpose; and what the contract's helpers do."""

import method_suite
import pytest
import torch
from method_suite import Material, make_material
from torch import nn

from baselines.contract.method import (
    FORMAT,
    METHOD_FILE,
    Images,
    Method,
    NotFitted,
    Prediction,
    Restorer,
    Samples,
    as_floats,
    as_images,
    at_once,
    batches,
)
from baselines.restoration.restorer import SadNetRestorer
from baselines.trivial import FrameColor, MeanImage
from pretrain.command import UserError
from pretrain.data.dataset import load
from pretrain.files import write_tensors

SIZE_PX = 64


@pytest.fixture(scope="module")
def material(demo_folder) -> Material:
    return make_material(demo_folder, SIZE_PX)


class Scaled(MeanImage):
    """Scales each batch to [0, 1]: a score depends on its neighbors."""

    def predict(self, images):
        for scores, maps in super().predict(images):
            low, high = scores.min(), scores.max()
            yield Prediction((scores - low) / (high - low).clamp(min=1e-9), maps)


class Hoarder(MeanImage):
    """Adds new normals to the old ones."""

    def fit(self, training):
        return self

    def refer(self, normals):
        self.all_ = [*getattr(self, "all_", []), *normals]
        return super().refer(self.all_)


class Dice(MeanImage):
    """Draws from torch's global generator."""

    def refer(self, normals):
        super().refer(normals)
        self.mean_ = self.mean_ + 0.01 * torch.randn_like(self.mean_)
        return self


class Forgetful(MeanImage):
    """Saves in half precision."""

    def save(self, folder):
        self.mean_ = self.mean_.half().float()
        super().save(folder)
        self.mean_ = self.mean_ + 1e-4


class Elsewhere(MeanImage):
    """Depends on something that only this process knows."""

    def predict(self, images):
        import os

        for scores, maps in super().predict(images):
            yield Prediction(scores + os.getpid(), maps)


class Upside(MeanImage):
    """Higher is better."""

    def predict(self, images):
        for scores, maps in super().predict(images):
            yield Prediction(-scores, -maps)


class InSample(MeanImage):
    """Takes the scores of the very images it learned from for those of unseen normals."""

    def refer(self, normals):
        super().refer(normals)
        self.normal_scores_ = torch.cat([prediction.scores for prediction in self.predict(normals)])
        return self


class Scribbler(MeanImage):
    """Writes into the images it is given."""

    def predict(self, images):
        for image in images:
            image.mul_(0.5)
        return super().predict(images)


class Eager(MeanImage):
    """Predicts before it knows anything."""

    def predict(self, images):
        for batch in batches(images, self.batch_size):
            yield Prediction(batch.mean(dim=(1, 2, 3)), None)


class Busy(MeanImage):
    """Does more in its constructor than to store."""

    def __init__(self, *, size_px: int = 32, batch_size: int = 32) -> None:
        super().__init__(size_px=size_px, batch_size=batch_size)
        self.network = nn.Linear(1, 1)


class Small(MeanImage):
    """Leaves its maps at their own size."""

    def predict(self, images):
        for scores, maps in super().predict(images):
            yield Prediction(scores, maps[:, ::2, ::2])


class Threaded(MeanImage):
    """Depends on the number of threads."""

    def predict(self, images):
        for scores, maps in super().predict(images):
            yield Prediction(scores * torch.get_num_threads(), maps)


class Chatty(MeanImage):
    """Says something when nothing is asked."""

    def predict(self, images):
        yield from super().predict(images)
        yield Prediction(torch.zeros(1), None)


class Needy(MeanImage):
    """Needs two normals for a spread."""

    def refer(self, normals):
        self.spread_ = torch.stack(list(normals)).std(dim=0).mean()
        return super().refer(normals)

    def predict(self, images):
        for scores, maps in super().predict(images):
            yield Prediction(scores / self.spread_, maps)


class Stay(MeanImage):
    """Does not move."""

    def to(self, device):
        return self


class Torn(MeanImage):
    """Leaves half of what it needs behind."""

    def to(self, device):
        mean = self.mean_
        super().to(device).mean_ = mean
        return self


class Waiting(MeanImage):
    """Reads a number in the middle of its work: a GPU has to be waited for."""

    def predict(self, images):
        for scores, maps in super().predict(images):
            yield Prediction(scores * (1.0 if scores.isfinite().all() else 0.0), maps)


class Shapeless:
    """No method at all."""

    sees_normals = True

    def fit(self, training):
        return self

    refer = fit


@pytest.mark.parametrize(
    ("broken", "caught_by"),
    [
        (Scaled, "batch_size_does_not_matter"),
        (Scaled, "neighbors_do_not_matter"),
        (Hoarder, "fit_forgets_what_was_before"),
        (Dice, "randomness_comes_from_the_arguments"),
        (Forgetful, "saved_is_loaded"),
        (Elsewhere, "another_process_agrees"),
        (Upside, "finds_synthetic_defects"),
        (InSample, "normal_scores_are_not_in_sample"),
        (Scribbler, "images_stay_as_they_are"),
        (Busy, "constructor_only_stores_keyword_arguments"),
        (Small, "predictions_are_complete"),
        (Threaded, "threads_do_not_matter"),
        (Chatty, "no_images_no_predictions"),
        (Needy, "one_normal_is_enough"),
        (Stay, "device_does_not_matter"),
        (Waiting, "device_does_not_matter"),
        (Shapeless, "has_the_shape_of_a_method"),
    ],
)
def test_suite_catches(broken, caught_by, material):
    with pytest.raises(AssertionError):
        getattr(method_suite, f"check_{caught_by}")(broken, material)


def test_suite_catches_who_leaves_a_tensor_behind(material):
    with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
        method_suite.check_device_does_not_matter(Torn, material)


def test_suite_catches_who_does_not_wait_to_be_fitted(material):
    with pytest.raises(pytest.fail.Exception):
        method_suite.check_asks_to_be_fitted_first(Eager, material)


def test_saved_method_is_refused_by_another_class(tmp_path):
    FrameColor().save(tmp_path)
    with pytest.raises(UserError, match="holds a FrameColor, not a MeanImage"):
        MeanImage.load(tmp_path)
    write_tensors(tmp_path / METHOD_FILE, {}, {"format": FORMAT})
    with pytest.raises(UserError, match="holds a file that is no method"):
        MeanImage.load(tmp_path)


@pytest.mark.parametrize(("number", "words"), [(99, "newer heldout .*update heldout"), (1, "older heldout .*fit the")])
def test_saved_method_of_another_format_is_refused(number, words, tmp_path, monkeypatch):
    monkeypatch.setattr("baselines.contract.method.FORMAT", number)
    MeanImage().save(tmp_path)
    monkeypatch.undo()
    with pytest.raises(UserError, match=words):
        MeanImage.load(tmp_path)


def test_damaged_or_missing_method_is_refused(tmp_path, material):
    with pytest.raises(UserError, match="there is no file"):
        MeanImage.load(tmp_path)
    method_suite.ready(MeanImage(), material).save(tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        MeanImage.load(tmp_path)


def test_unfitted_method_stays_unfitted_when_saved(tmp_path, material):
    MeanImage(size_px=8).save(tmp_path)
    loaded = MeanImage.load(tmp_path)
    assert loaded.size_px == 8
    with pytest.raises(NotFitted):
        list(loaded.predict(material.tests))


def test_samples_and_images_show_the_same_images(demo_folder):
    image_set = load(demo_folder, SIZE_PX).of("bottle")
    samples, images = Samples(image_set), Images(image_set)
    assert len(samples) == len(images) == len(image_set)
    for sample, image, record in zip(samples, images, image_set.records, strict=True):
        assert torch.equal(sample.image, image)
        assert image.shape == (3, SIZE_PX, SIZE_PX)
        assert 0 <= image.min() < image.max() <= 1
        assert sample.label == int(record.is_anomaly)
        assert (sample.mask is not None) == record.is_anomaly
    assert any(sample.mask is not None and sample.mask.any() for sample in samples)


def test_a_batch_that_a_gpu_cannot_hold_is_predicted_in_parts(material):
    class Short(MeanImage):
        def _small(self, images):
            if len(images) > 4:
                raise torch.OutOfMemoryError
            return super()._small(images)

    method = method_suite.ready(MeanImage(), material)
    short = Short()
    short.mean_, short.normal_scores_ = method.mean_, method.normal_scores_
    together, in_parts = (method_suite.predict(each, material.tests) for each in (method, short))
    method_suite.assert_same(together, in_parts)


def test_a_batch_goes_to_a_gpu_from_pinned_memory_and_nobody_waits(monkeypatch):
    done = []

    def to(tensor: torch.Tensor, device: torch.device, non_blocking: bool = False) -> torch.Tensor:
        done.append((str(device), non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: done.append(tensor.shape) or tensor)
    monkeypatch.setattr(torch.Tensor, "to", to)
    images = [torch.full((3, 4, 4), value, dtype=torch.uint8) for value in range(5)]
    sent = list(batches(images, 4, torch.device("cuda"), may_be_bytes=True))
    assert done == [(4, 3, 4, 4), ("cuda", True), (1, 3, 4, 4), ("cuda", True)]
    assert torch.equal(torch.cat(sent), torch.stack(images))


def test_methods_and_restorers_are_told_apart():
    assert isinstance(SadNetRestorer(), Restorer) and not isinstance(SadNetRestorer(), Method)
    assert not isinstance(MeanImage(), Restorer)


def test_large_images_are_bytes_for_whom_may_have_them(monkeypatch):
    pixels = torch.randint(0, 256, (2, 8, 9, 3), dtype=torch.uint8)
    floats = as_images(pixels)
    assert floats.shape == (2, 3, 8, 9) and torch.equal(floats, pixels.permute(0, 3, 1, 2) / 255)
    monkeypatch.setattr("baselines.contract.method.MAX_PIXELS_AT_ONCE", 71)
    large = as_images(pixels)
    assert large.dtype == torch.uint8 and large.data_ptr() == pixels.data_ptr()
    for image, as_bytes, as_float in zip(floats, batches(large, 4, may_be_bytes=True), batches(large, 4), strict=True):
        assert as_bytes.dtype == torch.uint8 and torch.equal(as_float[0], image)
        assert torch.equal(as_floats(as_bytes)[0], image)


def test_fewer_large_images_are_taken_at_once():
    assert at_once(16, (512, 512)) == 16 and at_once(16, (640, 640)) == 10 and at_once(16, (10_000, 10_000)) == 1
    large = [torch.zeros(3, 1024, 1100)] * 7
    assert [len(batch) for batch in batches(large, 16)] == [3, 3, 1]
    assert [len(batch) for batch in batches(large, 2)] == [2, 2, 2, 1]
