"""LARS without a question: the steps of lightly's."""

import copy

import torch
from lightly.utils.lars import LARS
from pretended_gpu import pretended_gpu
from torch import nn

from pretrain.lars import Lars
from pretrain.simclr import parameter_groups


def layers() -> nn.Module:
    """With weights that are all zero, and some that get no gradient."""
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3), nn.Linear(3, 3))
    nn.init.zeros_(made[2].weight)
    return made


def three_steps(optimizer_class, module: nn.Module) -> nn.Module:
    optimizer = optimizer_class(parameter_groups(module, 1e-2), lr=0.5, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        for number, weights in enumerate(module.parameters()):
            weights.grad = torch.randn(weights.shape, generator=generator).to(weights.device)
            if number == 6:  # of the last layer
                weights.grad = torch.zeros_like(weights)
        optimizer.step()
    return module


def test_it_takes_the_steps_of_lightlys():
    module = layers()
    lightlys, ours = (three_steps(each, copy.deepcopy(module)) for each in (LARS, Lars))
    for before, first, second in zip(module.parameters(), lightlys.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-7)
        assert not torch.equal(before, first) or before is list(module.parameters())[6]


def test_it_never_waits_for_a_gpu():
    here = three_steps(Lars, layers())
    with pretended_gpu() as gpu:
        module = layers().to(gpu.device)
        optimizer = Lars(parameter_groups(module, 1e-2), lr=0.5, momentum=0.9)
        for weights in module.parameters():
            weights.grad = torch.ones_like(weights)
        gpu.waits.clear()
        optimizer.step()
        assert gpu.waits == []
        there = [weights.cpu() for weights in three_steps(Lars, layers().to(gpu.device)).parameters()]
    for first, second in zip(here.parameters(), there, strict=True):
        torch.testing.assert_close(first.detach(), second.detach())
