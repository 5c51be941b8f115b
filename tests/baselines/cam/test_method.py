"""VGG16-CAM as a method: caching changes nothing, scores do not saturate, sizes that do not fit are told."""

import pytest
import torch

from baselines.cam.method import VggCam
from baselines.cam.network import FROZEN, VggNetwork, make_network
from baselines.cam.report import probability
from baselines.contract.method import Samples
from pretrain.command import UserError
from pretrain.data.dataset import load

SMALL = {"width": 1 / 16, "train_batch": 8, "epochs": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def samples(demo_folder) -> Samples:
    return Samples(load(demo_folder, 32, ("hazelnut", "leather")))


def test_cached_training_is_the_plain_one(samples, weights_file):
    """Frozen layers' results from the disk, or computed anew in every step: the same weights in the end."""
    few = [samples[i] for i in range(0, len(samples), 3)]
    options = {"weights": str(weights_file), "train_batch": 8, "epochs": 2, "device": "cpu"}
    plain, ours = (VggCam(cached=cached, **options).fit(few) for cached in (False, True))
    for (name, first), second in zip(
        plain.network_.state_dict().items(), ours.network_.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(second, first, rtol=1e-5, atol=1e-6, msg=name)
    early = make_network(str(weights_file)).features[:FROZEN].state_dict()
    assert all(torch.equal(ours.network_.features[:FROZEN].state_dict()[name], early[name]) for name in early)
    start = make_network(str(weights_file)).features[FROZEN].weight
    assert not torch.equal(ours.network_.features[FROZEN].weight, start)


def test_scores_are_probabilities_that_do_not_saturate():
    method = VggCam(device="cpu")
    method.network_, method.normal_scores_ = VggNetwork(1 / 32).eval(), torch.zeros(0)
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
    with pytest.raises(UserError, match="no good ones or no defective"):
        VggCam(**SMALL).fit([sample for sample in (samples[i] for i in range(len(samples))) if not sample.label])
