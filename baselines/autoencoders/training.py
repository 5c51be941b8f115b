"""How an auto-encoder learns from good images: one loop, for the command and for a method inside a study alike.

A tenth of the images is held out. After every epoch the loss on them is taken, and the weights of the best epoch
count. Everything random is a pure function of seed, step and position in the batch, so a run that resumes from a
checkpoint ends in the very weights of one that was never stopped.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from baselines.autoencoders.augmentation import AUGMENTATIONS, standard_normal
from baselines.autoencoders.losses import loss_named
from baselines.contract.method import LEARNING_BATCH
from pretrain.command import UserError
from pretrain.training.best_weights import BestWeights
from pretrain.training.session import TIMED_STEPS, Session

HELD_OUT_SHARE = 0.1
# Of the epochs, those in which a pretrained backbone stays as it is, and the learning rate of all once it is free.
FROZEN_SHARE, UNFROZEN_LEARNING_RATE = 0.6, 1e-5
PLATEAU_FACTOR = 0.5

# (b, channels, h, w) by positions.
ImageSource = Callable[[Sequence[int]], Tensor]
# A Session of module and optimizer, whose label and run are chosen already.
OpenSession = Callable[..., Session]
Autocast = Callable[[], AbstractContextManager]


@dataclass(frozen=True)
class AutoEncoderRecipe:
    """How to train. `plateau` epochs without a better validation loss halve the learning rate, `patience` epochs end
    the training, 0 for never; a pretrained part is frozen for the share `frozen` of the epochs, the first ones."""

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

    def lasting(self, count: int, instances: int | None, min_steps: int = 0) -> "AutoEncoderRecipe":
        """The same for `count` images, so long that `instances` images are trained on, or, where none are asked for,
        that there are `min_steps`. Raises UserError for less than one epoch."""
        if instances is None:
            return replace(self, epochs=max(self.epochs, math.ceil(min_steps / self.steps_in_epoch(count))))
        if instances < count:
            raise UserError(f"{instances} instances are less than one look at each of {count} images: ask for more.")
        return replace(self, epochs=instances // count)


# As published: Bergmann et al. for the convolutional family (https://arxiv.org/abs/1807.02011).
PLAIN = AutoEncoderRecipe(loss="mse", epochs=100, batch=32, learning_rate=1e-3)
CONVOLUTIONAL = AutoEncoderRecipe(
    loss="ssim", epochs=100, batch=16, learning_rate=2e-4, weight_decay=1e-5, augmentation="affine"
)
INSPECTION = AutoEncoderRecipe(
    loss="mse", epochs=50, batch=16, learning_rate=1e-4, augmentation="flips", plateau=5, patience=10
)
RECIPES = {"ae": PLAIN, "vae": PLAIN, "inspection": INSPECTION}


def recipe_of(model: str, is_pretrained: bool = False, given: dict | None = None) -> AutoEncoderRecipe:
    """The recipe of an architecture, with what was `given` that is not none. A backbone with random weights is trained
    from the start: there is nothing in it to keep."""
    chosen = {name: value for name, value in (given or {}).items() if value is not None}
    return replace(RECIPES.get(model, CONVOLUTIONAL), frozen=FROZEN_SHARE if is_pretrained else 0.0, **chosen)


@dataclass
class EpochState:
    """What a checkpoint holds beside weights and steps."""

    learning_rate: float
    best_loss: float = math.inf
    best_epoch: int = 0
    is_over: bool = False


def split_positions(count: int, seed: int) -> tuple[list[int], list[int]]:
    """Positions of `count` images to learn from, and those of the tenth that is held out: one at least, none of one."""
    order = np.random.default_rng([seed, 0xAE]).permutation(count).tolist()
    held_out = max(1, round(HELD_OUT_SHARE * count)) if count > 1 else 0
    return sorted(order[held_out:]), sorted(order[:held_out])


def train(
    network: nn.Module,
    images: ImageSource,
    learned: Sequence[int],
    held_out: Sequence[int],
    recipe: AutoEncoderRecipe,
    seed: int,
    open_session: OpenSession,
    autocast: Autocast = nullcontext,
    minutes: float | None = None,
) -> nn.Module:
    """The network with the weights of its best epoch, in eval mode. `minutes` are turned into fewer epochs.

    Raises UserError where the loss is no longer a number, and Stopped where the session was asked to stop.
    """
    learner = BestWeights(network)
    optimizer = torch.optim.Adam(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    # A session that resumes puts network, optimizer and state back before the first step.
    state = EpochState(recipe.learning_rate)
    batch = min(recipe.batch, len(learned))
    steps_in_epoch = recipe.steps_in_epoch(len(learned))

    def train_step(step: int, epochs: int) -> Tensor:
        epoch, batch_number = divmod(step, steps_in_epoch)
        set_mode(network, optimizer, state.learning_rate, epoch < recipe.frozen * epochs, recipe)
        # Each epoch is a shuffle of its own, its incomplete last batch left out.
        order = np.random.default_rng([seed, epoch]).permutation(learned)
        batch_images = images(order[batch_number * batch :][:batch].tolist())
        batch_images = AUGMENTATIONS[recipe.augmentation](batch_images, seed, step)
        with autocast():  # the reconstruction becomes fp32 again before it is compared
            loss = losses(network, batch_images, recipe, (seed, step)).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    def timed_step(number: int, _: int) -> None:
        """With its share of an epoch's validation."""
        # Spread over the training: epochs are slower once a pretrained part is trained too.
        epoch = min(recipe.epochs - 1, int(number / TIMED_STEPS * recipe.epochs))
        train_step(epoch * steps_in_epoch, recipe.epochs)
        with autocast():
            validation_loss(network, images, (held_out or learned)[: -(-len(held_out) // steps_in_epoch) or 1], recipe)

    with open_session(learner, optimizer, state=state, describe=lambda figures: described(figures, state)) as session:
        if minutes and not session.steps:
            epochs = session.steps_within(minutes, timed_step) // steps_in_epoch
            session.steps = max(1, min(recipe.epochs, epochs)) * steps_in_epoch
        session.steps, session.is_over = session.steps or recipe.epochs * steps_in_epoch, state.is_over
        epochs = session.steps // steps_in_epoch
        for step in session:
            epoch, batch_number = divmod(step, steps_in_epoch)
            session.log(loss=train_step(step, epochs))
            if batch_number + 1 == steps_in_epoch and held_out:
                with autocast():
                    loss = validation_loss(network, images, held_out, recipe)
                end_epoch(learner, loss, epoch, recipe, state)
                session.record(epoch=epoch, validation=loss, learning_rate=state.learning_rate)
                session.is_over = state.is_over
        if session.step < session.steps:
            session.print(f"ended early at step {session.step}: nothing better since epoch {state.best_epoch}")
    if not held_out:  # the last weights count
        learner.keep()
    return learner.best.eval()


def described(figures: dict[str, float], state: EpochState) -> str:
    """What the progress bar shows of a step."""
    best = f", best held out {state.best_loss:.4g}" if math.isfinite(state.best_loss) else ""
    return f"loss {figures['loss']:.4g}{best}"


def losses(network: nn.Module, images: Tensor, recipe: AutoEncoderRecipe, key: tuple[int, int] | None = None) -> Tensor:
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
        noise = standard_normal(range(len(images)), network.latent, *key, "latent").to(images.device)
    restored, divergence = network.sampled(images, noise)
    weight = 1.0 if recipe.loss == "l2" else 1 / images[0].numel()
    return loss(restored.float(), images, recipe.window_px) + weight * divergence.float()


def set_mode(
    network: nn.Module, optimizer: Optimizer, learning_rate: float, is_frozen: bool, recipe: AutoEncoderRecipe
) -> None:
    """Training mode and learning rate; a pretrained part stays as it is while it is frozen, its statistics too."""
    network.train()
    pretrained = network.pretrained() if recipe.frozen else None
    if pretrained is not None:
        pretrained.requires_grad_(not is_frozen)
        for layer in pretrained.modules():
            if is_frozen and isinstance(layer, _BatchNorm):
                layer.eval()
        learning_rate = learning_rate if is_frozen else min(learning_rate, UNFROZEN_LEARNING_RATE)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


@torch.no_grad()
def validation_loss(
    network: nn.Module, images: ImageSource, held_out: Sequence[int], recipe: AutoEncoderRecipe
) -> float:
    """The mean loss of the held-out images, a VAE's from its means."""
    network.eval()
    batches = [held_out[start : start + LEARNING_BATCH] for start in range(0, len(held_out), LEARNING_BATCH)]
    return float(torch.cat([losses(network, images(batch), recipe) for batch in batches]).mean())


def end_epoch(learner: BestWeights, loss: float, epoch: int, recipe: AutoEncoderRecipe, state: EpochState) -> None:
    """Keep the weights if the held-out loss is the lowest so far; else lower the learning rate, or end the training."""
    if loss < state.best_loss:
        state.best_loss, state.best_epoch = loss, epoch
        learner.keep()
    since = epoch - state.best_epoch
    if recipe.plateau and since and since % recipe.plateau == 0:
        state.learning_rate *= PLATEAU_FACTOR
    state.is_over = bool(recipe.patience) and since >= recipe.patience
