"""What a pretraining run is to be: options checked and completed, images chosen, its length in steps."""

import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn
from torch.optim import Optimizer

from pretrain.command import Names, UserError
from pretrain.data.dataset import ImageSet, load
from pretrain.data.images import category_folders, check_names

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from pretrain.simclr import Config

HELD_OUT_BY_DEFAULT = Names("bottle,pill,wood")
MIN_PX = 32
TIMED_STEPS = 4

ABOVE_ZERO = ("cache_px", "batch", "epochs", "steps", "minutes", "learning_rate", "temperature", "monitor_every")
NOT_BELOW_ZERO = ("weight_decay", "whole_weight", "dense_weight", "jitter", "checkpoint_minutes", "seed")
SHARES = ("gray", "blur", "warmup")


def check(config: "Config") -> None:
    """Raise UserError for a value with which nothing could be learned."""
    rules = {
        **{name: (lambda value: value > 0, "above 0") for name in ABOVE_ZERO},
        **{name: (lambda value: value >= 0, "0 or more") for name in NOT_BELOW_ZERO},
        **{name: (lambda value: 0 <= value < 1, "from 0 to below 1") for name in SHARES},
        "crop_area_min": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
        "size_px": (lambda value: value >= MIN_PX, f"{MIN_PX} or more"),
    }
    for name, (is_allowed, allowed) in rules.items():
        value = getattr(config, name)
        if value is not None and not is_allowed(value):
            raise UserError(f"--{name.replace('_', '-')} must be {allowed}, not {value}.")
    if not config.whole_weight and not config.dense_weight:
        raise UserError("with --whole-weight 0 and --dense-weight 0 there is nothing to learn: raise one of them.")


def prepared(config: "Config", folder: Path, fabric: "Fabric") -> tuple["Config", ImageSet, ImageSet]:
    """Every default resolved, the normals to learn from, and a tenth of them that is only looked at."""
    check(config)
    found = category_folders(folder)
    if config.hold_out is None:
        held_out = Names(name for name in HELD_OUT_BY_DEFAULT if name in found)
    else:
        held_out = config.hold_out
        check_names(held_out, found, f"category in {folder}")
    categories = [name for name in sorted(found) if name not in held_out]
    if not categories:
        raise UserError(f"all categories of {folder} are held out ({held_out}): leave one to learn from.")
    config = resolved(replace(config, data=folder, hold_out=held_out), fabric)
    images = load(folder, config.cache_px, categories, normals_only=True)
    parts = images.split({"learned from": 0.9, "unseen": 0.1}, seed=0)
    if len(parts["unseen"]) < 2:  # too few to spare any: those that are learned from are looked at
        parts = dict.fromkeys(parts, images)
    learned_from = parts["learned from"]
    batch = min(config.batch, len(learned_from)) // fabric.world_size * fabric.world_size
    if batch < 2 * fabric.world_size:
        raise UserError(
            f"{len(learned_from)} images are too few for {fabric.world_size} processes of two or more each."
        )
    return replace(config, batch=batch), learned_from, parts["unseen"]


def resolved(config: "Config", fabric: "Fabric") -> "Config":
    """What was left open, chosen for the machine."""
    on_gpu = fabric.device.type == "cuda"
    size_px = config.size_px or (224 if on_gpu else 128)
    batch = config.batch or (256 if on_gpu else 32)
    lars_rate = 0.075 * math.sqrt(batch)  # SimCLR's own for small batches
    rates = {"adamw": 1e-3, "lars": lars_rate, "sgd": lars_rate / 4}
    return replace(
        config,
        size_px=size_px,
        batch=batch,
        cache_px=config.cache_px or min(2 * size_px, 512),
        epochs=config.epochs or (100 if on_gpu else 8),
        learning_rate=config.learning_rate or rates[config.optimizer],
        precision=fabric.strategy.precision.precision,
        device=fabric.device.type,
    )


def length_in_steps(
    config: "Config",
    count: int,
    train_step: Callable[[int, int], object],
    module: nn.Module,
    optimizer: Optimizer,
    fabric: "Fabric",
) -> int:
    """Steps asked for, or those that fit into the minutes, found by taking some and undoing them."""
    if config.steps:
        return config.steps
    if not config.minutes:
        return config.epochs * (count // config.batch)
    return fabric.broadcast(steps_in(config.minutes, train_step, module, optimizer))


def steps_in(minutes: float, train_step: Callable[[int, int], object], module: nn.Module, optimizer: Optimizer) -> int:
    """How many steps fit into some minutes. Takes a few, and undoes them."""
    before = deepcopy((module.state_dict(), optimizer.state_dict()))
    train_step(0, 1000)  # the first one allocates and warms caches
    start_s = time.monotonic()
    for step in range(1, 1 + TIMED_STEPS):
        train_step(step, 1000)
    seconds = (time.monotonic() - start_s) / TIMED_STEPS
    module.load_state_dict(before[0])
    optimizer.load_state_dict(before[1])
    return max(1, round(60 * minutes / seconds))
