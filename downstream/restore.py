"""Restore degraded images with the encoder's help, without painting over their defects.

    python downstream/restore.py train --encoder runs/simclr/encoder.safetensors --train capsule,hazelnut,leather
    python downstream/restore.py evaluate --test bottle,pill,wood
    python downstream/restore.py restore IMAGE_OR_FOLDER --model runs/restore
    python downstream/restore.py study --train capsule,hazelnut,leather --test bottle,pill,wood --minutes 5

The same commands as `baselines/sadnet.py`, whose runs they take too. `study` trains SADNet and ours, with pretrained
and random encoders, for equally long, and tables what each is worth on products that none of them saw.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from downstream.restoration.config import Evaluate, RestorationStudy, Restore, Train
    from pretrain.command import start_commands

    commands = {"train": Train, "evaluate": Evaluate, "restore": Restore, "study": RestorationStudy}
    start_commands({name: (f"downstream.restore:{name}", config) for name, config in commands.items()})

from baselines.restoration.evaluation import evaluate_restorer
from baselines.restoration.image_files import restore_files
from baselines.restoration.run import train_restorer
from downstream.restoration.config import Evaluate, RestorationStudy, Restore, Train
from downstream.restoration.restorer import load_restorer, make_restorer
from downstream.restoration.study import run_study


def train(config: Train) -> int:
    """Train, or resume a training that was stopped, and write the model."""
    return train_restorer(config, make_restorer)


def evaluate(config: Evaluate) -> None:
    """Evaluate, print the table, and write figures and images."""
    evaluate_restorer(config, load_restorer)


def restore(config: Restore) -> int:
    """Restore every image; 3 where images could not be read."""
    return restore_files(config, load_restorer)


def study(config: RestorationStudy) -> None:
    """Compare restorers on held-out categories."""
    run_study(config)
