"""What can be typed in pretrain/: SimCLR's options, recipes and checks, and those of the demo data and the survey.

Nothing heavy is imported here, so `--help` answers at once.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pretrain.command import Names, UserError
from pretrain.data.images import LaidOut, check_names

HELD_OUT_BY_DEFAULT = Names("bottle,pill,wood")
MIN_PX = 32

ABOVE_ZERO = ("cache_px", "batch", "epochs", "steps", "minutes", "learning_rate", "temperature", "monitor_every",
              "cached_views", "patience")  # fmt: skip
NOT_BELOW_ZERO = ("weight_decay", "image_weight", "dense_weight", "jitter", "checkpoint_minutes", "seed")
SHARES = ("gray", "blur", "warmup")

# What the paper uses for ImageNet (arXiv 2002.05709, appendix A and table B.1), and what is better where defects are
# local: the contrast of single positions too, crops of 30 % and more instead of 8, hardly any change of color. On four
# real categories, each left out in turn, the paper's recipe cut PaDiM's error by 21 % and ours by 33 % (RESULTS.md).
RECIPES = {
    "dense": dict(image_weight=0.3, dense_weight=1.0, temperature=0.2, optimizer="adamw", weight_decay=1e-4,
                  crop_area_min=0.3, jitter=0.1, gray=0.0, blur=0.3),
    "simclr": dict(image_weight=1.0, dense_weight=0.0, temperature=0.1, optimizer="lars", weight_decay=1e-6,
                   crop_area_min=0.08, jitter=0.8, gray=0.2, blur=0.5),
}  # fmt: skip


@dataclass(frozen=True)
class Strengths:
    """How far two views of an image may differ; the defaults are SimCLR's for ImageNet.

    Ranges are (lowest, highest); brightness, contrast and saturation 0.8 mean a factor in [0.2, 1.8].
    """

    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip_horizontal_probability: float = 0.5
    flip_vertical_probability: float = 0.0
    jitter_probability: float = 0.8
    brightness: float = 0.8
    contrast: float = 0.8
    saturation: float = 0.8
    hue_turns: float = 0.2
    gray_probability: float = 0.2
    blur_probability: float = 0.5
    blur_sigma_px: tuple[float, float] = (0.1, 2.0)


@dataclass(frozen=True)
class Config(LaidOut):
    """Pretrain an image encoder with SimCLR on the train/good images of all categories that are not held out.

    Attributes:
        data: Folder of categories as docs/data.md shows, or of images. Default is data/mvtec where it exists, else demo
            data.
        hold_out: Categories never opened, '' for none. Default is bottle,pill,wood as far as the folder has them.
        out: The run's folder; the same command again resumes a run that was stopped.
        recipe: dense contrasts single positions of the feature maps too; simclr is the paper's. Sets all that says so.
            From ImageNet's weights dense was no better than these alone on the products measured (RESULTS.md).
        architecture: efficientnet_lite0 to 2, resnet18, 34 or 50, wide_resnet50_2, convnext_tiny, or timm/NAME.
        start: Weights to begin with; imagenet (on this machine), hub (downloads them), random, a file, or an encoder.
        size_px: Side of the views. Default is 224 on a GPU, 128 without.
        cache_px: Side of the cached images that views are cut from. Default is twice size_px, at most 512.
        batch: Images a step, over all processes. Default is 256 on a GPU, 32 without.
        epochs: Length of the training in passes over the images. Default is 100 on a GPU, 8 without.
        steps: Length of the training in steps.
        minutes: Length of the training in minutes, the monitor included, turned into steps after a short warm-up.
        optimizer: How weights are moved. Default is the recipe's, adamw or lars.
        learning_rate: Default is 0.001 for adamw, 0.075 sqrt(batch) for lars, a quarter of that for sgd; a tenth
            of it from a start that has learned already.
        weight_decay: Of weights; never of biases and batch normalization. Default is the recipe's, 0.0001 or 0.000001.
        warmup: Share of the steps in which the learning rate rises.
        temperature: The lower, the more the nearest negatives count. Default is the recipe's, 0.2 or 0.1.
        image_weight: Weight of the contrast between whole images, SimCLR's own. Default is the recipe's, 0.3 or 1.
        dense_weight: Weight of the contrast between positions of the feature maps. Default is the recipe's, 1 or 0.
        synthetic_negatives: Use images with synthetic anomalies as negatives of themselves; half as slow again, and it
            brought nothing so far.
        crop_area_min: Smallest crop, as share of the image. Default is the recipe's, 0.3 or 0.08.
        jitter: Brightness, contrast and saturation change by up to this factor. Default is the recipe's, 0.1 or 0.8.
        gray: Share of views without color. Default is the recipe's, 0 or 0.2.
        blur: Share of views that are blurred. Default is the recipe's, 0.3 or 0.5.
        precision: bf16-mixed, 32-true or 64-true. Default is bf16-mixed where it is faster, else 32-true.
        freeze_batch_norm: Keep the statistics of batch normalization as they are at the start. Default unless random.
        freeze_stages: Keep the encoder's stem and this many of its four stages as they are at the start, 0 to 3.
        cached_views: Draw only so many pairs of views of an image, whose maps of the frozen stages are computed once.
        seed: Another seed, another encoder.
        monitor_every: Steps between two evaluations by the monitor. Default is a tenth of the training, and at least 5.
        patience: End after so many evaluations by the monitor without a better one. Default is not to.
        keep: Weights of the evaluation that the monitor found best, the start's own included, or the last ones.
        checkpoint_minutes: Minutes between two checkpoints.
        track: Also tell tensorboard, mlflow or both what the training does.
        device: cpu, cuda, or auto for a GPU where there is one.
        views: Made by kornia, or fast, which turns hues a little otherwise. Default is kornia on a GPU, fast without.
        compile: Compile the encoder by torch.compile, a minute at first; on CPUs it gained nothing.
        deterministic: On a GPU, give the same bits every time, also after a resume; slower.
    """

    data: Path | None = None
    hold_out: Names | None = None
    out: Path = Path("runs/simclr")
    recipe: Literal["dense", "simclr"] = "dense"
    architecture: str = "efficientnet_lite0"
    start: str = "imagenet"
    size_px: int | None = None
    cache_px: int | None = None
    batch: int | None = None
    epochs: int | None = None
    steps: int | None = None
    minutes: float | None = None
    optimizer: Literal["adamw", "sgd", "lars"] | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    warmup: float = 0.1
    temperature: float | None = None
    image_weight: float | None = None
    dense_weight: float | None = None
    synthetic_negatives: bool = False
    crop_area_min: float | None = None
    jitter: float | None = None
    gray: float | None = None
    blur: float | None = None
    precision: str | None = None
    freeze_batch_norm: bool | None = None
    freeze_stages: int = 0
    cached_views: int | None = None
    seed: int = 0
    monitor_every: int | None = None
    patience: int | None = None
    keep: Literal["best", "last"] = "best"
    checkpoint_minutes: float = 1.0
    track: Names = Names()
    device: str = "auto"
    views: Literal["kornia", "fast"] | None = None
    compile: bool = False
    deterministic: bool = False

    def __post_init__(self) -> None:
        """What was left open and the recipe says; a flag that was typed wins."""
        for name, value in RECIPES[self.recipe].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

    @property
    def strengths(self) -> Strengths:
        """How far two views differ."""
        is_paper = self.recipe == "simclr"
        return Strengths(
            crop_area=(self.crop_area_min, 1.0),
            # Photographs have an up; most products lie on a belt anyhow.
            flip_vertical_probability=0.0 if is_paper else 0.5,
            brightness=self.jitter,
            contrast=self.jitter,
            saturation=self.jitter,
            # In turns of the color circle; the paper's 0.2 at its jitter of 0.8.
            hue_turns=self.jitter / (4 if is_paper else 8),
            gray_probability=self.gray,
            blur_probability=self.blur,
            blur_sigma_px=(0.1, 2.0 if is_paper else 1.0),
        )


def check(config: Config) -> None:
    """Raise UserError for a value with which nothing could be learned."""
    rules = {
        **{name: (lambda value: value > 0, "above 0") for name in ABOVE_ZERO},
        **{name: (lambda value: value >= 0, "0 or more") for name in NOT_BELOW_ZERO},
        **{name: (lambda value: 0 <= value < 1, "from 0 to below 1") for name in SHARES},
        "crop_area_min": (lambda value: 0 < value <= 1, "above 0 and at most 1"),
        "size_px": (lambda value: value >= MIN_PX, f"{MIN_PX} or more"),
        "freeze_stages": (lambda value: 0 <= value <= 3, "from 0 to 3"),
    }
    for name, (is_allowed, allowed) in rules.items():
        value = getattr(config, name)
        if value is not None and not is_allowed(value):
            raise UserError(f"--{name.replace('_', '-')} must be {allowed}, not {value}.")
    if not config.image_weight and not config.dense_weight:
        raise UserError("with --image-weight 0 and --dense-weight 0 there is nothing to learn: raise one of them.")
    if config.freeze_stages == 3 and config.keep == "best":
        raise UserError(
            "detect.py and the monitor look at the first three stages alone, so with --freeze-stages 3 the monitor "
            "would keep the start: freeze 2, or add --keep last for an encoder by which search.py compares images."
        )
    if config.cached_views:
        _check_cached(config)


def _check_cached(config: Config) -> None:
    """Raise UserError where the maps of frozen stages cannot be kept."""
    if not config.freeze_stages:
        raise UserError("--cached-views keeps what frozen stages give: add --freeze-stages 1, 2 or 3.")
    if config.architecture.startswith("timm/"):
        raise UserError(
            f"{config.architecture} cannot go on from maps of its first stages: leave out --cached-views, or take "
            "efficientnet_lite0 or another architecture that is not timm's."
        )
    if config.synthetic_negatives:
        raise UserError(
            "--synthetic-negatives borrow from another image of each batch, so their maps cannot be kept: leave out "
            "--cached-views or them."
        )


def held_out(config: Config, folder: Path, categories: Iterable[str]) -> Names:
    """The categories that are never opened. Raises UserError for one that is none, or if none is left to learn from."""
    categories = sorted(categories)
    names = config.hold_out
    if names is None:
        names = Names(name for name in HELD_OUT_BY_DEFAULT if name in categories)
    check_names(names, categories, f"category in {folder}")
    if set(categories) <= set(names):
        raise UserError(
            f"all categories of {folder} are held out ({names}): leave one to learn from, or give --hold-out '' to "
            "learn from all of them."
        )
    return names


def resolved(config: Config, device: str, precision: str, began_on: str | None = None) -> Config:
    """What was left open, chosen for the machine, or for the device that the run began on."""
    on_gpu = (began_on or device) == "cuda"
    size_px = config.size_px or (224 if on_gpu else 128)
    batch = config.batch or (256 if on_gpu else 32)
    lars_rate = 0.075 * math.sqrt(batch)  # the paper's own for small batches, appendix B.1
    rates = {"adamw": 1e-3, "lars": lars_rate, "sgd": lars_rate / 4}
    # What ImageNet taught is soon forgotten: by large steps, and by the statistics of batches of a few images.
    is_random = config.start == "random"
    rate = rates[config.optimizer] * (1 if is_random else 0.1)
    return replace(
        config,
        size_px=size_px,
        batch=batch,
        cache_px=config.cache_px or min(2 * size_px, 512),
        epochs=config.epochs or (100 if on_gpu else 8),
        learning_rate=config.learning_rate or rate,
        freeze_batch_norm=not is_random if config.freeze_batch_norm is None else config.freeze_batch_norm,
        precision=precision,
        device=device,
        views=config.views or ("kornia" if on_gpu else "fast"),
    )


@dataclass(frozen=True)
class Demo:
    """Draw the demo data set: 15 products in MVTec AD's layout, 256 px, with defects and their masks.

    Attributes:
        out: Folder to make; one that holds the same demo set already is left alone.
        seed: Another seed, other images.
        categories: Only these products. Default is all 15.
        train: Good images to learn from, per category.
        good: Good test images per category.
        defective: Images of each kind of defect (4 or 5 kinds per category).
        workers: Processes that draw; the images do not depend on it. Default is one per core.
    """

    out: Path = Path("data/demo")
    seed: int = 0
    categories: Names = Names()
    train: int = 60
    good: int = 12
    defective: int = 7
    workers: int | None = None


@dataclass(frozen=True)
class Survey(LaidOut):
    """Count what a folder holds, name every file that cannot be used, warn of what would spoil figures, and cache it.

    Attributes:
        data: Folder of categories as docs/data.md shows. Default is data/mvtec where it exists, else demo data.
        categories: Only these categories.
        size_px: Side of the square to which images are stretched in the cache.
        workers: Processes that decode. Default is one per core.
        strict: Stop with exit code 2 if any file cannot be used.
        sheet: Write a contact sheet, some images of each kind with defects outlined, to this PNG file.
        json: Write the same report as JSON to this file.
    """

    data: Path | None = None
    categories: Names = Names()
    size_px: int = 256
    workers: int | None = None
    strict: bool = False
    sheet: Path | None = None
    json: Path | None = None


@dataclass(frozen=True)
class Convert:
    """Copy annotated images into a new folder in MVTec AD's layout; boxes and polygons become masks.

    Attributes:
        data: Folder of images; nothing in it is changed.
        annotations: File of COCO's, or folder of files of LabelMe, YOLO or Pascal VOC. Default is what lies in data, or
            in its annotations/, Annotations/ or labels/.
        category: What the product is called. Default is the folder's name.
        out: New folder to write.
    """

    data: Path
    out: Path
    annotations: Path | None = None
    category: str | None = None


@dataclass(frozen=True)
class Manifest:
    """List the images of a folder or a URL once, in a file that any number of machines read in parts.

    Attributes:
        url: Folder, archive, or URL of a folder (s3://, gs://, az://, https:// and what else fsspec reaches).
        out: Parquet file to write, or to bring up to date.
    """

    url: tuple[str, ...] = field(default=(), metadata={"positional": True})
    out: Path = Path("manifest.parquet")
