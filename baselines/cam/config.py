"""The options of `python baselines/vgg_cam.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pretrain.command import Names
from pretrain.data.images import LaidOut


@dataclass(frozen=True)
class Train(LaidOut):
    """Train on all labeled images of some categories.

    Attributes:
        data: Folder of categories in MVTec AD's layout. Default is data/mvtec where it exists, else demo data.
        train: Categories to learn from; images of both of their folders, train and test, with their labels.
        architecture: vgg16 as published, efficientnet_lite0, whose ImageNet weights come with heldout, or another.
        weights: imagenet, hub (downloaded), a file of the architecture, or random; with random, nothing is frozen.
        width: Scales VGG16's channels, to try things on a small machine; needs random weights.
        size_px: Side of the square that images are stretched to.
        epochs: At most.
        batch_size: Images a step.
        learning_rate: Of Adam.
        patience: Epochs without a better validation loss after which to stop.
        target_accuracy: Also stop once this share of the training images is classified correctly; 0.98 was published.
        cached: Compute what frozen layers give only once; the result is the same.
        seed: Splits, first weights and order.
        checkpoint_minutes: Minutes between two checkpoints.
        track: Also tell tensorboard, mlflow or both what the training does.
        device: cpu, cuda, or auto for a GPU where there is one.
        out: The run's folder; the same command again resumes a run that was stopped.
    """

    data: Path | None = None
    train: Names = Names("capsule,hazelnut,leather")
    architecture: str = "vgg16"
    weights: str = "imagenet"
    width: float = 1.0
    size_px: int = 224
    epochs: int = 10
    batch_size: int = 40
    learning_rate: float = 1e-4
    patience: int = 3
    target_accuracy: float | None = None
    cached: bool = True
    seed: int = 0
    checkpoint_minutes: float = 1.0
    track: Names = Names()
    device: str = "auto"
    out: Path = Path("runs/vgg_cam")


@dataclass(frozen=True)
class Test(LaidOut):
    """Classify images of other categories, and print how well that went.

    Attributes:
        data: Folder of categories in MVTec AD's layout. Default is data/mvtec where it exists, else demo data.
        test: Categories to test on, none of which was trained on.
        model: The run's folder that train wrote.
        images: all, as published, or those of the test folders alone.
        false_alarm_rate: Share of good images that may be called defective at the calibrated threshold.
        minimum_area: Regions of fewer pixels get no box.
        shown: Images of each category in the grid, of good and of defective ones.
        device: cpu, cuda, or auto for a GPU where there is one.
        out: Folder of results. Default is the folder test of the run.
    """

    data: Path | None = None
    test: Names = Names("bottle,pill,wood")
    model: Path = Path("runs/vgg_cam")
    images: Literal["all", "test"] = "all"
    false_alarm_rate: float = 0.05
    minimum_area: int = 0
    shown: int = 5
    device: str = "auto"
    out: Path | None = None
