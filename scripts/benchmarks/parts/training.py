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
from scripts.benchmarks.parts.setting import Figures, Setting, left_out
from scripts.benchmarks.pretrain import Plain, Recipe, Turn, Waits, lightly_stock, ours, take_turns, views_alone
from scripts.benchmarks.rounds import speedup

# By its name in figures: ours, and the name of timm's that lightly's loop is given.
ARCHITECTURES = {
    "resnet18": ("resnet18", "resnet18"),
    "resnet50": ("resnet50", "resnet50"),
    "lite0": ("efficientnet_lite0", "tf_efficientnet_lite0"),
    "vit_small": ("timm/vit_small_patch16_224", "vit_small_patch16_224"),
}
TINY = {"lite0": ("timm/test_resnet", "test_resnet"), "vit_small": ("timm/test_vit", "test_vit")}
# What is compiled in a trial is run as it is: inductor takes a minute, and what may fail comes before it.
COMPILERS = ("inductor", "eager")


def sizes(setting: Setting) -> Pretrain:
    usual = Pretrain(rounds=3, steps=8, batch=256, size_px=224, device=setting.device)
    return setting.size(usual, Pretrain(rounds=1, steps=1, batch=4, size_px=32, device=setting.device))


def views(setting: Setting) -> Iterator[Figures]:
    """Views a second, nothing else: by kornia as it is, by kornia with color compiled, and by the fast path."""
    config = sizes(setting)
    generator = torch.Generator().manual_seed(0)
    shape = (config.batch, 2 * config.size_px, 2 * config.size_px, 3)
    pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(setting.device)
    for name in ("kornia", "fast", "kornia compiled"):
        if setting.is_over:
            yield left_out(f"views by {name}")
            continue
        compiler = setting.size(*COMPILERS) if "compiled" in name else None
        turn = views_alone(Plain(size_px=config.size_px), config, pixels, name.split()[0], compiler)
        seconds, _ = take_turns(config.rounds, {name: turn})
        yield {f"views_per_s {name}": 2 * config.steps * config.batch / median(seconds[name])}


def training(setting: Setting) -> Iterator[Figures]:
    """Images a second of ours, of the bare step, and of lightly's loop, for each network, in turn; then of the bare
    step compiled."""
    config = sizes(setting)
    os.environ["HELDOUT_CACHE"] = str(setting.folder / "cache")
    files = make_images(setting.folder / "png" / "product" / "train" / "good", config.steps * config.batch, 256)
    fabric = make_fabric(setting.device, None)
    images = load(setting.folder / "png", 2 * config.size_px, normals_only=True)
    workers = setting.size(usable_cores(), 0)
    for name, (architecture, theirs) in setting.size(ARCHITECTURES, TINY).items():
        if setting.is_over:
            yield left_out(f"training {name}")
            continue
        recipe, own = _recipe(architecture, config)
        fast, waits = replace(recipe, views="fast"), Waits(fabric.device)
        contestants = {
            "ours": partial(ours, recipe, own, images, fabric, waits=waits),
            "ours, fast views": partial(ours, fast, own, images, fabric),  # the default ought to be the faster of both
            "bare step": partial(ours, recipe, own, images, fabric, is_bare=True),
        }
        if name == "lite0":
            default = Recipe(batch=config.batch, size_px=own.size_px, learning_rate=1e-3)
            contestants["our default recipe"] = partial(ours, default, own, images, fabric)
        contestants["lightly"] = partial(lightly_stock, own, files[0].parent, workers, theirs)
        yield from _compared(name, own, contestants, setting)
        # What of a step is the CPU's: until its images lie on the GPU, this has nothing to do.
        yield {f"cpu_share {name}": waits.share()}
    for name, (architecture, _) in setting.size(ARCHITECTURES, {"lite0": TINY["lite0"]}).items():
        if setting.is_over:  # each takes a minute to compile
            yield left_out(f"{name} compiled")
            continue
        recipe, own = _recipe(architecture, config)
        bare = {compiler: partial(ours, recipe, own, images, fabric, is_bare=True, compiler=compiler)
                for compiler in (None, setting.size(*COMPILERS))}  # fmt: skip
        with kernels(deterministic=False):
            seconds, _ = take_turns(config.rounds, {str(compiler): make() for compiler, make in bare.items()})
        plain, compiled = seconds.values()
        yield {f"compiled_over_bare {name}": speedup(compiled, plain)}


def _recipe(architecture: str, config: Pretrain) -> tuple[Plain, Pretrain]:
    """SimCLR alone with a network, and the sizes for it: a small ViT of the trial takes images of one size."""
    size_px = 160 if architecture == "timm/test_vit" else config.size_px
    recipe = Plain(architecture=architecture, start="random", batch=config.batch, size_px=size_px)
    return recipe, replace(config, size_px=size_px)


def _compared(name: str, config: Pretrain, contestants: dict[str, partial], setting: Setting) -> Iterator[Figures]:
    """After every round, as long as there is time for another."""
    images, seconds = config.steps * config.batch, {}
    with kernels(deterministic=False):
        turns: dict[str, Turn] = {who: make() for who, make in contestants.items()}
        for number in range(config.rounds):
            if number and setting.is_over:
                yield left_out(f"rounds with {name}", f"{number} of {config.rounds} are counted")
                return
            measured, _ = take_turns(1, turns, warm_up=not number)
            seconds = {who: [*seconds.get(who, ()), *new] for who, new in measured.items()}
            yield {f"images_per_s {name}, {who}": images / median(each) for who, each in seconds.items()} | {
                f"views_per_s {name}": 2 * images / median(seconds["ours"]),
                f"over_bare {name}": speedup(seconds["ours"], seconds["bare step"]),
                f"over_bare {name}, fast views": speedup(seconds["ours, fast views"], seconds["bare step"]),
                f"over_lightly {name}": speedup(seconds["ours"], seconds["lightly"]),
            }
