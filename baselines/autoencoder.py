"""Auto-encoders trained on each category's good images, and what they find.

    python baselines/autoencoder.py --model ae                                    # all categories of the demo data
    python baselines/autoencoder.py --model vae --data data/mvtec --category bottle,pill
    python baselines/autoencoder.py --model mvtec2 --loss ssim --size 128 --instances 10000 --data FOLDER
    python downstream/detect.py run IMAGES --model runs/ae/bottle

Defaults are what each architecture was published with, and meant for a GPU: on two cores, the AE's 96 million weights
want `--width 32 --epochs 30`. Results: runs/MODEL/CATEGORY/, a model that detect.py runs, with figures and images.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from baselines.autoencoder import Config, known_flags, main
    from pretrain.command import run_command

    sys.exit(run_command(main, Config, known_flags(sys.argv[1:])))

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pretrain.command import Names, UserError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from baselines.autoencoders.method import AutoEncoder
    from pretrain.data.dataset import ImageSet

# Of fewer, a tenth is less than one.
MIN_IMAGES = 10
# What users of earlier programs are used to.
OTHER_NAMES = {"--size": "--size-px", "--data-path": "--data", "--ckpt-path": "--out", "-i": "--instances"}


@dataclass(frozen=True)
class Config:
    """Train an auto-encoder on the good images of each category, and measure it on the test images.

    Attributes:
        model: ae, vae, one of the convolutional family, or the inspection line's.
        data: Folder in MVTec AD's layout, or of good images. Default is data/mvtec where it exists, else demo data.
        category: Only these categories, each of which gets a model of its own.
        out: Folder of the runs, one for each category; the same command goes on. Default is runs/MODEL.
        size_px: Side of the square that images are stretched to. Default is 128 for ae and vae, else 256.
        width: Channels of the first layer of ae and vae, which double at each halving. Default is 128.
        latent: Numbers in the middle, for models that have a choice.
        skips: Short cuts past the middle, for the inspection line's.
        start: Weights of the backbone; random, imagenet, a .pth file, or an encoder file of pretrain/simclr.py.
        backbone: Architecture of the backbone, where the weights do not say it.
        loss: mse, l2, ssim or mssim. Default is ssim for the convolutional family, else mse.
        window_px: Side of SSIM's window.
        color: rgb or gray.
        residual: The map; squared, absolute or ssim. Default is what the loss suggests.
        augmentation: none, moved (turned 10 degrees, shifted, brighter) or flipped. Default is as published.
        epochs: Passes over the images. Default is 100, for the inspection line's 50.
        instances: Images to look at in all, instead of epochs.
        batch_size: Images in a step. Default is 32 for ae and vae, else 16.
        learning_rate: Default is as published.
        weight_decay: Default is as published.
        false_alarm_rate: Share of good images that may be called defective; the threshold follows from it.
        minimum_area: Regions of fewer pixels are dropped, and an image without any other is good.
        precision: 32-true or bf16-mixed. Default is bf16-mixed on a GPU that has it.
        device: cpu, cuda, or auto for a GPU where there is one.
        checkpoint_minutes: Minutes between two checkpoints.
        seed: Another seed, another network and another tenth held out.
    """

    model: Literal["ae", "vae", "mvtec", "mvtec2", "backbone", "baseline", "inception", "skip", "inspection"] = "ae"
    data: Path | None = None
    category: Names = Names()
    out: Path | None = None
    size_px: int | None = None
    width: int | None = None
    latent: int | None = None
    skips: bool = False
    start: str = "random"
    backbone: str = "resnet18"
    loss: Literal["mse", "l2", "ssim", "mssim"] | None = None
    window_px: int = 11
    color: Literal["rgb", "gray"] = "rgb"
    residual: Literal["squared", "absolute", "ssim"] | None = None
    augmentation: Literal["none", "moved", "flipped"] | None = None
    epochs: int | None = None
    instances: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    false_alarm_rate: float = 0.1
    minimum_area: int = 0
    precision: Literal["32-true", "bf16-mixed"] | None = None
    device: str = "auto"
    checkpoint_minutes: float = 1.0
    seed: int = 0


def known_flags(arguments: Sequence[str]) -> list[str]:
    """The command line with what its users may type otherwise, `--batch_size` or `--size`, as it is called here."""
    own = {"--" + field.name.replace("_", "-") for field in fields(Config)}
    found = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        hyphened = flag.replace("_", "-") if flag.startswith("--") else flag
        hyphened = OTHER_NAMES.get(hyphened, hyphened)
        found.append(hyphened + equals + value if hyphened in own else argument)
    return found


def main(config: Config) -> int:
    """Train what is not trained yet, category by category, and print what all of them find."""
    import torch

    from baselines.autoencoders.journal import Stopped
    from baselines.autoencoders.report import print_figures
    from pretrain.data.dataset import choose_folder, data_name
    from pretrain.data.images import category_folders, check_names, has_layout
    from pretrain.training.device import make_fabric

    folder = choose_folder(config.data)
    categories = sorted(category_folders(folder)) if has_layout(folder) else [folder.resolve().name]
    check_names(config.category, categories, f"category in {folder}")
    on_gpu = config.device != "cpu" and torch.cuda.is_available()
    fabric = make_fabric(config.device, config.precision or (None if on_gpu else "32-true"))
    if fabric.world_size > 1:
        raise UserError("an auto-encoder is trained by one process: start it without torchrun, a category on each GPU.")
    config = resolved(replace(config, data=folder, category=config.category or Names(categories)), fabric)
    try:
        figures = {category: train_category(of_category(config, category), fabric) for category in config.category}
    except Stopped as stopped:
        print(f"{stopped}; the same command goes on from there.")
        return 130
    print_figures(figures, f"{config.model} on {data_name(folder)}, {config.size_px} px", config)
    return 0


def train_category(config: Config, fabric: "Fabric") -> dict:
    """Train on one category, write the model and what it finds; the figures."""
    from baselines.autoencoders.journal import Journal
    from baselines.autoencoders.report import announce, conclude, kept_figures
    from baselines.contract.method import Images
    from pretrain.training.run import Run
    from pretrain.training.session import stop_asked

    run = Run(config.out)
    if run.is_finished:
        print(f"{config.out} holds a finished run: choose another --out for a new one.")
        return kept_figures(config.out)
    normals, tests = images_of(config)
    method = make_method(config)
    method.recipe(len(normals))  # what cannot be trained is told before a folder is made
    method.make_network()
    with run.held(config), stop_asked(fabric) as is_stop_asked:
        announce(config, method, normals, tests)
        journal = Journal(str(config.category), run, config.checkpoint_minutes, is_stop_asked, fabric.autocast)
        method.learn(Images(normals, fabric.device), journal, is_literal=True)
        return conclude(config, run, method, normals, tests)


def make_method(config: Config) -> "AutoEncoder":
    """The method with the options that were typed."""
    from baselines.autoencoders.method import AutoEncoder, ConvolutionalAutoEncoder, VariationalAutoEncoder

    kind = {"ae": AutoEncoder, "vae": VariationalAutoEncoder}.get(config.model, ConvolutionalAutoEncoder)
    same = ("model", "size_px", "width", "latent", "skips", "start", "backbone", "loss", "window_px", "color",
            "residual", "augmentation", "epochs", "instances", "learning_rate", "weight_decay", "seed")  # fmt: skip
    return kind(train_batch=config.batch_size, **{name: getattr(config, name) for name in same})


def images_of(config: Config) -> tuple["ImageSet", "ImageSet"]:
    """The normals to learn from, none of which is a test image too, and the test images of a category.

    Raises UserError where a tenth of the normals is less than one.
    """
    from pretrain.data.dataset import load
    from pretrain.data.images import GOOD, Record, has_layout

    is_laid_out = has_layout(config.data)
    images = load(config.data, config.size_px, config.category if is_laid_out else (), allow_plain=True)
    if not is_laid_out:  # subfolders of a plain folder are no categories here
        (category,) = config.category
        records = tuple(Record(record.path, category, "train", GOOD) for record in images.records)
        images = replace(images, records=records)
    tests = images.subset([i for i, record in enumerate(images.records) if record.split == "test"])
    tested = {entry.digest for entry in tests.entries}
    normals = images.subset([
        i for i, (record, entry) in enumerate(zip(images.records, images.entries, strict=True))
        if record.split == "train" and record.defect == GOOD and entry.digest not in tested
    ])  # fmt: skip
    if len(normals) < MIN_IMAGES:
        raise UserError(
            f"{len(normals)} good images of {config.category} are too few to hold a tenth out: give "
            f"{MIN_IMAGES} or more, or use downstream/detect.py fit, whose other methods need fewer."
        )
    return normals, tests


def of_category(config: Config, category: str) -> Config:
    """The options of one category's run."""
    return replace(config, category=Names(category), out=config.out / category)


def resolved(config: Config, fabric: "Fabric") -> Config:
    """What was left open. Raises UserError for a rate that cannot be kept."""
    from baselines.autoencoders.networks import architecture_of

    if not 0 < config.false_alarm_rate < 1:
        raise UserError(
            f"--false-alarm-rate {config.false_alarm_rate} cannot be kept: "
            "give a share above 0 and below 1, such as 0.05."
        )
    return replace(
        config,
        out=config.out or Path("runs") / config.model,
        size_px=config.size_px or architecture_of(config.model).size_px,
        precision=fabric.strategy.precision.precision,
        device=fabric.device.type,
    )
