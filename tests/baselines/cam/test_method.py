"""CAM as a method, on VGG16 and others: caching changes nothing, scores do not saturate, wrong sizes are told."""

import pytest
import torch

from baselines.cam.method import Cam, VggCam
from baselines.cam.network import VGG16, CamNetwork, VggBackbone, make_network
from baselines.cam.report import probability
from baselines.contract.method import Samples
from pretrain.command import UserError
from pretrain.data.dataset import load
from pretrain.encoder import Encoder
from pretrain.weights import Origin

SMALL = {"width": 1 / 16, "train_batch": 8, "epochs": 2}


@pytest.fixture(scope="module")
def samples(demo_folder) -> Samples:
    return Samples(load(demo_folder, 32, ("hazelnut", "leather")))


@pytest.mark.parametrize("architecture", [VGG16, "efficientnet_lite0"])
def test_cached_training_is_the_plain_one(architecture, samples, weights_file):
    """Frozen levels' results from the disk, or computed anew in every step: the same weights in the end."""
    few = [samples[i] for i in range(0, len(samples), 3)]
    start = str(weights_file) if architecture == VGG16 else "imagenet"
    options = {"architecture": architecture, "weights": start, "train_batch": 8, "epochs": 2}
    plain, ours = (Cam(cached=cached, **options).fit(few) for cached in (False, True))
    before = make_network(architecture, start).state_dict()
    for (name, first), second in zip(
        plain.network_.state_dict().items(), ours.network_.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(second, first, rtol=1e-5, atol=1e-6, msg=name)
        is_trained = name.startswith(("features.level4", "classifier")) and "running" not in name
        assert is_trained or torch.equal(second, before[name]), name
    changed = {name for name, weight in ours.network_.state_dict().items() if not torch.equal(weight, before[name])}
    assert {"classifier.weight", next(name for name in before if name.startswith("features.level4"))} <= changed


@pytest.mark.parametrize(("architecture", "input_px"), [("timm/test_vit", 160), ("efficientnet_lite0", 64)])
def test_other_backbones_learn_from_random_weights_and_are_loaded_as_saved(architecture, input_px, samples, tmp_path):
    """All of it is trained, batch normalization's statistics too."""
    few = [samples[i] for i in range(0, len(samples), 3)][:25]  # three batches, the last of a single image
    method = Cam(architecture=architecture, weights="random", input_px=input_px, train_batch=8, epochs=1)
    before = make_network(architecture, "random").state_dict()
    method.fit(few)
    same = [name for name, weight in method.network_.state_dict().items() if torch.equal(weight, before[name])]
    assert set(same) <= {"mean", "std"}
    images = [torch.rand(3, 50, 70)]
    ((scores, maps),) = method.predict(images)
    method.save(tmp_path)
    ((again, maps_again),) = Cam.load(tmp_path).predict(images)
    assert torch.equal(scores, again) and torch.equal(maps, maps_again) and maps.shape == (1, 50, 70)


def test_an_encoder_file_brings_its_normalization_and_what_it_saw(samples, tmp_path):
    file = tmp_path / "encoder.safetensors"
    Encoder("timm/test_resnet", 3, mean=(0.1, 0.2, 0.3), origin=Origin("screws", ("a", "b"))).save(file)
    few = [samples[i] for i in range(0, len(samples), 3)]
    method = Cam(architecture="timm/test_resnet", weights=str(file), train_batch=8, epochs=1)
    assert method.saw == ("a", "b") and Cam().saw == ()
    method.fit(few).save(tmp_path / "model")
    file.unlink()
    loaded = Cam.load(tmp_path / "model")
    assert loaded.network_.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    with pytest.raises(UserError, match="holds a Cam, not a VggCam"):
        VggCam.load(tmp_path / "model")


def test_scores_are_probabilities_that_do_not_saturate():
    method = VggCam()
    method.network_, method.normal_scores_ = CamNetwork(VggBackbone(1 / 32)).eval(), torch.zeros(0)
    scores = []
    for logit in (-80.0, 0.0, 80.0, 81.0):
        torch.nn.init.zeros_(method.network_.classifier.weight)
        method.network_.classifier.bias.data = torch.tensor([0.0, logit])
        (found,) = method.predict([torch.rand(3, 32, 32)])
        scores.append(found.scores.item())
    assert scores[0] > 0 and scores == sorted(set(scores)) and scores[3] - scores[2] == pytest.approx(1)
    assert [round(probability(score), 3) for score in scores[:3]] == [0.0, 0.5, 1.0]


def test_other_sizes_and_too_small_ones(samples):
    method = VggCam(input_px=32, **SMALL).fit(samples)
    ((scores, maps),) = method.predict([torch.rand(3, 50, 70)])
    assert maps.shape == (1, 50, 70) and scores.isfinite().all()
    with pytest.raises(UserError, match="too small"):
        list(VggCam(**SMALL).fit(samples).predict([torch.rand(3, 31, 70)]))
    with pytest.raises(UserError, match="24 px are too small for efficientnet_lite0"):
        Cam(input_px=24).fit(samples)
    with pytest.raises(UserError, match="no good ones or no defective"):
        VggCam(**SMALL).fit([sample for sample in (samples[i] for i in range(len(samples))) if not sample.label])
