"""How VGG16-CAM is trained: weighted cross-entropy, Adam, and an end where held-out images say so.

A training is walked through step by step, so that whoever walks can show it, log it, save it and stop it. All that
going on needs is in the network, the optimizer and `State`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.cam.network import VggNetwork
from baselines.contract.split import Split
from pretrain.command import UserError

# Of good and anomaly, as published.
CLASS_WEIGHTS = (1.0, 3.0)


@dataclass(frozen=True)
class Recipe:
    """`patience` is the number of epochs that may pass without a better one. With `target_accuracy` the training also
    ends once that share of an epoch's images was told right, as in the published recipe."""

    epochs: int = 10
    batch: int = 40
    learning_rate: float = 1e-4
    patience: int = 3
    target_accuracy: float | None = None
    seed: int = 0

    def check(self) -> None:
        """Raise UserError for a value with which nothing could be learned."""
        for name in ("epochs", "batch", "learning_rate", "patience"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name.replace('_', ' ')} must be above 0, not {getattr(self, name)}.")
        if self.target_accuracy is not None and not 0 < self.target_accuracy <= 1:
            raise UserError(f"a target accuracy of {self.target_accuracy} is no share: give one such as 0.98.")


@dataclass
class State:
    """Where a training is, as plain JSON. Sums are of the epoch that is going on."""

    step: int = 0
    loss_sum: float = 0.0
    right: int = 0
    seen: int = 0
    best_loss: float | None = None
    best_epoch: int = 0
    is_over: bool = False


class Epoch(NamedTuple):
    """Figures of a finished epoch; those of validation are none where nothing is held out."""

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None


class Step(NamedTuple):
    """One step: its number, its loss, how many images it saw; the epoch if it ended one, and whether that one's
    weights are the best so far: then they are to be kept."""

    step: int
    loss: float
    images: int
    epoch: Epoch | None = None
    is_best: bool = False


class Training:
    """`source` gives, for positions of training images, what `network.early` makes of them, on the device."""

    def __init__(
        self, network: VggNetwork, source: Callable[[Sequence[int]], Tensor], parts: Split, recipe: Recipe
    ) -> None:
        recipe.check()
        self.network, self.source, self.parts, self.recipe, self.state = network, source, parts, recipe, State()
        trained = [weights for weights in network.parameters() if weights.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=recipe.learning_rate)
        self.labels = parts.labels.long().to(network.mean.device)
        self.class_weights = torch.tensor(CLASS_WEIGHTS, device=network.mean.device)
        self.steps_an_epoch = math.ceil(len(parts.train) / recipe.batch)

    @property
    def steps(self) -> int:
        """At most."""
        return self.recipe.epochs * self.steps_an_epoch

    def walk(self) -> Iterator[Step]:
        """Take the steps that are left. Raises UserError if the loss is no longer a number."""
        while not self.state.is_over:
            yield self._step()

    def _step(self) -> Step:
        state, number = self.state, self.state.step
        epoch, turn = divmod(number, self.steps_an_epoch)
        # Each epoch is a shuffle of its own, a function of the seed and its number alone.
        order = np.random.default_rng([self.recipe.seed, epoch]).permutation(self.parts.train)
        some = order[turn * self.recipe.batch :][: self.recipe.batch].tolist()
        logits = self.network.logits(self.network.late(self.source(some)))  # (b, 2)
        loss = F.cross_entropy(logits, self.labels[some], weight=self.class_weights)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        value = loss.item()
        if not math.isfinite(value):
            raise UserError(f"the loss is not a number any more at step {number}: lower the learning rate.")
        state.step += 1
        state.loss_sum += value * len(some)
        state.right += int((logits.argmax(1) == self.labels[some]).sum())
        state.seen += len(some)
        if turn + 1 < self.steps_an_epoch:
            return Step(number, value, len(some))
        return self._end_epoch(epoch, Step(number, value, len(some)))

    def _end_epoch(self, epoch: int, step: Step) -> Step:
        """Look at the held-out images and decide whether to go on."""
        state, recipe = self.state, self.recipe
        figures = Epoch(epoch, state.loss_sum / state.seen, state.right / state.seen, *self._validate())
        watched = figures.train_loss if figures.validation_loss is None else figures.validation_loss
        is_best = state.best_loss is None or watched < state.best_loss
        if is_best:
            state.best_loss, state.best_epoch = watched, epoch
        has_reached = recipe.target_accuracy is not None and figures.train_accuracy > recipe.target_accuracy
        state.is_over = epoch + 1 >= recipe.epochs or epoch - state.best_epoch >= recipe.patience or has_reached
        state.loss_sum, state.right, state.seen = 0.0, 0, 0
        return step._replace(epoch=figures, is_best=is_best)

    def _validate(self) -> tuple[float | None, float | None]:
        """The same weighted loss, and the share told right, of the held-out images."""
        held_out, size = self.parts.validation, self.recipe.batch
        if not held_out:
            return None, None
        with torch.no_grad():
            logits = torch.cat(
                [
                    self.network.logits(self.network.late(self.source(held_out[start : start + size])))
                    for start in range(0, len(held_out), size)
                ]
            )
        labels = self.labels[held_out]
        loss = F.cross_entropy(logits, labels, weight=self.class_weights)
        return float(loss), float((logits.argmax(1) == labels).float().mean())
