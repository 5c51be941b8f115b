"""The options of a restorer's commands: train, evaluate, restore. Nothing heavy is imported here: --help is quick."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pretrain.command import Names, UserError
from pretrain.data.images import LaidOut


@dataclass(frozen=True)
class Train(LaidOut):
    """Train a restorer on good images with synthetic anomalies, degraded, or on real pairs.

    Attributes:
        data: Folder of categories in MVTec AD's layout. Default is data/mvtec where it exists, else demo data.
        train: Categories to learn from; only their good images are used. Default is all of them.
        pairs: Folder of real pairs to learn from instead; Degraded_image, GT_clean_image and Defect_mask.
        severity: How strongly the images are degraded; mild, medium or harsh.
        input_size: Side of the square that images are stretched to; 512, 640 and 800 were published.
        crop_px: Side of the crops to learn from.
        batch_size: Crops per step.
        epochs: Length of the training in passes over the images.
        steps: Length in steps instead.
        minutes: Length in minutes instead, validation included, turned into steps after a short warm-up.
        learning_rate: Learning rate of Adam.
        warmup: Share of the steps in which the learning rate rises; without it, offsets may explode.
        half_cosines: How often the learning rate then falls or rises; 5 as published, 1 falls once.
        alpha: Weight of every pixel in the loss.
        beta: Additional weight of pixels in a defect.
        loss_weights: Weights of squared errors, absolute errors and minus PSNR.
        weighting: How the mask enters the loss. published leaves minus PSNR unweighted, repaired weighs it, balanced
            counts small defects in full.
        seed: Varies first weights, synthetic anomalies, degradation and order.
        checkpoint_minutes: Minutes between two checkpoints.
        track: Also tell tensorboard, mlflow or both what the training does.
        device: cpu, cuda, or auto for a GPU where there is one.
        out: Folder of the run; the same command resumes a run that was stopped.
    """

    data: Path | None = None
    train: Names = Names()
    pairs: Path | None = None
    severity: str = "medium"
    input_size: int = 256
    crop_px: int = 96
    batch_size: int = 4
    epochs: int = 50
    steps: int | None = None
    minutes: float | None = None
    learning_rate: float = 1e-4
    warmup: float = 0.05
    half_cosines: int = 1
    alpha: float = 1.0
    beta: float = 2.0
    loss_weights: tuple[float, float, float] = (1.0, 0.0, 0.5)
    weighting: Literal["published", "repaired", "balanced"] = "repaired"
    seed: int = 0
    checkpoint_minutes: float = 1.0
    track: Names = Names()
    device: str = "auto"
    out: Path = Path("runs/sadnet")


@dataclass(frozen=True)
class Evaluate(LaidOut):
    """Evaluate a trained restorer on categories that it never saw, or on real pairs, beside the degraded input.

    Attributes:
        model: Folder of the run that train wrote.
        data: Folder of categories in MVTec AD's layout. Default is data/mvtec where it exists, else demo data.
        test: Categories to evaluate on; their test images are degraded and have their real masks. Default is all that
            neither the training nor its encoder saw.
        pairs: Folder of real pairs to evaluate on instead.
        severity: How strongly the test images are degraded. Default is as in training.
        input_size: Side of the square that images are stretched to; 0 for images as they are, real pairs only.
            Default is as in training.
        interpolate: Stretch the restored image back to its own size; --no-interpolate compares in the square.
        memory_mb: Memory that the network may take; larger images are restored in tiles.
        device: cpu, cuda, or auto for a GPU where there is one.
        seed: Varies the degradation.
        shown: Images of each category that are drawn side by side; -1 draws all.
        allow_seen: Also evaluate on categories that were trained on; the title says so.
        out: Folder of results. Default is the folder test of the run.
    """

    model: Path = Path("runs/sadnet")
    data: Path | None = None
    test: Names = Names()
    pairs: Path | None = None
    severity: str | None = None
    input_size: int | None = None
    interpolate: bool = True
    memory_mb: float = 2000.0
    device: str = "auto"
    seed: int = 0
    shown: int = 10
    allow_seen: bool = False
    out: Path | None = None


@dataclass(frozen=True)
class Restore:
    """Restore images of any size; files keep their names, formats and bit depths.

    Attributes:
        images: Images, or folders of images.
        model: Folder of the run that train wrote.
        memory_mb: Memory that the network may take; larger images are restored in tiles.
        device: cpu, cuda, or auto for a GPU where there is one.
        out: Folder for the restored images; existing files there are overwritten.
    """

    images: tuple[Path, ...] = field(default=(), metadata={"positional": True})
    model: Path = Path("runs/sadnet")
    memory_mb: float = 2000.0
    device: str = "auto"
    out: Path = Path("runs/restored")


def check_length(config: Train) -> None:
    """Raise UserError for a training that would have no length, or no seed."""
    for name in ("epochs", "steps", "minutes", "checkpoint_minutes"):
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise UserError(f"--{name.replace('_', '-')} must be above 0, not {value}.")
    if config.seed < 0:
        raise UserError(f"--seed must be 0 or more, not {config.seed}.")
