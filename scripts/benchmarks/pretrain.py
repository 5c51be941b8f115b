"""How fast SimCLR trains, beside lightly's stock way on the same files and beside the bare training step.

    python scripts/benchmarks/pretrain.py            # about ten minutes on two cores; makes its own PNGs
    python scripts/benchmarks/pretrain.py --quick    # about a minute: fewer and smaller steps, a rough answer
    python scripts/benchmarks/pretrain.py --check    # exit code 1 where a target is missed
    python scripts/benchmarks/pretrain.py --size-px 128 --batch 32 --rows "our default,2 stages,3 stages"

All train on the same images in batches of the same size, two views of each, on the same threads: lightly as in its
tutorial, in fp32, with no workers and with one for each core, of which the better counts; ours as plain SimCLR with the
same strengths and optimizer, in the precision chosen for the machine and in fp32, from a cache whose building is
measured too; the bare step, on views made once; our default recipe, which does more; and that with two or three
stages frozen and their maps cached, computed before the first round. What differs by design:
lightly cuts views from the file's pixels, ours from a cache of twice the view's side. Measure on an idle machine:
beside another busy process bf16 on two cores was up to 11 times slower than fp32, on one core 1.6 times faster.

Targets: 1.6 times lightly's images/s from 256 px PNGs, 5 times from 1024 px PNGs, 85 % of the bare step's; with three
stages cached 3 times those of the default recipe. On a GPU,
WHERE THIS HAS NEVER RUN: 80 % of the bare step's, 15,000 views/s with ResNet-18 and 4,300 with ResNet-50.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from pretrain.command import start
    from scripts.benchmarks.config import Pretrain

    start("scripts.benchmarks.pretrain:main", Pretrain)

import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice, product
from pathlib import Path
from statistics import median

import numpy as np
import timm
import torch
import torchvision
from lightly import data, loss, transforms
from lightly.models.modules import SimCLRProjectionHead
from lightning_fabric import Fabric
from torch import Tensor

from pretrain import views
from pretrain.config import Config as Recipe
from pretrain.config import Strengths
from pretrain.data.dataset import ImageSet, load
from pretrain.encoder import make_encoder
from pretrain.frozen_stages import CachedMaps
from pretrain.simclr import SimCLR, batch_members, make_optimizer, make_views, train_mode
from pretrain.training.device import DeviceImages
from pretrain.training.fabric import make_fabric, rank_positions
from scripts.benchmarks.cache import build, make_images
from scripts.benchmarks.config import Pretrain
from scripts.benchmarks.rounds import finish, in_rounds, speedup

SOURCES_PX = (256, 1024)
TARGETS = {
    "cpu": {"over_lightly_256": 1.6, "over_lightly_1024": 5.0, "over_bare": 0.85, "3_cached_over_full": 3.0},
    "cuda": {"over_bare": 0.8, "over_bare_resnet50": 0.8, "views_per_s": 15_000, "views_per_s_resnet50": 4_300},
}
FROZEN = (2, 3)
EPOCHS = 8  # the default length of a training on a CPU, over which building the cache is counted in
CORES = os.cpu_count() or 1
# What a contestant does when it is its turn. Gives a last number, a loss where it trains, and so waits for the device.
Turn = Callable[[], float]


@dataclass(frozen=True)
class Plain(Recipe):
    """SimCLR and nothing else, with the strengths of lightly's transform and the optimizer of its tutorial."""

    optimizer: str = "sgd"
    learning_rate: float = 0.06
    weight_decay: float = 5e-4
    temperature: float = 0.5
    image_weight: float = 1.0
    dense_weight: float = 0.0
    synthetic_negatives: bool = False

    @property
    def strengths(self) -> Strengths:
        return Strengths()


def main(config: Pretrain) -> int:
    fabric, in_fp32 = make_fabric(config.device, None), make_fabric(config.device, "32-true")
    config = sized(config, fabric.device.type)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as maps:
        turns = contestants(config, Path(folder), fabric, in_fp32, maps)
        if config.rows:
            turns = {name: turn for name, turn in turns.items() if name.startswith(config.rows)}
        seconds, last = take_turns(config.rounds, turns)
    figures = figures_of(config, seconds)
    targets = {name: target for name, target in TARGETS[config.device].items() if name in figures or not config.rows}
    losses = {name: last[name] for name in turns if not name.startswith(("cache", "views"))}
    missed = [f"a finite loss of {name}" for name, loss in losses.items() if not math.isfinite(loss)]

    precision, taken = fabric.strategy.precision.precision, config.steps * config.batch
    lines = [
        f"{taken} PNGs, views of {config.size_px} px, batch {config.batch}, {config.device}, ours in {precision},",
        f"medians of {config.rounds} interleaved rounds",
        f"  {'images/s':28}" + "".join(f"{f'from {px} px':>15}" for px in SOURCES_PX),
    ]
    for label in dict.fromkeys(name.rpartition(" ")[0] for name in turns if not name.startswith("views")):
        rates = (figures["per_s"].get(f"{label} {px}", math.nan) for px in SOURCES_PX)
        lines.append(f"  {label:28}" + "".join(f"{rate:15.1f}" for rate in rates))
    views = [name for name in turns if name.startswith("views")]
    lines += [f"  {name:28}{figures['per_s'][name]:15.0f} views/s, nothing else" for name in views]
    numbers = [name for name, figure in figures.items() if isinstance(figure, float) and name not in targets]
    lines += [f"  {name:28}{figures[name]:15.2f}" for name in numbers]
    if config.device == "cpu":
        lines.append("  nothing here ran on a GPU, nor was torch.compile measured")
    figures |= {"last_losses": losses, "precision": precision}
    packages = ("torch", "torchvision", "lightly", "kornia", "pillow")
    return finish("pretrain", config, lines, figures, at_least=targets, packages=packages, missed=missed)


def sized(config: Pretrain, device: str) -> Pretrain:
    """What was left open, chosen for the machine. With one step for each core, all of lightly's workers get a batch."""
    batch, size_px = (256, 224) if device == "cuda" else (32 if config.quick else 64, 64)
    rounds, steps = (2, 2) if config.quick else (5, max(8, CORES))
    sizes = {"rounds": rounds, "steps": steps, "batch": batch, "size_px": size_px}
    return replace(config, device=device, **{name: getattr(config, name) or value for name, value in sizes.items()})


def contestants(config: Pretrain, parent: Path, fabric: Fabric, in_fp32: Fabric, maps: ExitStack) -> dict[str, Turn]:
    """Named "WHAT SOURCE_PX"; those that are compared with each other stand side by side. `maps` closes the files."""
    on_gpu = config.device == "cuda"
    sizes = {"batch": config.batch, "size_px": config.size_px, "cache_px": 2 * config.size_px, "device": config.device}
    plain, default = Plain(**sizes), Recipe(**sizes, learning_rate=1e-3)
    recipes = {"": plain, " resnet50": replace(plain, architecture="resnet50")} if on_gpu else {"": plain}
    turns: dict[str, Turn] = {}
    for px in SOURCES_PX:
        folder = parent / str(px)
        paths = make_images(folder / "product" / "train" / "good", config.steps * config.batch, px)
        os.environ["HELDOUT_CACHE"] = str(parent / "cache")
        images = load(folder, plain.cache_px, normals_only=True)
        os.environ["HELDOUT_CACHE"] = str(parent / "cache_built_again")
        turns[f"cache built {px}"] = partial(build, paths, plain.cache_px)
        for workers in (CORES,) if on_gpu else (0, CORES):
            turns[f"lightly {workers} workers {px}"] = lightly_stock(config, paths[0].parent, workers)
        for kind, recipe in recipes.items():
            turns[f"ours{kind} {px}"] = ours(recipe, config, images, fabric)
            turns[f"bare step{kind} {px}"] = ours(recipe, config, images, fabric, is_bare=True)
        turns[f"ours in fp32 {px}"] = ours(plain, config, images, in_fp32)
        turns[f"our default recipe {px}"] = ours(default, config, images, fabric)
        for stages in FROZEN:
            frozen = replace(default, freeze_stages=stages, cached_views=1, out=parent)
            turns[f"{stages} stages cached {px}"] = ours(frozen, config, images, fabric, maps=maps)
    pixels = DeviceImages(images, fabric.device)(range(config.batch))
    for backend in ("fast", "kornia"):
        turns[f"views {backend}"] = views_alone(plain, config, pixels, backend)
    if on_gpu:
        turns["views kornia compiled"] = views_alone(plain, config, pixels, "kornia", "inductor")
    return turns


def take_turns(
    rounds: int, turns: dict[str, Turn], *, warm_up: bool = True
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of every turn, and the last number of each contestant."""
    last: dict[str, float] = {}

    def timed(name: str) -> float:
        start_s = time.perf_counter()
        last[name] = turns[name]()
        return time.perf_counter() - start_s

    return in_rounds(rounds, {name: partial(timed, name) for name in turns}, warm_up=warm_up), last


def figures_of(config: Pretrain, seconds: dict[str, list[float]]) -> dict:
    """Rates from medians over the rounds; ratios are medians of each round's own."""
    images = config.steps * config.batch
    usual = {name: median(measured) for name, measured in seconds.items()}

    made = {name: 2 * images if name.startswith("views") else images for name in usual}
    figures: dict = {"per_s": {name: made[name] / each_s for name, each_s in usual.items()}}
    for px in SOURCES_PX if not config.rows else ():
        stock = min((name for name in usual if name.startswith("lightly") and name.endswith(f" {px}")), key=usual.get)
        ours_s, stock_s, build_s = usual[f"ours {px}"], usual[stock], usual[f"cache built {px}"]
        figures[f"better_lightly_{px}"] = stock
        figures[f"over_lightly_{px}"] = speedup(seconds[f"ours {px}"], seconds[stock])
        figures[f"fp32_over_lightly_{px}"] = speedup(seconds[f"ours in fp32 {px}"], seconds[stock])
        figures[f"with_build_over_lightly_{px}"] = EPOCHS * stock_s / (build_s + EPOCHS * ours_s)
        figures[f"cache_build_s_{px}"] = build_s
    for stages in FROZEN:
        full, cached = (
            [turn_s for px in SOURCES_PX for turn_s in seconds.get(f"{who} {px}", [])]
            for who in ("our default recipe", f"{stages} stages cached")
        )
        if full and len(full) == len(cached):
            figures[f"{stages}_cached_over_full"] = speedup(cached, full)
    if config.rows:
        return figures
    for kind in ("", " resnet50") if config.device == "cuda" else ("",):
        name = kind.replace(" ", "_")
        ours_s, bare_s = (
            [turn_s for px in SOURCES_PX for turn_s in seconds[f"{who}{kind} {px}"]] for who in ("ours", "bare step")
        )
        figures[f"over_bare{name}"] = speedup(ours_s, bare_s)
        figures[f"views_per_s{name}"] = median(2 * images / usual[f"ours{kind} {px}"] for px in SOURCES_PX)
    return figures


def lightly_stock(config: Pretrain, files: Path, workers: int, architecture: str = "resnet18") -> Turn:
    """One epoch as in lightly's tutorial on SimCLR, on any backbone of timm's. A turn begins and ends with empty
    queues, so that its workers neither start with batches that nobody paid for nor disturb whoever comes next."""
    on_gpu = config.device == "cuda"
    dataset = data.LightlyDataset(str(files), transform=transforms.SimCLRTransform(input_size=config.size_px))
    queue = {"num_workers": workers, "persistent_workers": workers > 0, "pin_memory": on_gpu}
    loader = torch.utils.data.DataLoader(dataset, config.batch, shuffle=True, drop_last=True, **queue)
    torch.manual_seed(0)
    if architecture == "resnet18":  # the tutorial's
        backbone, width = torchvision.models.resnet18(), 512
        backbone.fc = torch.nn.Identity()
    else:
        backbone = timm.create_model(architecture, num_classes=0)
        width = backbone.num_features
    model = torch.nn.Sequential(backbone, SimCLRProjectionHead(width, width, 128)).to(config.device)
    criterion = loss.NTXentLoss(temperature=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06, momentum=0.9, weight_decay=5e-4)

    def epoch() -> float:
        for (first, second), _, _ in loader:
            first, second = (views.to(config.device, non_blocking=on_gpu) for views in (first, second))
            last = criterion(model(first), model(second))
            last.backward()
            optimizer.step()
            optimizer.zero_grad()
        return last.item()

    return epoch


class Waits:
    """What share of a turn a device waited for the images of its steps: from the end of the step before until they lie
    there, by its own clock."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu, self._marks = device.type == "cuda", []

    def begin(self) -> None:
        self._marks.clear()

    def mark(self) -> None:
        """Before the images are asked for, and again when they are there; at last at the end."""
        mark = torch.cuda.Event(enable_timing=True) if self._on_gpu else time.perf_counter()
        if self._on_gpu:
            mark.record()
        self._marks.append(mark)

    def share(self) -> float:
        if self._on_gpu:
            torch.cuda.synchronize()
        first, *_ = self._marks
        seconds = [first.elapsed_time(mark) if self._on_gpu else mark - first for mark in self._marks]
        return sum(after - before for before, after in zip(seconds[:-1:2], seconds[1::2], strict=True)) / seconds[-1]


def ours(
    recipe: Recipe,
    config: Pretrain,
    images: ImageSet,
    fabric: Fabric,
    is_bare: bool = False,
    compiler: str | None = None,
    waits: Waits | None = None,
    maps: ExitStack | None = None,
) -> Turn:
    """The next steps of a training as `pretrain/simclr.py` makes them, nothing prepared before a turn but the frozen
    stages' maps, kept until `maps` closes; or with `is_bare` on views made once: with this network and loss nothing can
    train faster. `compiler` is torch.compile's for the encoder; `waits` are told when images are asked for and come."""
    encoder = make_encoder(recipe.architecture, recipe.start, seed=recipe.seed, input_size_px=recipe.size_px)
    torch.manual_seed(recipe.seed)
    weights = recipe.image_weight, recipe.dense_weight
    module = SimCLR(encoder, *weights, recipe.temperature, recipe.freeze_stages)
    if compiler:
        module.encoder.stages.compile(backend=compiler)
    fused = fabric.device.type == "cuda"
    optimizer = make_optimizer(recipe.optimizer, module, recipe.learning_rate, recipe.weight_decay, fused)
    model, stepper = fabric.setup(module.to(memory_format=torch.channels_last), optimizer)
    train_mode(module, recipe.freeze_batch_norm)
    positions, pixels_of = rank_positions(recipe.batch, fabric), DeviceImages(images, fabric.device)

    def pairs_of(number: int, places: np.ndarray) -> Tensor:
        return make_views(recipe, number, places, pixels_of(places), None)[0]

    cached = maps.enter_context(CachedMaps(encoder, recipe, len(images), pairs_of, fabric)) if maps else None
    waits = waits or Waits(torch.device("cpu"))

    def views_of(step: int) -> tuple[Tensor, Tensor | None]:
        chosen = batch_members(recipe, step, len(images))
        waits.mark()
        ready = (
            cached(step // (len(images) // recipe.batch), chosen[positions]) if cached else pixels_of(chosen[positions])
        )
        waits.mark()
        return (ready, None) if cached else make_views(recipe, step, positions, ready, None)

    fixed, numbers = views_of(0) if is_bare else None, count()

    def steps() -> float:
        waits.begin()
        for step in islice(numbers, config.steps):
            torch.manual_seed(recipe.seed + step)
            views, masks = fixed or views_of(step)
            losses = model(views, masks, recipe.seed, step, positions, cached and cached.level)
            fabric.backward(losses.loss)
            stepper.step()
            stepper.zero_grad()
        waits.mark()
        return losses.loss.item()

    return steps


def views_alone(recipe: Recipe, config: Pretrain, pixels: Tensor, backend: str, compiler: str | None = None) -> Turn:
    """The views of as many steps, all of the same images: uint8 (b, h, w, 3), on the device."""
    # Color alone: the blur's kernel is as wide as the draws ask for, and would be compiled again in every step.
    jitter = torch.compile(views.jitter_color, backend=compiler) if compiler else views.jitter_color
    augmentations = [jitter if augment is views.jitter_color else augment for augment in views.AUGMENTATIONS]

    def steps() -> float:
        for step, view in product(range(config.steps), (0, 1)):
            draws = views.draw(recipe.strengths, recipe.seed, step, range(len(pixels)), view)
            images = views.render(pixels, draws, recipe.size_px, backend, augmentations)
        return images.mean().item()

    return steps
