"""Restore degraded images without painting over their defects: SADNet, trained, evaluated and used.

    python baselines/sadnet.py train --train capsule,hazelnut,leather --minutes 60
    python baselines/sadnet.py evaluate --test bottle,pill,wood
    python baselines/sadnet.py restore IMAGE_OR_FOLDER --model runs/sadnet
    python baselines/sadnet.py train --pairs FOLDER      # Degraded_image, GT_clean_image, Defect_mask

The baseline of `downstream/restore.py`, which has the same commands. `train` leaves a run folder: config, metrics,
curves, and the model in OUT/model; the same command resumes a run that was stopped or killed.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from baselines.restoration.config import Evaluate, Restore, Train
    from pretrain.command import start_commands

    commands = {"train": Train, "evaluate": Evaluate, "restore": Restore}
    start_commands({name: (f"baselines.sadnet:{name}", config) for name, config in commands.items()})

from baselines.restoration.config import Evaluate, Restore, Train
from baselines.restoration.evaluation import evaluate_restorer
from baselines.restoration.image_files import restore_files
from baselines.restoration.restorer import SadNetRestorer
from baselines.restoration.run import shared_arguments, train_restorer


def train(config: Train) -> int:
    """Train, or resume a training that was stopped, and write the model."""
    return train_restorer(config, make_restorer)


def evaluate(config: Evaluate) -> None:
    """Evaluate, print the table, and write figures and images."""
    evaluate_restorer(config, SadNetRestorer.load)


def restore(config: Restore) -> int:
    """Restore every image; 3 where images could not be read."""
    return restore_files(config, SadNetRestorer.load)


def make_restorer(config: Train) -> SadNetRestorer:
    """An untrained SADNet."""
    return SadNetRestorer(**shared_arguments(config))
