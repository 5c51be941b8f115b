"""How fast views are made and networks trained, beside the bare step and lightly's stock loop."""

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from statistics import median

import torch

from pretrain.data.dataset import load
from pretrain.training.device import kernels
from pretrain.training.fabric import make_fabric
from pretrain.workers import usable_cores
from scripts.benchmarks.cache import make_images
from scripts.benchmarks.config import Pretrain
from scripts.benchmarks.parts.setting import Figures, Setting
from scripts.benchmarks.pretrain import Plain, Recipe, Turn, lightly_stock, ours, take_turns, views_alone
from scripts.benchmarks.rounds import speedup

# By its name in figures: ours, and the name of timm's that lightly's loop is given.
ARCHITECTURES = {
    "resnet18": ("resnet18", "resnet18"),
    "resnet50": ("resnet50", "resnet50"),
    "lite0": ("efficientnet_lite0", "tf_efficientnet_lite0"),
    "vit_small": ("timm/vit_small_patch16_224", "vit_small_patch16_224"),
}
TINY = {"lite0": ("efficientnet_lite0", "tf_efficientnet_lite0"), "vit": ("timm/test_vit", "test_vit")}


def sizes(setting: Setting) -> Pretrain:
    usual = Pretrain(rounds=3, steps=8, batch=256, size_px=224, device=setting.device)
    return setting.size(usual, Pretrain(rounds=1, steps=1, batch=4, size_px=32, device=setting.device))


def views(setting: Setting) -> Iterator[Figures]:
    """Views a second, nothing else: by kornia as it is, by kornia with color compiled, and by the fast path."""
    config = sizes(setting)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (config.batch, 2 * config.size_px, 2 * config.size_px, 3), generator=generator)
    pixels = pixels.to(torch.uint8).to(setting.device)
    for name in ("kornia", "fast", "kornia compiled"):
        if setting.is_tiny and "compiled" in name:  # a minute of compiling
            continue
        turn = views_alone(Plain(size_px=config.size_px), config, pixels, *name.split())
        seconds, _ = take_turns(config.rounds, {name: turn})
        yield {f"views_per_s {name}": 2 * config.steps * config.batch / median(seconds[name])}


def training(setting: Setting) -> Iterator[Figures]:
    """Images a second of ours, of the bare step, and of lightly's loop, for each network, in turn."""
    config = sizes(setting)
    os.environ["HELDOUT_CACHE"] = str(setting.folder / "cache")
    files = make_images(setting.folder / "png" / "product" / "train" / "good", config.steps * config.batch, 256)
    fabric = make_fabric(setting.device, None)
    images = load(setting.folder / "png", 2 * config.size_px, normals_only=True)
    workers = setting.size(usable_cores(), 0)
    for name, (architecture, theirs) in setting.size(ARCHITECTURES, TINY).items():
        # A small ViT of the trial takes images of one size alone.
        size_px = 160 if architecture == "timm/test_vit" else config.size_px
        own = replace(config, size_px=size_px)
        recipe = Plain(architecture=architecture, start="random", batch=config.batch, size_px=size_px)
        contestants = {"ours": partial(ours, recipe, own, images, fabric)}
        fast = replace(recipe, views="fast")  # which of the two ways ought to be the default, this says
        contestants["ours, fast views"] = partial(ours, fast, own, images, fabric)
        contestants["bare step"] = partial(ours, recipe, own, images, fabric, is_bare=True)
        if name == "lite0":
            default = Recipe(batch=config.batch, size_px=size_px, learning_rate=1e-3)
            contestants["our default recipe"] = partial(ours, default, own, images, fabric)
        if not setting.is_tiny:
            contestants["bare step, compiled"] = partial(ours, recipe, own, images, fabric, is_bare=True, compiled=True)
        contestants["lightly"] = partial(lightly_stock, own, files[0].parent, workers, theirs)
        yield from _compared(name, config, contestants)


def _compared(name: str, config: Pretrain, contestants: dict[str, partial]) -> Iterator[Figures]:
    with kernels(deterministic=False):
        turns: dict[str, Turn] = {who: make() for who, make in contestants.items()}
        seconds, _ = take_turns(config.rounds, turns)
    images = config.steps * config.batch
    yield {f"images_per_s {name}, {who}": images / median(measured) for who, measured in seconds.items()}
    yield {
        f"views_per_s {name}": 2 * images / median(seconds["ours"]),
        f"over_bare {name}": speedup(seconds["ours"], seconds["bare step"]),
        f"over_bare {name}, fast views": speedup(seconds["ours, fast views"], seconds["bare step"]),
        f"over_lightly {name}": speedup(seconds["ours"], seconds["lightly"]),
    }
