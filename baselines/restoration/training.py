"""How a restorer's network is trained: Adam, a warm-up, a cosine, and groups of weights that may join later.

Which pairs a step sees is a function of its number, so a killed training goes on to the same weights.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from baselines.restoration.loss import check_weights, restoration_loss
from baselines.restoration.pairs import Batch
from pretrain.command import UserError


class Group(NamedTuple):
    """Weights that are moved at `rate` times the learning rate, from the share `begins` of the training on."""

    weights: Sequence[nn.Parameter]
    rate: float = 1.0
    begins: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """`half_cosines` is how often the learning rate falls to zero or rises again: 1, or 5 as published (50 epochs with
    a T_max of 10). Others are told in `baselines/sadnet.py`."""

    steps: int = 1000
    batch_size: int = 4
    learning_rate: float = 1e-4
    warmup: float = 0.05
    half_cosines: int = 1
    alpha: float = 1.0
    beta: float = 2.0
    loss_weights: tuple[float, ...] = (1.0, 0.0, 0.5)
    weighting: str = "repaired"

    def check(self) -> None:
        """Raise UserError for a value with which nothing could be learned."""
        for name in ("steps", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name.replace('_', ' ')} must be above 0, not {getattr(self, name)}.")
        if not 0 <= self.warmup < 1:
            raise UserError(f"a warm-up of {self.warmup} is no share: give one from 0 to below 1, such as 0.05.")
        if self.half_cosines < 1 or self.half_cosines % 2 == 0:
            raise UserError(f"after {self.half_cosines} half cosines the rate would not be zero: give 1, 3 or 5.")
        check_weights(self.alpha, self.beta, self.loss_weights, self.weighting)

    def rate_at(self, progress: float) -> float:
        """The share of the learning rate; `progress` from 0 to 1."""
        if progress < self.warmup:
            return progress / self.warmup + 1e-2
        through = (progress - self.warmup) / (1 - self.warmup)
        return 0.5 * (1 + math.cos(math.pi * self.half_cosines * through))


class Step(NamedTuple):
    """What a step was like; `offset_px` is the mean size of the offsets, none where a network has none."""

    step: int
    loss: float
    learning_rate: float
    offset_px: float | None


class Training:
    """`source` gives the pairs with these numbers, on the network's device."""

    def __init__(self, network: nn.Module, source: Callable[[Sequence[int]], Batch], recipe: Recipe) -> None:
        recipe.check()
        self.network, self.source, self.recipe = network.train(), source, recipe
        self.groups = network.groups() if hasattr(network, "groups") else [Group(list(network.parameters()))]
        self.optimizer = torch.optim.Adam([{"params": list(group.weights)} for group in self.groups])

    def walk(self, first: int = 0) -> Iterator[Step]:
        """Take the steps that are left. Raises UserError where the loss is no longer a number."""
        for number in range(first, self.recipe.steps):
            yield self.take(number)

    def take(self, number: int, progress: float | None = None) -> Step:
        """One step, as at another place of the training where `progress` from 0 to 1 is given."""
        recipe = self.recipe
        progress = number / recipe.steps if progress is None else progress
        rate = recipe.learning_rate * recipe.rate_at(progress)
        for group, settings in zip(self.groups, self.optimizer.param_groups, strict=True):
            settings["lr"] = rate * group.rate
            for weights in group.weights:
                weights.requires_grad_(progress >= group.begins)
        first = number * recipe.batch_size
        degraded, clean, masks = self.source(range(first, first + recipe.batch_size))
        listened = self.network.listened() if hasattr(self.network, "listened") else nullcontext([])
        with listened as offsets:
            restored = self.network(degraded)
        loss = restoration_loss(
            restored, clean, masks, recipe.alpha, recipe.beta, recipe.loss_weights, recipe.weighting
        )
        self.optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        if not math.isfinite(value):
            raise UserError(f"the loss is not a number any more at step {number}: lower the learning rate.")
        loss.backward()
        self.optimizer.step()
        offset_px = torch.stack(offsets).mean().item() if offsets else None
        return Step(number, value, rate, offset_px)
