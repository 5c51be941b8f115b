"""Fine-tuning: the best epoch counts, and the encoder that was given stays as it is."""

import pytest
from labeled_samples import training_samples

from baselines.contract.method import Sample
from baselines.contract.split import split_samples
from downstream.methods.fine_tuned import FineTuned
from pretrain.encoder import Encoder, fingerprint


@pytest.fixture(scope="module")
def training() -> list[Sample]:
    return training_samples()


def test_fine_tuning_leaves_the_given_encoder_alone(training):
    encoder = Encoder("timm/test_resnet", 0).eval()
    before = fingerprint(encoder)
    head = FineTuned(encoder=encoder, input_px=None, epochs=1, train_batch=8).fit(training)
    assert fingerprint(encoder) == before
    assert fingerprint(head.tuned_) != before


def test_best_epoch_counts(training):
    """With a learning rate that spoils everything, what was best on held-out images is kept."""
    encoder = Encoder("timm/test_resnet", 0).eval()
    head = FineTuned(encoder=encoder, input_px=None, epochs=5, patience=5, train_batch=8, learning_rate=0.3)
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
