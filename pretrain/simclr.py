"""SimCLR: learn to recognize an image in two random views of it, among the views of other images.

    python pretrain/simclr.py                                        # any machine, demo data
    python pretrain/simclr.py --data data/mvtec --hold-out bottle,pill,wood --minutes 60
    torchrun --nproc-per-node 2 pretrain/simclr.py                   # the same on two processes

Chen et al. 2020, https://arxiv.org/abs/2002.05709, figure 2:

    image --t--> view  --f--> h  --g--> z    attract each other, and repel the z of all other images of the batch
          --t'-> view' --f--> h' --g--> z'

f is the encoder, which is kept; g is the projection head, which is thrown away. `--recipe simclr` is the paper's. The
default, `--recipe dense`, differs in that products differ from photographs: what matters is local. So it also contrasts
single positions of the feature maps (dense.py), crops less, and hardly changes colors. Result: OUT/encoder.safetensors.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from pretrain.command import start
    from pretrain.config import Config, check

    start("pretrain.simclr:main", Config, check)

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import NamedTuple, Self

import numpy as np
import torch
from lightly.utils.lars import LARS
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pretrain.anomalies import add_anomaly
from pretrain.command import UserError
from pretrain.config import Config, check, held_out, resolved
from pretrain.data.dataset import ImageSet, choose_folder, load
from pretrain.data.layouts import category_folders, check_all_good, has_layout, layout_to_learn_from
from pretrain.dense import DenseContrast, Positions
from pretrain.encoder import LEVELS, Encoder, make_encoder
from pretrain.frozen_stages import CachedMaps, freeze, keep_frozen
from pretrain.lars import Lars
from pretrain.loss import nt_xent
from pretrain.report import VIEWS_SHOWN, Report
from pretrain.training.best_weights import BestWeights
from pretrain.training.device import DeviceImages, kernels
from pretrain.training.fabric import make_fabric, rank_positions
from pretrain.training.memory import told_what_fits
from pretrain.training.run import Run
from pretrain.training.session import Session
from pretrain.views import blur, crop_and_resize, draw_pair, drop_color, flip, jitter_color, render

# t of figure 2: the five augmentations of appendix A, in its order. How strong they are, `Config.strengths` says.
AUGMENTATIONS = [crop_and_resize, flip, jitter_color, drop_color, blur]
# Where the maps are fine enough for a defect and deep enough to mean something: strides 8 and 16.
DENSE_LEVELS = ("level2", "level3")


class Losses(NamedTuple):
    """Scalars: `loss` to descend, its two parts, and how often a view's other view was the nearest of all."""

    loss: Tensor
    image: Tensor
    dense: Tensor
    accuracy: Tensor


class SimCLR(nn.Module):
    """f and g of figure 2, and their loss on a batch of views. The encoder's stem and its first `freeze_stages` stages
    stay as they are."""

    def __init__(
        self, encoder: Encoder, image_weight: float, dense_weight: float, temperature: float, freeze_stages: int = 0
    ) -> None:
        super().__init__()
        width = encoder.channels["level4"]
        self.encoder = encoder  # f
        # g: as lightly's SimCLRProjectionHead, whose import takes three seconds.
        self.projection = nn.Sequential(
            nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(),
            nn.Linear(width, 128, bias=False), nn.BatchNorm1d(128),
        )  # fmt: skip
        self.freeze_stages = freeze_stages
        # What is frozen learns nothing from its positions; with three stages level4 is all that learns.
        self.dense_levels = [level for level in DENSE_LEVELS if level in LEVELS[freeze_stages:]] or ["level4"]
        self.dense = DenseContrast({level: encoder.channels[level] for level in self.dense_levels})
        self.image_weight, self.dense_weight, self.temperature = image_weight, dense_weight, temperature
        # What a weight of zero leaves out gets no gradient, and DDP must not wait for one.
        if not image_weight:
            self.projection.requires_grad_(False)
            needed = set(encoder.stages.weights_until(self.dense_levels[-1]))
            for weights in encoder.stages.parameters():
                weights.requires_grad_(weights in needed)
        if not dense_weight:
            self.dense.requires_grad_(False)
        freeze(encoder, freeze_stages)

    def forward(
        self,
        views: Tensor,
        masks: Tensor | None,
        seed: int,
        step: int,
        positions: Sequence[int] | np.ndarray,
        after: str | None = None,
    ) -> Losses:
        """`views` float32 (2b or 3b, 3, h, w): two views of b images and, with `masks` bool (b, h, w), the second one
        with synthetic anomalies. All of them in one pass, so that batch normalization tells none of them apart. With
        `after` they are what the frozen stages up to that level gave of the views."""
        drawn = Positions(seed, step, positions, views.device)
        image = dense = accuracy = views.new_zeros(())
        levels = dict.fromkeys([*self.dense_levels, "level4"] if self.image_weight else self.dense_levels)
        maps = self.encoder(views, tuple(levels), after)
        if self.image_weight:
            h = maps["level4"].mean((2, 3))  # (2b or 3b, channels)
            z = self.projection(h)  # (2b or 3b, 128)
            first, second, *negatives = z.split(len(drawn.chance))
            image, accuracy = nt_xent(first, second, self.temperature, negatives[0] if negatives else None)
        if self.dense_weight:
            dense, dense_accuracy = self.dense(maps, masks, drawn, self.temperature)
            accuracy = accuracy if self.image_weight else dense_accuracy
        loss = self.image_weight * image + self.dense_weight * dense
        return Losses(loss, image.detach(), dense.detach(), accuracy)


def main(config: Config) -> int:
    """Train, or resume a training that was stopped, and write the encoder."""
    run = Run(config.out)
    fabric = make_fabric(config.device, config.precision or run.earlier("precision"))
    with fabric.rank_zero_first():  # the other processes find the images cached
        config, images, unseen = prepared(config, fabric, run.earlier("device"))
    if run.skip_if_finished(fabric.print):
        return 0

    encoder = make_encoder(config.architecture, config.start, seed=config.seed, input_size_px=config.size_px)
    torch.manual_seed(config.seed)  # the first weights of the projection heads
    module = SimCLR(encoder, config.image_weight, config.dense_weight, config.temperature, config.freeze_stages)
    on_gpu = fabric.device.type == "cuda"
    optimizer = make_optimizer(config.optimizer, module, config.learning_rate, config.weight_decay, on_gpu)
    if fabric.world_size > 1 and on_gpu:  # it refuses CPU tensors
        # Statistics of each process alone would tell which views came together: the contrast could cheat.
        module = synchronized(module)
    model, stepper = fabric.setup(module.to(memory_format=torch.channels_last), optimizer)
    train_mode(module, config.freeze_batch_norm)
    learner = BestWeights(module)  # what a session saves
    if config.compile:  # in place: weights keep their names, and a run its encoder file
        module.encoder.stages.compile()
    batches = Batches(config, images, encoder, fabric)
    positions = rank_positions(config.batch, fabric)

    def train_step(step: int, steps: int, positions: np.ndarray = positions) -> Losses:
        torch.manual_seed(config.seed + step)  # for stochastic depth, which ConvNeXt draws
        views, masks = batches(step, positions)
        for group in stepper.param_groups:
            group["lr"] = learning_rate_at(step / steps, config)
        losses = model(views, masks, config.seed, step, positions, batches.after)
        fabric.backward(losses.loss)  # averages gradients over processes; nt_xent is made for that
        stepper.step()
        stepper.zero_grad()
        return losses

    report = Report(config, run, fabric, images, unseen)
    what_fits = told_what_fits(config.batch, config.size_px, lambda some: train_step(0, 1000, positions[:some]),
                                fabric.device, fabric.world_size)  # fmt: skip
    held = run.held(config) if fabric.is_global_zero else nullcontext()
    with held, kernels(config.deterministic), batches, what_fits:
        with Session(
            "pretraining", learner, optimizer, run, fabric, None, config.checkpoint_minutes, report.describe
        ) as session:
            session.steps = session.steps or length_in_steps(
                config, len(images), session, train_step, partial(report.measure, module), batches.spent_minutes
            )
            report.begin(session, batches.first)
            for step in session:
                report.evaluate(step, learner)
                if session.is_over:
                    break
                session.log(**train_step(step, session.steps)._asdict())
            else:
                report.evaluate(session.steps, learner)
        report.finish(learner)
    return 0


def prepared(config: Config, fabric: Fabric, began_on: str | None = None) -> tuple[Config, ImageSet, ImageSet]:
    """Every default resolved, the normals to learn from, and a tenth of them that is only evaluated on."""
    check(config)
    folder = choose_folder(config.data)
    layout = layout_to_learn_from(folder, config.layout)
    if layout != config.layout:
        fabric.print(f"{folder} has no train/good: all images in it are learned from, as by --layout {layout}")
    elif layout is None and folder.is_dir() and not has_layout(folder):
        check_all_good(folder)  # which says more than that there is no category
    found = category_folders(folder, layout)
    config = replace(config, data=folder, layout=layout, hold_out=held_out(config, folder, found))
    config = resolved(config, fabric.device.type, fabric.strategy.precision.precision, began_on)
    categories = [name for name in sorted(found) if name not in config.hold_out]
    images = load(folder, config.cache_px, categories, normals_only=True, layout=config.layout)
    parts = images.split({"learned from": 0.9, "unseen": 0.1}, seed=0)
    if len(parts["unseen"]) < 2:  # too few to spare any: evaluated on those that are learned from
        parts = dict.fromkeys(parts, images)
    learned_from = parts["learned from"]
    batch = min(config.batch, len(learned_from)) // fabric.world_size * fabric.world_size
    if batch < 2 * fabric.world_size:
        raise UserError(
            f"{len(learned_from)} images are too few for {fabric.world_size} processes of two or more each."
        )
    return replace(config, batch=batch), learned_from, parts["unseen"]


class Batches(AbstractContextManager):
    """Of every step, what it learns from: the views of its images, or what frozen stages gave of them; `after` is the
    last of these. A context, in which the maps of frozen stages lie on the disk; to compute them took `spent_minutes`.
    """

    def __init__(self, config: Config, images: ImageSet, encoder: Encoder, fabric: Fabric) -> None:
        self._config, self._count, self._pixels_of = config, len(images), DeviceImages(images, fabric.device)
        self._cached, self.after = None, None
        if config.cached_views:
            self._cached = CachedMaps(encoder, config, len(images), self._pairs, fabric)
            self.after = self._cached.level

    def __call__(self, step: int, positions: np.ndarray) -> tuple[Tensor, Tensor | None]:
        """Views of the images at some positions of a step's batch, and where they have synthetic anomalies."""
        if self._cached:
            chosen = batch_members(self._config, step, self._count)[positions]
            return self._cached(step // (self._count // self._config.batch), chosen), None
        if not self._config.synthetic_negatives:
            return make_views(self._config, step, positions, self._read(step, positions), None)
        # Synthetic anomalies borrow texture from the image before, in the batch: it is read along.
        pixels = self._read(step, np.r_[positions[:1] - 1, positions])
        return make_views(self._config, step, positions, pixels[1:], pixels[:-1])

    def first(self) -> tuple[Tensor, Tensor | None]:
        """Some views of the first step as they are before any stage, to look at."""
        chosen = batch_members(self._config, 0, self._count)
        shown = np.arange(min(VIEWS_SHOWN, self._config.batch))
        if self._cached:
            return self._pairs(0, chosen[shown]), None
        sources = self._pixels_of(chosen[shown - 1]) if self._config.synthetic_negatives else None
        return make_views(self._config, 0, shown, self._pixels_of(chosen[shown]), sources)

    @property
    def spent_minutes(self) -> float:
        return self._cached.minutes if self._cached else 0.0

    def __enter__(self) -> Self:
        if self._cached:
            self._cached.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._cached:
            self._cached.__exit__(*error)

    def _read(self, step: int, positions: np.ndarray) -> Tensor:
        """uint8 (b, h, w, 3), and a start on those of the next step."""
        pixels = self._pixels_of(batch_members(self._config, step, self._count)[positions])
        if self._pixels_of.can_read_ahead:
            self._pixels_of.read_ahead(batch_members(self._config, step + 1, self._count)[positions])
        return pixels

    def _pairs(self, number: int, places: np.ndarray) -> Tensor:
        return make_views(self._config, number, places, self._pixels_of(places), None)[0]


def make_views(
    config: Config, step: int, positions: np.ndarray, pixels: Tensor, sources: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Two views of every image and, with `sources`, the second one with a synthetic anomaly, for which they lend
    texture. uint8 (b, h, w, 3) -> float32 (2b or 3b, 3, size, size), masks bool (b, size, size) or none."""
    # Single positions can only be contrasted where both views show one crop, in two colorings.
    draws = draw_pair(config.strengths, config.seed, step, positions, same_crop=bool(config.dense_weight))
    views = [render(pixels, drawn, config.size_px, config.views, AUGMENTATIONS) for drawn in draws]
    masks = None
    if sources is not None:
        texture = render(sources, draws[0], config.size_px, config.views, AUGMENTATIONS)
        anomalous, masks = add_anomaly(views[1], texture, config.seed, step, positions)
        views.append(anomalous)
    return torch.cat(views).contiguous(memory_format=torch.channels_last), masks


def batch_members(config: Config, step: int, count: int) -> np.ndarray:
    """Which images are in a step's batch: each epoch is a shuffle of its own, its incomplete last batch left out."""
    epoch, turn = divmod(step, count // config.batch)
    return np.random.default_rng([config.seed, epoch]).permutation(count)[turn * config.batch :][: config.batch]


def learning_rate_at(progress: float, config: Config) -> float:
    """Linear warm-up, then a cosine to zero; `progress` from 0 to 1."""
    if progress < config.warmup:
        return config.learning_rate * (progress / config.warmup + 0.01)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (progress - config.warmup) / (1 - config.warmup)))


def length_in_steps(
    config: Config, count: int, session: Session, train_step, evaluate, spent_minutes: float = 0.0
) -> int:
    """Steps asked for, else those that fit into what is left of the minutes, else those of the epochs."""
    if config.steps or not config.minutes:
        return config.steps or config.epochs * (count // config.batch)
    if spent_minutes >= config.minutes:
        raise UserError(
            f"the maps of the frozen stages took {spent_minutes:.1f} of {config.minutes:g} minutes: give fewer "
            "--cached-views, or more --minutes."
        )
    return session.steps_within(config.minutes - spent_minutes, train_step, evaluate)


def synchronized(module: nn.Module) -> nn.Module:
    """`module` with batch statistics over all processes."""
    from timm.layers import convert_sync_batchnorm  # 1 s, only here

    # torch's own leaves out the activation that timm's batch normalization brings along, ReLU6 in a Lite.
    return convert_sync_batchnorm(module)


def train_mode(module: SimCLR, freeze_batch_norm: bool) -> None:
    """Training mode but for what is frozen; batch normalization too, unless its statistics are to stay."""
    module.train()
    for layer in module.modules():
        if freeze_batch_norm and isinstance(layer, _BatchNorm):
            layer.eval()
    keep_frozen(module.encoder, module.freeze_stages)


def make_optimizer(
    name: str, module: nn.Module, rate: float, weight_decay: float, fused: bool = False
) -> torch.optim.Optimizer:
    """adamw, sgd or lars, for what `module` trains; `fused` moves all weights in one kernel, on a GPU."""
    groups = parameter_groups(module, weight_decay)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=rate, fused=fused or None)
    if name == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=0.9, fused=fused or None)
    # It leaves out of its layer-wise scaling whatever does not decay: biases and batch normalization, as it should.
    if not weight_decay:
        raise UserError(
            "lars scales only what decays: give a --weight-decay above 0, such as 1e-6, or --optimizer sgd."
        )
    return Lars(groups, lr=rate, momentum=0.9) if fused else LARS(groups, lr=rate, momentum=0.9)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict]:
    """Weights decay; what is one number a channel does not: biases, normalization, ConvNeXt's scales (c, 1, 1)."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.squeeze().ndim > 1]
    vectors = [parameter for parameter in trained if parameter.squeeze().ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
