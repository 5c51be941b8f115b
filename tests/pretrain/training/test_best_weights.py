"""The best weights stay what they were while the network goes on learning."""

import torch
from torch import nn

from pretrain.training.best_weights import BestWeights


def test_best_weights_change_only_when_kept():
    learner = BestWeights(nn.Linear(2, 1))
    before = learner.best.weight.clone()
    with torch.no_grad():
        learner.network.weight.add_(1)
    assert torch.equal(learner.best.weight, before)
    learner.keep()
    assert torch.equal(learner.best.weight, before + 1)
    assert not learner.best.weight.requires_grad and learner.network.weight.requires_grad


def test_a_checkpoint_holds_both():
    learner, resumed = BestWeights(nn.Linear(2, 1)), BestWeights(nn.Linear(2, 1))
    with torch.no_grad():
        learner.network.weight.add_(1)
    resumed.load_state_dict(learner.state_dict())
    assert torch.equal(resumed.network.weight, learner.network.weight)
    assert torch.equal(resumed.best.weight, learner.best.weight)
