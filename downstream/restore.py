"""Restore degraded images with the encoder's help, without painting over their defects.

    python downstream/restore.py train --encoder runs/simclr/encoder.safetensors --train capsule,hazelnut,leather
    python downstream/restore.py evaluate --test bottle,pill,wood
    python downstream/restore.py restore IMAGE_OR_FOLDER --model runs/restore
    python downstream/restore.py study --train capsule,hazelnut,leather --test bottle,pill,wood --minutes 5

The same commands as `baselines/sadnet.py`, whose runs they take too. `study` trains SADNet and ours, with
pretrained and random encoders, for equally long, and tables what each is worth on products that none of them saw.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from baselines.sadnet import train
    from downstream.restore import Evaluate, Restore, Study, Train, evaluate, restore, study
    from pretrain.command import run_commands

    commands = {"train": (train, Train), "evaluate": (evaluate, Evaluate), "restore": (restore, Restore)}
    sys.exit(run_commands(commands | {"study": (study, Study)}))

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from baselines import sadnet as restoration
from pretrain.command import Names

if TYPE_CHECKING:
    from baselines.restoration.restorer import NetworkRestorer

OUT = Path("runs/restore")


@dataclass(frozen=True)
class Train(restoration.Train):
    """Train a decoder on an encoder's levels to restore images.

    Attributes:
        encoder: Encoder file, random or imagenet. Default is runs/simclr/encoder.safetensors where it may be used.
        channels: Width of the decoder.
        blocks: Its depth at a quarter of the resolution.
        frozen: Share of the training in which the encoder stays as it is; with 1 it always does.
        learning_rate: Of Adam; a tenth of it for the encoder.
    """

    encoder: Path | None = None
    channels: int = 64
    blocks: int = 3
    frozen: float = 0.5
    learning_rate: float = 1e-3
    loss_weights: tuple[float, float, float] = (0.0, 0.0, 0.5)
    out: Path = OUT

    def restorer(self) -> "NetworkRestorer":
        from downstream.restoration.restorer import EncoderRestorer

        own = {name: getattr(self, name) for name in ("channels", "blocks", "frozen")}
        return EncoderRestorer(encoder=chosen_encoder(self), **own, **self.shared())


@dataclass(frozen=True)
class Evaluate(restoration.Evaluate):
    """Judge a trained restorer on categories that it never saw, or on real pairs, beside the degraded input."""

    model: Path = OUT


@dataclass(frozen=True)
class Restore(restoration.Restore):
    """Restore images of any size and depth; files keep their names, formats and levels."""

    model: Path = OUT


@dataclass(frozen=True)
class Study:
    """Train SADNet and ours for equally long and judge them on categories that none of them saw.

    Attributes:
        data: Folder of categories in MVTec AD's layout. Default is data/mvtec where it exists, else demo data.
        train: Categories to learn from. Default is capsule,hazelnut,leather.
        test: Categories that are only tested. Default is bottle,pill,wood.
        encoder: Encoder files, comma-separated; each seed takes the next. Default is the newest finished one in runs/
            that was made on the same data; none for no such rows.
        rows: Only these; sadnet, simclr, random, imagenet, or variants such as simclr-no-mask.
        seeds: Each varies first weights, defects and noise in training, and the encoder.
        minutes: Training of every row.
        steps: The same in steps, for a trial.
        level: How images are degraded; mild, medium or harsh.
        input_size: Side of the square that images are stretched to.
        crop_px: Side of the squares that are learned from.
        device: cpu, cuda, or auto for a GPU where there is one.
        out: Folder of the study; the same command again goes on where it was stopped.
        record: Append the table to this Markdown file.
        heading: Its heading there.
    """

    data: Path | None = None
    train: Names | None = None
    test: Names | None = None
    encoder: Names = Names()
    rows: Names = Names()
    seeds: Names = Names("0,1,2")
    minutes: float = 5.0
    steps: int | None = None
    level: str = "medium"
    input_size: int = 256
    crop_px: int = 96
    device: str = "auto"
    out: Path = Path("runs/restoration_study")
    record: Path | None = None
    heading: str = "Restoration"


def study(config: Study) -> None:
    from downstream.restoration.study import run_study

    run_study(config)


def chosen_encoder(config: Train):
    """The encoder that was asked for."""
    from embeddings.encoding import choose_encoder
    from pretrain.demo import is_demo

    if str(config.encoder) == "imagenet":
        return "imagenet"
    encoder, path = choose_encoder(config.encoder, config.seed, config.data is not None and is_demo(config.data))
    seen = encoder.origin.categories if encoder.origin else ()
    print(f"encoder: {path}" + (f", which saw {', '.join(seen)}" if seen else ""))
    return encoder


def evaluate(config: Evaluate) -> None:
    from baselines.restoration.evaluate_with import evaluate_with

    evaluate_with(config, load_restorer)


def restore(config: Restore) -> int:
    from baselines.restoration.restore_with import restore_with

    return restore_with(config, load_restorer)


def load_restorer(folder: Path) -> "NetworkRestorer":
    """The restorer that was saved to a folder, ours or SADNet."""
    from baselines.contract.method import METHOD_FILE
    from baselines.restoration.restorer import SadNetRestorer
    from downstream.restoration.restorer import EncoderRestorer
    from pretrain.files import read_tensors

    _, metadata = read_tensors(folder / METHOD_FILE)
    kind = SadNetRestorer if metadata.get("method") == SadNetRestorer.__name__ else EncoderRestorer
    return kind.load(folder)
