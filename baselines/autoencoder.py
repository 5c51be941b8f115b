"""Auto-encoders trained on each category's good images, and the defects they find.

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
    from baselines.autoencoders.config import Config
    from pretrain.command import start

    start("baselines.autoencoder:main", Config)

from dataclasses import replace
from functools import partial
from pathlib import Path

from lightning_fabric import Fabric

from baselines.autoencoders.config import Config
from baselines.autoencoders.method import AutoEncoder, ConvolutionalAutoEncoder, VariationalAutoEncoder
from baselines.autoencoders.networks import architecture_of
from baselines.autoencoders.report import FIGURES, IMAGES, print_figures, print_plan, read_figures, write_results
from baselines.contract.method import Images
from baselines.contract.model_folder import FILE, parts_of
from pretrain.command import Names, UserError
from pretrain.data.dataset import ImageSet, choose_folder, data_name, load
from pretrain.data.images import GOOD, Record, check_names
from pretrain.data.layouts import category_folders, has_layout
from pretrain.training.device import choose_device
from pretrain.training.fabric import make_fabric
from pretrain.training.memory import told_what_fits
from pretrain.training.run import Run
from pretrain.training.session import Session

# Of fewer, a tenth is less than one.
MIN_IMAGES = 10
CLASSES = {"ae": AutoEncoder, "vae": VariationalAutoEncoder}


def main(config: Config) -> None:
    """Train what is not trained yet, category by category, and print the figures of all."""
    folder = choose_folder(config.data)
    categories = [folder.resolve().name]
    if has_layout(folder, config.layout):
        categories = sorted(category_folders(folder, config.layout))
    check_names(config.category, categories, f"category in {folder}")
    on_gpu = choose_device(config.device).type == "cuda"
    fabric = make_fabric(config.device, config.precision or (None if on_gpu else "32-true"))
    if fabric.world_size > 1:
        raise UserError("an auto-encoder is trained by one process: start it without torchrun, a category on each GPU.")
    config = resolved(replace(config, data=folder, category=config.category or Names(categories)), fabric)
    figures = {category: train_category(of_category(config, category), fabric) for category in config.category}
    print_figures(figures, f"{config.model} on {data_name(folder)}, {config.size_px} px", config)


def train_category(config: Config, fabric: Fabric) -> dict:
    """Train on one category, write the model and its results; the figures."""
    run = Run(config.out)
    if run.skip_if_finished():
        return read_figures(config.out)
    normals, tests = load_images(config)
    method = make_method(config)
    method.recipe(len(normals))  # what cannot be trained is told before a folder is made
    method.make_network()
    session = partial(Session, str(config.category), run=run, checkpoint_minutes=config.checkpoint_minutes)

    def step_of(count: int) -> None:
        few = Images(normals.subset([i % len(normals) for i in range(2 * count)]))
        trial = replace(method, train_batch=count, epochs=1, instances=None).to(fabric.device)
        trial.learn(few, partial(Session, "trial"), fabric.autocast, min_steps=0)

    what_fits = told_what_fits(
        method.recipe(len(normals)).batch, config.size_px, step_of, fabric.device, options=("--batch-size", "--size-px")
    )
    with run.held(config), what_fits:
        print_plan(config, method, normals, tests)
        method.to(fabric.device).learn(Images(normals), session, fabric.autocast, min_steps=0, minutes=config.minutes)
        figures = write_results(config, run, method, normals, tests)
        run.finish(FILE, *parts_of(config.out), FIGURES, *IMAGES)
    return figures


def make_method(config: Config) -> AutoEncoder:
    """The method with the options that were typed."""
    same = ("model", "size_px", "width", "latent", "skips", "start", "backbone", "loss", "window_px", "color",
            "residual", "augmentation", "epochs", "instances", "learning_rate", "weight_decay", "seed")  # fmt: skip
    cls = CLASSES.get(config.model, ConvolutionalAutoEncoder)
    return cls(train_batch=config.batch_size, **{name: getattr(config, name) for name in same})


def load_images(config: Config) -> tuple[ImageSet, ImageSet]:
    """The normals of a category to learn from, none of which is a test image too, and its test images.

    Raises UserError where a tenth of the normals is less than one.
    """
    is_laid_out = has_layout(config.data, config.layout)
    categories = config.category if is_laid_out else ()
    images = load(config.data, config.size_px, categories, allow_plain=True, layout=config.layout)
    if not is_laid_out:  # subfolders of a plain folder are no categories here
        (category,) = config.category
        records = tuple(Record(record.path, category, "train", GOOD) for record in images.records)
        images = replace(images, records=records)
    tests = images.subset([i for i, record in enumerate(images.records) if record.split == "test"])
    tested = {entry.digest for entry in tests.entries}  # of pixels: the same image under another name counts too
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
    """The options of one category's run: of the minutes it has its share."""
    minutes = config.minutes and config.minutes / len(config.category)
    return replace(config, category=Names(category), out=config.out / category, minutes=minutes)


def resolved(config: Config, fabric: Fabric) -> Config:
    """What was left open. Raises UserError for a rate that cannot be kept."""
    if not 0 < config.false_alarm_rate < 1:
        raise UserError(
            f"--false-alarm-rate {config.false_alarm_rate} cannot be kept: "
            "give a share above 0 and below 1, such as 0.05."
        )
    if config.minutes is not None and not config.minutes > 0:
        raise UserError(f"--minutes must be above 0, not {config.minutes}.")
    return replace(
        config,
        out=config.out or Path("runs") / config.model,
        size_px=config.size_px or architecture_of(config.model).size_px,
        precision=fabric.strategy.precision.precision,
        device=fabric.device.type,
    )
