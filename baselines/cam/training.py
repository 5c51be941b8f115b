"""How a CAM is trained: weighted cross-entropy, Adam, and an end where held-out images say so.

All that resuming needs is in the network, its best weights, the optimizer and `CamState`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.cam.network import CamNetwork
from baselines.contract.split import Split
from pretrain.command import UserError
from pretrain.training.best_weights import BestWeights
from pretrain.training.session import Session

# Of good and anomaly, as published.
CLASS_WEIGHTS = (1.0, 3.0)


@dataclass(frozen=True)
class CamRecipe:
    """`patience` is the number of epochs that may pass without a better one. With `target_accuracy` the training also
    ends once that share of an epoch's images was classified correctly, as in the published recipe."""

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
class CamState:
    """What a checkpoint holds beside weights and steps. Sums are over the images of the current epoch."""

    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    best_loss: float | None = None
    best_epoch: int = 0
    is_over: bool = False


class EpochFigures(NamedTuple):
    """Of a finished epoch; those of validation are none where nothing is held out."""

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None

    def described(self) -> str:
        line = f"epoch {self.epoch + 1}: loss {self.train_loss:.3f}, accuracy {self.train_accuracy:.1%}"
        if self.validation_loss is None:
            return line
        return line + f"; held out: loss {self.validation_loss:.3f}, accuracy {self.validation_accuracy:.1%}"


class CamTraining:
    """`source` gives, for positions of training images, what `network.early` makes of them, on the device."""

    def __init__(
        self, network: CamNetwork, source: Callable[[Sequence[int]], Tensor], split: Split, recipe: CamRecipe
    ) -> None:
        recipe.check()
        self.network, self.source, self.split, self.recipe, self.state = network, source, split, recipe, CamState()
        trained = [weights for weights in network.parameters() if weights.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=recipe.learning_rate)
        self.learner = BestWeights(network)  # what a session saves
        self.labels = split.labels.long().to(network.mean.device)
        self.class_weights = torch.tensor(CLASS_WEIGHTS, device=network.mean.device)
        self.steps_in_epoch = math.ceil(len(split.train) / recipe.batch)

    def train(self, open_session: Callable[..., Session]) -> Session:
        """Train until held-out images say so, at most the recipe's epochs; the session.

        Raises UserError if the loss is no longer a number, and Stopped where the session was asked to stop.
        """
        with open_session(self.learner, self.optimizer, state=self.state) as session:
            session.steps, session.is_over = self.recipe.epochs * self.steps_in_epoch, self.state.is_over
            for step in session:
                session.log(loss=self.step(step))
                epoch, batch_number = divmod(step, self.steps_in_epoch)
                if batch_number + 1 == self.steps_in_epoch:
                    figures = self.end_epoch(epoch)
                    session.record(**figures._asdict())
                    is_best = self.state.best_epoch == epoch
                    session.print(figures.described() + (", the best so far" if is_best else ""))
                    session.is_over = self.state.is_over
        return session

    def step(self, step: int) -> float:
        """Take a step; its loss."""
        epoch, batch_number = divmod(step, self.steps_in_epoch)
        # Each epoch is a shuffle of its own, a function of the seed and its number alone.
        order = np.random.default_rng([self.recipe.seed, epoch]).permutation(self.split.train)
        batch = order[batch_number * self.recipe.batch :][: self.recipe.batch].tolist()
        # Batch normalization, where it is trained, needs several images.
        self.network.train(len(batch) > 1)
        # Images are not augmented, so what the frozen layers give of each is the same in every epoch.
        logits = self.network.logits(self.network.late(self.source(batch)))  # (b, 2)
        loss = F.cross_entropy(logits, self.labels[batch], weight=self.class_weights)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        value, state = loss.item(), self.state  # on a GPU it waits, but a step is 40 images of 224 px
        state.loss_sum += value * len(batch)
        state.correct += int((logits.argmax(1) == self.labels[batch]).sum())
        state.seen += len(batch)
        return value

    def step_of(self, count: int) -> None:
        """A step of so many images, to learn what it takes; this training is over."""
        self.recipe = replace(self.recipe, batch=count)
        self.step(0)

    def end_epoch(self, epoch: int) -> EpochFigures:
        """Evaluate the held-out images, keep the weights if they are the best so far, and decide whether to go on."""
        state, recipe = self.state, self.recipe
        figures = EpochFigures(epoch, state.loss_sum / state.seen, state.correct / state.seen, *self.validate())
        # Without held-out images the training loss decides: of a handful of images nothing can be spared.
        watched = figures.train_loss if figures.validation_loss is None else figures.validation_loss
        if state.best_loss is None or watched < state.best_loss:
            state.best_loss, state.best_epoch = watched, epoch
            self.learner.keep()
        has_reached = recipe.target_accuracy is not None and figures.train_accuracy > recipe.target_accuracy
        # In the state, since a run that is killed now must not take another step when it resumes.
        state.is_over = epoch + 1 >= recipe.epochs or epoch - state.best_epoch >= recipe.patience or has_reached
        state.loss_sum, state.correct, state.seen = 0.0, 0, 0
        return figures

    @torch.no_grad()
    def validate(self) -> tuple[float | None, float | None]:
        """The same weighted loss, and the accuracy, of the held-out images; none where nothing is held out."""
        held_out, size = self.split.validation, self.recipe.batch
        if not held_out:
            return None, None
        self.network.eval()
        batches = [held_out[start : start + size] for start in range(0, len(held_out), size)]
        logits = torch.cat([self.network.logits(self.network.late(self.source(batch))) for batch in batches])  # (n, 2)
        labels = self.labels[held_out]
        loss = F.cross_entropy(logits, labels, weight=self.class_weights)
        return float(loss), float((logits.argmax(1) == labels).float().mean())
