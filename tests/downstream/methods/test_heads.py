"""Heads: how classes weigh, and that they learn what can be learned."""

import pytest
import torch
from labeled_samples import sample, training_samples
from torch.nn import functional as F

from baselines.contract.method import Sample
from downstream.methods.fine_tuned import FineTuned
from downstream.methods.heads import KnnHead, LogisticHead, class_weights
from pretrain.command import UserError

HEADS = {"logistic": LogisticHead, "knn": KnnHead, "fine-tuned": FineTuned}


@pytest.fixture(scope="module")
def training() -> list[Sample]:
    return training_samples()


def test_good_ones_alone_are_a_mistake():
    with pytest.raises(UserError, match="learns from both"):
        LogisticHead().fit([sample(i, "good") for i in range(10)])


@pytest.mark.parametrize("head_class", HEADS.values(), ids=HEADS)
def test_heads_begin_with_imagenets_weights(head_class):
    encoder = head_class()._used_encoder()
    assert (encoder.architecture, encoder.started_from.name) == ("efficientnet_lite0", "imagenet")


def test_both_classes_weigh_alike():
    labels = torch.tensor([0.0, 0.0, 0.0, 1.0])
    weights = class_weights(labels)
    assert weights[labels > 0].sum() == weights[labels == 0].sum()
    assert weights.mean() == pytest.approx(1)


@pytest.mark.parametrize(
    "head_class",
    [
        pytest.param(head, id=name, marks=[pytest.mark.slow] if head is FineTuned else [])
        for name, head in HEADS.items()
    ],
)
def test_heads_learn_what_can_be_learned(head_class, training):
    quick = {"epochs": 6, "train_batch": 8, "learning_rate": 1e-3} if head_class is FineTuned else {}
    head = head_class(input_px=64, **quick).fit(training)
    tests = [sample(400 + i, "good") for i in range(10)] + [sample(500 + i, "spot") for i in range(10)]
    (prediction,) = head.predict([one.image for one in tests])
    assert (prediction.scores > 0).all()
    wins = prediction.scores[10:, None] > prediction.scores[None, :10]
    assert wins.float().mean() > 0.95
    assert len(head.normal_scores_) == 7


@pytest.mark.parametrize("head_class", HEADS.values(), ids=HEADS)
def test_heads_read_images_at_their_size(head_class, training):
    quick = {"epochs": 1, "train_batch": 8} if head_class is FineTuned else {}
    head = head_class(input_px=40, **quick).fit(training)
    images = torch.stack([sample(400 + i, "spot").image for i in range(4)])
    stretched = F.interpolate(images, (40, 40), mode="bilinear", antialias=True)
    assert images.shape[-1] != 40
    (large,), (small,) = head.predict(images), head.predict(stretched)
    torch.testing.assert_close(large.scores, small.scores)


def test_nearest_images_vote_as_written():
    head = KnnHead(temperature=0.5)
    head.features_ = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), dim=1)
    head.labels_, head.votes_ = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.5, 0.75, 0.75])
    found = head._logits(torch.tensor([[1.0, 0.0]]), count=2)
    defective = 1.5 * torch.tensor(1.0 / 0.5).exp()
    good = 0.75 * torch.tensor(0.5**0.5 / 0.5).exp()
    torch.testing.assert_close(found.float(), ((1 + defective).log() - (1 + good).log())[None])
