"""How a restorer's network is trained: Adam, a warm-up, a cosine, and groups of weights that may join later.

Which pairs a step sees is a function of its number, so that a killed training resumes to the same weights.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from baselines.restoration.loss import check_weights, restoration_loss
from baselines.restoration.pairs import PairBatch
from pretrain.command import UserError

MIN_RATE = 1e-2  # of the learning rate, in the very first step


class ParameterGroup(NamedTuple):
    """Weights trained at `rate` times the learning rate, from the share `begins` of the training on."""

    weights: Sequence[nn.Parameter]
    rate: float = 1.0
    begins: float = 0.0


@dataclass(frozen=True)
class RestorerRecipe:
    """`half_cosines` is how often the learning rate falls to zero or rises again: 1, or 5 as published (50 epochs with
    a T_max of 10). The others are explained in `baselines/restoration/config.py`."""

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
            # With an even number the rate would end where it began.
            raise UserError(f"after {self.half_cosines} half cosines the rate would not be zero: give 1, 3 or 5.")
        check_weights(self.alpha, self.beta, self.loss_weights, self.weighting)

    def rate_at(self, progress: float) -> float:
        """The share of the learning rate; `progress` from 0 to 1."""
        if progress < self.warmup:
            return progress / self.warmup + MIN_RATE
        after_warmup = (progress - self.warmup) / (1 - self.warmup)
        return 0.5 * (1 + math.cos(math.pi * self.half_cosines * after_warmup))


class RestorerTraining:
    """A network with its optimizer; `source` gives the pairs with these numbers, on the network's device.

    A network may have `groups()`, else all its weights are one group, and `recorded_offsets()`, whose mean is logged.
    """

    def __init__(
        self, network: nn.Module, source: Callable[[Sequence[int]], PairBatch], recipe: RestorerRecipe
    ) -> None:
        recipe.check()
        self.network, self.source, self.recipe = network.train(), source, recipe
        self.groups = network.groups() if hasattr(network, "groups") else [ParameterGroup(list(network.parameters()))]
        self.optimizer = torch.optim.Adam([{"params": list(group.weights)} for group in self.groups])

    def train_step(self, number: int, progress: float | None = None) -> dict[str, Tensor | float]:
        """Take one step and return its figures. `progress` from 0 to 1 takes it as at that point of the training, to
        time the steps that are slower because more weights are trained."""
        recipe = self.recipe
        progress = number / recipe.steps if progress is None else progress
        rate = recipe.learning_rate * recipe.rate_at(progress)
        for group, settings in zip(self.groups, self.optimizer.param_groups, strict=True):
            settings["lr"] = rate * group.rate
            for weights in group.weights:
                weights.requires_grad_(progress >= group.begins)
        first = number * recipe.batch_size
        degraded, clean, masks = self.source(range(first, first + recipe.batch_size))
        has_offsets = hasattr(self.network, "recorded_offsets")
        with self.network.recorded_offsets() if has_offsets else nullcontext([]) as offsets:
            restored = self.network(degraded)  # (b, 3, h, w)
        loss = restoration_loss(
            restored, clean, masks, recipe.alpha, recipe.beta, recipe.loss_weights, recipe.weighting
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        figures = {"loss": loss.detach(), "learning_rate": rate}
        # SADNet's offsets explode where the learning rate is too high, before the loss shows it.
        return figures | ({"offset_px": torch.stack(offsets).mean()} if offsets else {})

    def step_of(self, count: int) -> None:
        """A step of so many pairs with all weights trained, to learn what it takes; this training is over."""
        self.recipe = replace(self.recipe, batch_size=count)
        self.train_step(0, progress=1.0)
