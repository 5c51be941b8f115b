"""The options of downstream/restore.py: those of every restorer, the encoder's, and the study's."""

from dataclasses import dataclass
from pathlib import Path

from baselines.restoration import config as restorers
from pretrain.command import Names
from pretrain.data.images import LaidOut

RUN = Path("runs/restore")


@dataclass(frozen=True)
class Train(restorers.Train):
    """Train a decoder on an encoder's feature levels to restore images.

    Attributes:
        encoder: Encoder file, imagenet or random. Default is runs/simclr/encoder.safetensors where it may be used, else
            imagenet.
        channels: Channels of the decoder.
        blocks: Residual blocks of the decoder at a quarter of the resolution.
        frozen: Share of the training in which the encoder is not trained; 1 never trains it.
        learning_rate: Learning rate of Adam; a tenth of it for the encoder.
    """

    encoder: Path | None = None
    channels: int = 64
    blocks: int = 3
    frozen: float = 0.5
    learning_rate: float = 1e-3
    loss_weights: tuple[float, float, float] = (0.0, 0.0, 0.5)
    out: Path = RUN


@dataclass(frozen=True)
class Evaluate(restorers.Evaluate):
    """Evaluate a trained restorer on categories that it never saw, or on real pairs, beside the degraded input."""

    model: Path = RUN


@dataclass(frozen=True)
class Restore(restorers.Restore):
    """Restore images of any size; files keep their names, formats and bit depths."""

    model: Path = RUN


@dataclass(frozen=True)
class RestorationStudy(LaidOut):
    """Train SADNet and ours for equally long and evaluate them on categories that none of them saw.

    Attributes:
        data: Folder of categories in MVTec AD's layout. Default is data/mvtec where it exists, else demo data.
        train: Categories to learn from. Default is capsule,hazelnut,leather.
        test: Categories that are only tested. Default is bottle,pill,wood.
        encoder: Encoder files, comma-separated; each seed takes the next. Default is the newest finished one in runs/
            that was made on the same data; none leaves the rows with a pretrained encoder out.
        rows: Rows of the table; sadnet, simclr, random, imagenet, or variants such as simclr-no-mask. Default is these
            four.
        seeds: Each varies first weights, synthetic anomalies and noise in training, and the encoder.
        minutes: Minutes of training for every row.
        steps: Steps of training instead, for a trial.
        severity: How strongly images are degraded; mild, medium or harsh.
        input_size: Side of the square that images are stretched to.
        images: Test images of each category at most, half of them good. Default is all.
        crop_px: Side of the crops to learn from.
        device: cpu, cuda, or auto for a GPU where there is one.
        out: Folder of the study; the same command resumes it where it was stopped.
        record: Append the table to this Markdown file.
        heading: Heading of the table in that file.
    """

    data: Path | None = None
    train: Names | None = None
    test: Names | None = None
    encoder: Names = Names()
    rows: Names = Names()
    seeds: Names = Names("0,1,2")
    minutes: float = 5.0
    steps: int | None = None
    severity: str = "medium"
    input_size: int = 256
    images: int | None = None
    crop_px: int = 96
    device: str = "auto"
    out: Path = Path("runs/restoration_study")
    record: Path | None = None
    heading: str = "Restoration"
