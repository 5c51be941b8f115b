"""Residuals: the network that reads them never falls, and nothing is read before it was trained."""

import pytest
import torch

from baselines.contract.method import NotFitted, Samples
from downstream.methods.residual import MonotoneNetwork, Residual, trained_network
from pretrain.command import UserError
from pretrain.data.dataset import load


@pytest.mark.parametrize("hidden", [0, 8])
def test_evidence_never_falls_where_a_residual_grows(hidden):
    generator = torch.Generator().manual_seed(0)
    network = MonotoneNetwork(6, hidden)
    network.draw(generator)
    inputs = torch.randn(50, 6, generator=generator)
    for channel in range(6):
        larger = inputs.clone()
        larger[:, channel] += 1
        assert (network(larger) >= network(inputs)).all()
    assert (network(inputs + 1) > network(inputs)).any()


def test_the_network_learns_which_residuals_are_defects():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(600, 4, generator=generator)
    labels = (inputs[:, 1] > 0.5).float()
    evidence = trained_network(inputs, labels, 8, seed=0)(inputs)
    assert ((evidence > 0).float() == labels).float().mean() > 0.95


def test_without_other_categories_it_says_what_it_needs():
    with pytest.raises(UserError, match="learns from others"):
        Residual().fit([])
    with pytest.raises(NotFitted, match="call fit first"):
        Residual().refer([torch.zeros(3, 64, 64)])


def test_a_single_normal_says_which_residuals_are_usual(demo_folder):
    """Its own patches are all that the coreset holds: each is its own nearest one."""
    learned, asked = (Samples(load(demo_folder, 64, [name])) for name in ("hazelnut", "bottle"))
    method = Residual(levels=("level1", "level2"), dimensions=32, hidden=8, grid=16)
    method.fit([sample for sample in learned if not sample.label][:8])
    normals = torch.stack([sample.image for sample in asked if not sample.label][:7])
    defective = normals[1:].clone()
    defective[:, :, 24:36, 24:36] = torch.tensor([1.0, 0.0, 1.0])[:, None, None]
    scores = torch.cat([part.scores for part in method.refer(normals[:1]).predict([*normals[1:], *defective])])
    assert scores[:6].max() < scores[6:].min()
