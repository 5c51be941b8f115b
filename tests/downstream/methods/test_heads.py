"""Heads: how classes weigh, and that they learn what can be learned."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from baselines.contract.method import Sample
from baselines.contract.split import split_samples
from downstream.methods.fine_tuned import FineTuned
from downstream.methods.heads import KnnHead, LogisticHead, class_weights
from pretrain.command import UserError

HEADS = {"logistic": LogisticHead, "knn": KnnHead, "fine-tuned": FineTuned}


def sample(number: int, kind: str, category: str = "nut", copy_of: int | None = None) -> Sample:
    """Gray noise; a defective one has a red square somewhere."""
    seed = number if copy_of is None else copy_of
    generator = torch.Generator().manual_seed(seed)
    image = 0.4 + 0.2 * torch.rand(3, 32, 32, generator=generator)
    if kind != "good":
        top, left = torch.randint(0, 20, (2,), generator=generator).tolist()
        image[:, top : top + 12, left : left + 12] = torch.tensor([1.0, 0.1, 0.1])[:, None, None]
    return Sample(image, int(kind != "good"), None, category, Path(f"data/{category}/test/{kind}/{number:03}.png"))


@pytest.fixture(scope="module")
def training() -> list[Sample]:
    return [sample(i, "good") for i in range(40)] + [sample(100 + i, "spot") for i in range(20)]


def test_good_ones_alone_are_a_mistake():
    with pytest.raises(UserError, match="learns from both"):
        LogisticHead().fit([sample(i, "good") for i in range(10)])


def test_both_classes_weigh_alike():
    labels = torch.tensor([0.0, 0.0, 0.0, 1.0])
    weights = class_weights(labels)
    assert weights[labels > 0].sum() == weights[labels == 0].sum()
    assert weights.mean() == pytest.approx(1)


@pytest.mark.parametrize("kind", HEADS.values(), ids=HEADS)
def test_heads_learn_what_can_be_learned(kind, training):
    quick = {"epochs": 6, "train_batch": 8, "learning_rate": 1e-3} if kind is FineTuned else {}
    head = kind(**quick).fit(training)
    tests = [sample(400 + i, "good") for i in range(10)] + [sample(500 + i, "spot") for i in range(10)]
    (prediction,) = head.predict([one.image for one in tests])
    assert (prediction.scores > 0).all()
    wins = prediction.scores[10:, None] > prediction.scores[None, :10]
    assert wins.float().mean() > 0.95
    assert len(head.normal_scores_) == 7


def test_nearest_images_vote_as_written():
    head = KnnHead(temperature=0.5)
    head.features_ = F.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), dim=1)
    head.labels_, head.votes_ = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.5, 0.75, 0.75])
    found = head._logits(torch.tensor([[1.0, 0.0]]), count=2)
    defective = 1.5 * torch.tensor(1.0 / 0.5).exp()
    good = 0.75 * torch.tensor(0.5**0.5 / 0.5).exp()
    torch.testing.assert_close(found.float(), ((1 + defective).log() - (1 + good).log())[None])


def test_fine_tuning_leaves_the_given_encoder_alone(training):
    from pretrain.encoder import Encoder, fingerprint

    encoder = Encoder("resnet18", 0).eval()
    before = fingerprint(encoder)
    head = FineTuned(encoder=encoder, epochs=1, train_batch=8).fit(training)
    assert fingerprint(encoder) == before
    assert fingerprint(head.tuned_) != before


def test_best_epoch_counts(training):
    """With a learning rate that spoils everything, what was best on held-out images is kept."""
    head = FineTuned(epochs=5, patience=5, train_batch=8, learning_rate=0.3)
    losses = []
    measure = head._validation_loss

    def noted(*arguments):
        losses.append(measure(*arguments))
        return losses[-1]

    head._validation_loss = noted
    head.fit(training)
    parts = split_samples(training, 0)
    assert len(losses) == 5
    assert measure(training, parts) == pytest.approx(min(losses), rel=1e-4)
