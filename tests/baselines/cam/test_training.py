"""Training of a CAM: the weighted loss, when it ends, and what teaches nothing."""

from functools import partial

import pytest
import torch

from baselines.cam.network import VGG16, make_network
from baselines.cam.training import CamRecipe, CamTraining
from baselines.contract.split import Split
from pretrain.command import UserError
from pretrain.training.run import Run
from pretrain.training.session import Session


def make_training(recipe: CamRecipe, validation=(6, 7), images=None) -> CamTraining:
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)) if images is None else images
    network = make_network(VGG16, width=1 / 32)
    labels = torch.tensor([0.0, 1, 0, 1, 0, 1, 0, 1])
    split = Split(list(range(6)), list(validation), labels)
    return CamTraining(network, lambda positions: network.early(images[positions]), split, recipe)


def train(training: CamTraining, run: Run | None = None) -> list[dict]:
    """The epochs, as the run logs them."""
    session = training.train(partial(Session, "training", run=run))
    lines = run.metrics() if run else []
    assert not run or [line["step"] for line in lines if "loss" in line] == list(range(session.step))
    return [line for line in lines if "epoch" in line]


def test_loss_weighs_anomalies_three_times():
    training = make_training(CamRecipe(batch=6, epochs=1))
    with torch.no_grad():
        logits = training.network(torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)))[:6]
    weights, labels = torch.tensor([1.0, 3, 1, 3, 1, 3]), torch.tensor([0, 1, 0, 1, 0, 1])
    chosen = logits.log_softmax(1)[range(6), labels]
    assert training.step(0) == pytest.approx(float(-(weights * chosen).sum() / weights.sum()), rel=1e-5)


def test_training_ends_without_a_better_epoch(monkeypatch, tmp_path):
    training = make_training(CamRecipe(batch=2, epochs=10, patience=2))
    losses = iter([0.5, 0.4, 0.6, 0.45, 0.1])
    monkeypatch.setattr(training, "validate", lambda: (next(losses), 0.5))
    kept = []
    monkeypatch.setattr(training.learner, "keep", lambda: kept.append(training.state.best_epoch))
    epochs = train(training, Run(tmp_path))
    assert [epoch["validation_loss"] for epoch in epochs] == [0.5, 0.4, 0.6, 0.45]
    assert kept == [0, 1] and training.state.best_epoch == 1 and epochs[-1]["step"] == 11


def test_training_ends_at_the_target_accuracy(tmp_path):
    always = torch.zeros(8, 3, 32, 32)
    training = make_training(CamRecipe(batch=6, epochs=5, target_accuracy=0.4), images=always)
    assert len(train(training, Run(tmp_path))) == 1  # black images are all called alike: half of them are right


def test_without_held_out_images_the_training_loss_decides(tmp_path):
    training = make_training(CamRecipe(batch=6, epochs=2), validation=())
    last = train(training, Run(tmp_path))[-1]
    assert last["validation_loss"] is None and last["validation_accuracy"] is None
    assert training.state.best_loss <= last["train_loss"]


def test_a_loss_that_is_no_number_is_refused():
    images = torch.full((8, 3, 32, 32), torch.inf)
    with pytest.raises(UserError, match="learning rate"):
        train(make_training(CamRecipe(batch=6), images=images))


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch": 0}, {"learning_rate": 0.0}, {"target_accuracy": 98.0}])
def test_values_that_teach_nothing_are_refused(wrong):
    with pytest.raises(UserError):
        make_training(CamRecipe(**wrong))
