"""SimCLR: learn to recognize an image in two random views of it, among the views of other images.

    python pretrain/simclr.py                                        # any machine, demo data
    python pretrain/simclr.py --data data/mvtec --hold-out bottle,pill,wood --minutes 60
    torchrun --nproc-per-node 2 pretrain/simclr.py                   # the same on two processes

Chen et al. 2020, https://arxiv.org/abs/2002.05709. What is added here, and why, is in `dense.py`: products differ from
photographs in that what matters is local. Result: runs/NAME/encoder.safetensors.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from pretrain.command import run_command
    from pretrain.simclr import Config, main

    sys.exit(run_command(main, Config))

import math
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pretrain.command import Names

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from pretrain.contrast import Losses, SimCLR
    from pretrain.views import Strengths


@dataclass(frozen=True)
class Config:
    """Pretrain an image encoder with SimCLR on the train/good images of all categories that are not held out.

    Attributes:
        data: Folder of categories in MVTec AD's layout. Default is data/mvtec where it exists, else demo data.
        hold_out: Categories that are never opened. Default is bottle,pill,wood as far as the folder has them.
        out: The run's folder; the same command again goes on where a run was stopped.
        architecture: resnet18, resnet34, resnet50, wide_resnet50_2 or convnext_tiny.
        start: Weights to begin with; random, imagenet, a .pth file, or an encoder file to continue.
        size_px: Side of the views. Default is 224 on a GPU, 128 without.
        cache_px: Side of the cached images that views are cut from. Default is twice size_px, at most 512.
        batch: Images a step, over all processes. Default is 256 on a GPU, 32 without.
        epochs: Length of the training in passes over the images. Default is 100 on a GPU, 8 without.
        steps: Length of the training in steps.
        minutes: Length of the training in minutes, turned into steps after a short warm-up.
        optimizer: How weights are moved.
        learning_rate: Default is 0.001 for adamw, 0.075 sqrt(batch) for lars, a quarter of that for sgd.
        weight_decay: Of weights; never of biases and batch normalization.
        warmup: Share of the steps in which the learning rate rises.
        temperature: The lower, the more the nearest negatives count.
        whole_weight: Weight of the contrast between whole images, SimCLR's own.
        dense_weight: Weight of the contrast between places.
        planted: Use images with synthetic anomalies as negatives of themselves; half as slow again, no better so far.
        crop_area_min: Smallest crop, as share of the image. SimCLR's 0.08 teaches to overlook what is local.
        jitter: Brightness, contrast and saturation change by up to this factor, hue by an eighth of it in turns.
        gray: Share of views without color.
        blur: Share of views that are blurred.
        precision: bf16-mixed, 32-true or 64-true. Default is bf16-mixed where it is faster, else 32-true.
        freeze_batch_norm: Keep the statistics of batch normalization as they are at the start.
        seed: Another seed, another encoder.
        monitor_every: Steps between two looks at what is being achieved. Default is a tenth of the training.
        checkpoint_minutes: Minutes between two checkpoints.
        device: cpu, cuda, or auto for a GPU where there is one.
    """

    data: Path | None = None
    hold_out: Names | None = None
    out: Path = Path("runs/simclr")
    architecture: str = "resnet18"
    start: str = "random"
    size_px: int | None = None
    cache_px: int | None = None
    batch: int | None = None
    epochs: int | None = None
    steps: int | None = None
    minutes: float | None = None
    optimizer: Literal["adamw", "sgd", "lars"] = "adamw"
    learning_rate: float | None = None
    weight_decay: float = 1e-4
    warmup: float = 0.1
    temperature: float = 0.2
    whole_weight: float = 0.3
    dense_weight: float = 1.0
    synthetic: bool = False
    crop_area_min: float = 0.3
    jitter: float = 0.1
    gray: float = 0.0
    blur: float = 0.3
    precision: str | None = None
    freeze_batch_norm: bool = False
    seed: int = 0
    monitor_every: int | None = None
    checkpoint_minutes: float = 1.0
    device: str = "auto"

    @property
    def strengths(self) -> "Strengths":
        """How far two views differ: weaker than SimCLR's for photographs, since what matters here is local."""
        from pretrain.views import Strengths

        return Strengths(
            crop_area=(self.crop_area_min, 1.0),
            flip_vertical_probability=0.5,
            brightness=self.jitter,
            contrast=self.jitter,
            saturation=self.jitter,
            hue_turns=self.jitter / 8,
            gray_probability=self.gray,
            blur_probability=self.blur,
            blur_sigma_px=(0.1, 1.0),
        )


def main(config: Config) -> int:
    """Train, or go on with a training that was stopped, and write the encoder."""
    import torch

    from pretrain.contrast import SimCLR, make_optimizer
    from pretrain.data.dataset import choose_folder
    from pretrain.encoder import make_encoder
    from pretrain.plan import length_in_steps, prepared
    from pretrain.report import Outcome
    from pretrain.training.device import make_fabric, on_device, rank_positions
    from pretrain.training.run import Run
    from pretrain.training.session import stop_asked

    run = Run(config.out)
    fabric = make_fabric(config.device, config.precision or run.earlier("precision"))
    with fabric.rank_zero_first():
        config, images, unseen = prepared(config, choose_folder(config.data), fabric)
    if run.is_finished:
        fabric.print(f"{config.out} holds a finished run: choose another --out for a new one.")
        return 0

    encoder = make_encoder(config.architecture, config.start, seed=config.seed, input_size_px=config.size_px)
    torch.manual_seed(config.seed)  # the first weights of the projection heads
    module = SimCLR(encoder, config.whole_weight, config.dense_weight, config.temperature)
    optimizer = make_optimizer(config.optimizer, module, config.learning_rate, config.weight_decay)
    if fabric.world_size > 1 and fabric.device.type == "cuda":  # it refuses CPU tensors
        module = torch.nn.SyncBatchNorm.convert_sync_batchnorm(module)
    model, stepper = fabric.setup(module.to(memory_format=torch.channels_last), optimizer)
    train_mode(module, config)
    pixels_of = on_device(images, fabric.device)
    positions = rank_positions(config.batch, fabric)

    def train_step(step: int, steps: int) -> "Losses":
        torch.manual_seed(config.seed + step)  # for stochastic depth, which ConvNeXt draws
        chosen = members(config, step, len(images))
        views, masks = make_views(
            config, step, positions, pixels_of(chosen[positions]), pixels_of(chosen[positions - 1])
        )
        for group in stepper.param_groups:
            group["lr"] = learning_rate_at(step / steps, config)
        losses = model(views, masks, config.seed, step, positions)
        fabric.backward(losses.loss)
        stepper.step()
        stepper.zero_grad()
        return losses

    with run.held(config) if fabric.is_global_zero else nullcontext(), stop_asked(fabric) as is_stop_asked:
        metadata = run.restore(module, optimizer) or {"step": 0, "seconds": 0.0}
        steps = metadata.get("steps") or length_in_steps(config, len(images), train_step, module, optimizer, fabric)
        with Outcome(config, fabric, run, images, unseen, metadata, steps) as outcome:
            for step in range(metadata["step"], steps):
                outcome.look(step, module)
                outcome.note(step, train_step(step, steps))
                is_stopped = is_stop_asked()
                if is_stopped or outcome.is_time_to_save():
                    outcome.save(step + 1, module, optimizer)
                if is_stopped:
                    fabric.print(f"stopped after {step + 1} of {steps} steps; the same command goes on from there.")
                    return 130
            outcome.look(steps, module)
        outcome.conclude(module.encoder)
    return 0


def members(config: Config, step: int, count: int) -> "np.ndarray":
    """Which images are in a step's batch: each epoch is a shuffle of its own, its incomplete last batch left out."""
    import numpy as np

    epoch, turn = divmod(step, count // config.batch)
    return np.random.default_rng([config.seed, epoch]).permutation(count)[turn * config.batch :][: config.batch]


def make_views(
    config: Config, step: int, positions: "np.ndarray", pixels: "Tensor", other_pixels: "Tensor"
) -> tuple["Tensor", "Tensor | None"]:
    """Two views of every image, and if asked the second one with a synthetic anomaly, for which `other_pixels` lends
    foreign pieces. uint8 (b, h, w, 3) -> float32 (2b or 3b, 3, size, size), masks bool (b, size, size) or none."""
    import torch

    from pretrain.anomalies import add_anomaly
    from pretrain.views import draw_pair, render

    draws = draw_pair(config.strengths, config.seed, step, positions, same_places=bool(config.dense_weight))
    views = [render(pixels, drawn, config.size_px) for drawn in draws]
    masks = None
    if config.synthetic:
        foreign = render(other_pixels, draws[0], config.size_px)
        synthetic, masks = add_anomaly(views[1], foreign, config.seed, step, positions)
        views.append(synthetic)
    return torch.cat(views).contiguous(memory_format=torch.channels_last), masks


def learning_rate_at(progress: float, config: Config) -> float:
    """Linear warm-up, then a cosine to zero; `progress` from 0 to 1."""
    if progress < config.warmup:
        return config.learning_rate * (progress / config.warmup + 0.01)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (progress - config.warmup) / (1 - config.warmup)))


def train_mode(module: "SimCLR", config: Config) -> None:
    """Training mode; batch normalization too, unless its statistics are to stay."""
    from torch.nn.modules.batchnorm import _BatchNorm

    module.train()
    for layer in module.modules():
        if config.freeze_batch_norm and isinstance(layer, _BatchNorm):
            layer.eval()
