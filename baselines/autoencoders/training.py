"""How an auto-encoder learns from good images: one loop, for the command and for a method inside a study alike.

A tenth of the images is held out. After every epoch the loss on them is taken, and the weights of the best epoch
count. Everything random is a pure function of seed, step and place in the batch, so a run that goes on from a
checkpoint ends in the very weights of one that was never stopped.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from baselines.autoencoders.augmentation import AUGMENTATIONS, normals
from baselines.autoencoders.losses import loss_named
from baselines.contract.method import LEARNING_BATCH
from pretrain.command import UserError

if TYPE_CHECKING:
    from baselines.autoencoders.journal import Journal

HELD_OUT_SHARE = 0.1
# What a frozen backbone is trained with once it is free, and all that stands on it.
FREE_LEARNING_RATE = 1e-5
PLATEAU_FACTOR = 0.5

ImageSet = Callable[[Sequence[int]], Tensor]


@dataclass(frozen=True)
class Recipe:
    """How to train. `plateau` epochs without a better validation loss halve the learning rate, `patience` epochs end
    the training, 0 for never; a pretrained part is frozen for the first `frozen` of the epochs."""

    loss: str = "mse"
    window_px: int = 11
    epochs: int = 100
    batch: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    augmentation: str = "none"
    plateau: int = 0
    patience: int = 0
    frozen: float = 0.0

    def steps_in_epoch(self, count: int) -> int:
        return count // min(self.batch, count)

    def lasting(self, count: int, instances: int | None, least_steps: int = 0) -> "Recipe":
        """The same for `count` images, so long that `instances` images are looked at, or, where none are asked for,
        that there are `least_steps`. Raises UserError for less than one epoch."""
        if instances is None:
            return replace(self, epochs=max(self.epochs, math.ceil(least_steps / self.steps_in_epoch(count))))
        if instances < count:
            raise UserError(f"{instances} instances are less than one look at each of {count} images: ask for more.")
        return replace(self, epochs=instances // count)


@dataclass
class Standing:
    """How far a training is: what a checkpoint holds beside weights."""

    step: int = 0
    learning_rate: float = 0.0
    best_loss: float = math.inf
    best_epoch: int = 0
    seconds: float = 0.0
    is_over: bool = False


class Learner(nn.Module):
    """A network in training and the best one so far, which is what counts in the end."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.best = copy.deepcopy(network).requires_grad_(False)

    def keep(self) -> None:
        self.best.load_state_dict(self.network.state_dict())


def split(count: int, seed: int) -> tuple[list[int], list[int]]:
    """Positions of `count` images to learn from, and of the tenth that is held out: one at least, none of one."""
    order = np.random.default_rng([seed, 0xAE]).permutation(count).tolist()
    held_out = max(1, round(HELD_OUT_SHARE * count)) if count > 1 else 0
    return sorted(order[held_out:]), sorted(order[:held_out])


def train(
    network: nn.Module,
    images: ImageSet,
    learned: Sequence[int],
    held_out: Sequence[int],
    recipe: Recipe,
    seed: int,
    journal: "Journal",
) -> nn.Module:
    """The network with the weights of its best epoch, in eval mode. `images` gives (b, channels, h, w) by positions.

    Raises UserError where the loss is no longer a number, and `Stopped` where the journal says so.
    """
    learner = Learner(network)
    optimizer = torch.optim.Adam(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    standing = journal.restored(learner, optimizer) or Standing(learning_rate=recipe.learning_rate)
    batch = min(recipe.batch, len(learned))
    an_epoch = recipe.steps_in_epoch(len(learned))
    steps = recipe.epochs * an_epoch
    with journal.following(standing, steps, batch):
        while standing.step < steps and not standing.is_over:
            epoch, turn = divmod(standing.step, an_epoch)
            set_mode(network, optimizer, standing.learning_rate, epoch < recipe.frozen * recipe.epochs, recipe)
            # Each epoch is a shuffle of its own, its incomplete last batch left out.
            order = np.random.default_rng([seed, epoch]).permutation(learned)
            batch_images = images(order[turn * batch :][:batch].tolist())
            batch_images = AUGMENTATIONS[recipe.augmentation](batch_images, seed, standing.step)
            with journal.autocast():
                loss = losses(network, batch_images, recipe, (seed, standing.step)).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            journal.note(standing, loss.detach())
            standing.step += 1
            if turn + 1 == an_epoch:
                judge_epoch(learner, images, held_out, recipe, standing, epoch, journal)
            journal.save_if_due(standing, learner, optimizer)
    if not held_out:
        learner.keep()
    return learner.best.eval()


def losses(network: nn.Module, images: Tensor, recipe: Recipe, key: tuple[int, int] | None = None) -> Tensor:
    """The loss of each image: (b, channels, h, w) -> (b,). A VAE draws its samples from `key`, seed and step; without
    it the means are decoded.

    To a squared error that is summed over pixels the divergence is added as it is. To a mean it is added divided by as
    many: else it would weigh as much as all pixels 49,152 times, and every image would be given the same code.
    """
    loss = loss_named(recipe.loss)
    if not hasattr(network, "sampled"):
        return loss(network(images).float(), images, recipe.window_px)
    noise = images.new_zeros(len(images), network.latent)
    if key is not None:
        noise = normals(range(len(images)), network.latent, *key, "latent").to(images.device)
    restored, divergence = network.sampled(images, noise)
    weight = 1.0 if recipe.loss == "l2" else 1 / images[0].numel()
    return loss(restored.float(), images, recipe.window_px) + weight * divergence.float()


def set_mode(network: nn.Module, optimizer, learning_rate: float, is_frozen: bool, recipe: Recipe) -> None:
    """Training mode and learning rate; a pretrained part stays as it is while it is frozen, its statistics too."""
    network.train()
    pretrained = network.pretrained() if recipe.frozen else None
    if pretrained is not None:
        pretrained.requires_grad_(not is_frozen)
        for layer in pretrained.modules():
            if is_frozen and isinstance(layer, _BatchNorm):
                layer.eval()
        learning_rate = learning_rate if is_frozen else min(learning_rate, FREE_LEARNING_RATE)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


@torch.no_grad()
def judge_epoch(
    learner: Learner,
    images: ImageSet,
    held_out: Sequence[int],
    recipe: Recipe,
    standing: Standing,
    epoch: int,
    journal: "Journal",
) -> None:
    """The loss on the held-out images, and what follows from it. Without any, the last weights count."""
    if not held_out:
        return
    learner.network.eval()
    parts = []
    for start in range(0, len(held_out), LEARNING_BATCH):
        with journal.autocast():
            parts.append(losses(learner.network, images(held_out[start : start + LEARNING_BATCH]), recipe))
    loss = float(torch.cat(parts).mean())
    if not math.isfinite(loss):
        raise not_a_number(standing.step)
    if loss < standing.best_loss:
        standing.best_loss, standing.best_epoch = loss, epoch
        learner.keep()
    since = epoch - standing.best_epoch
    if recipe.plateau and since and since % recipe.plateau == 0:
        standing.learning_rate *= PLATEAU_FACTOR
    standing.is_over = bool(recipe.patience) and since >= recipe.patience
    journal.log(standing.step - 1, epoch=epoch, validation=loss, learning_rate=standing.learning_rate)


def not_a_number(step: int) -> UserError:
    return UserError(f"the loss is not a number any more at step {step}: lower the learning rate, and start anew.")
