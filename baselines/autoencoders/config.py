"""The options of `python baselines/autoencoder.py`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pretrain.command import Names
from pretrain.data.images import LaidOut


@dataclass(frozen=True)
class Config(LaidOut):
    """Train an auto-encoder on the good images of each category, and evaluate it on the test images.

    Attributes:
        model: Architecture; ae, vae, inspection, or one of the convolutional family.
        data: Folder in MVTec AD's layout, or of good images. Default is data/mvtec where it exists, else demo data.
        category: Only these categories. Each gets a model of its own.
        out: Folder of the runs, one for each category; the same command resumes. Default is runs/MODEL.
        size_px: Side of the square that images are stretched to. Default is 128 for ae and vae, else 256.
        width: Channels of the first layer of ae and vae, which double at each halving. Default is 128.
        latent: Size of the bottleneck, for models that have a choice.
        skips: Skip connections past the bottleneck, for inspection.
        start: Weights of the model backbone; imagenet, random, a file from outside, or a pretrained encoder.
        backbone: Architecture of that backbone, where the weights do not say it.
        loss: mse, l2, ssim or mssim. Default is mse for ae, vae and inspection, else ssim.
        window_px: Side of SSIM's window.
        color: rgb or gray.
        residual: How the anomaly map is made; squared, absolute or ssim. Default is what the loss suggests.
        augmentation: none, affine (rotation by 10 degrees, shift, brightness) or flips. Default is as published.
        epochs: Passes over the images. Default is 100, for inspection 50.
        instances: Images to train on in all, instead of epochs.
        minutes: Length in minutes at most, of all categories together, which share them evenly; turned into epochs
            after some steps were timed, one at least; never more than asked for.
        batch_size: Images in a step. Default is 32 for ae and vae, else 16.
        learning_rate: Default is as published.
        weight_decay: Default is as published.
        false_alarm_rate: Share of good images that may be called defective; the threshold follows from it.
        minimum_area: Regions of fewer pixels are dropped; an image without a larger one is good.
        precision: 32-true or bf16-mixed. Default is bf16-mixed on a GPU that has it.
        device: cpu, cuda, or auto for a GPU where there is one.
        checkpoint_minutes: Minutes between two checkpoints.
        track: Also tell tensorboard, mlflow or both what the training does.
        seed: Another seed, another network and another tenth held out.
    """

    model: Literal["ae", "vae", "mvtec", "mvtec2", "backbone", "baseline", "inception", "skip", "inspection"] = "ae"
    # Aliases are the flags of earlier programs with these auto-encoders.
    data: Path | None = field(default=None, metadata={"aliases": ("--data-path", "--data_path")})
    category: Names = Names()
    out: Path | None = field(default=None, metadata={"aliases": ("--ckpt-path", "--ckpt_path")})
    size_px: int | None = field(default=None, metadata={"aliases": ("--size",)})
    width: int | None = None
    latent: int | None = None
    skips: bool = False
    start: str = "imagenet"
    backbone: str = "efficientnet_lite0"
    loss: Literal["mse", "l2", "ssim", "mssim"] | None = None
    window_px: int = 11
    color: Literal["rgb", "gray"] = "rgb"
    residual: Literal["squared", "absolute", "ssim"] | None = None
    augmentation: Literal["none", "affine", "flips"] | None = None
    epochs: int | None = None
    instances: int | None = field(default=None, metadata={"aliases": ("-i",)})
    minutes: float | None = None
    batch_size: int | None = field(default=None, metadata={"aliases": ("--batch_size",)})
    learning_rate: float | None = field(default=None, metadata={"aliases": ("--learning_rate",)})
    weight_decay: float | None = field(default=None, metadata={"aliases": ("--weight_decay",)})
    false_alarm_rate: float = 0.1
    minimum_area: int = 0
    precision: Literal["32-true", "bf16-mixed"] | None = None
    device: str = "auto"
    checkpoint_minutes: float = 1.0
    track: Names = Names()
    seed: int = 0
