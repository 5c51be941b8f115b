"""Restore degraded images without painting over their defects: SADNet, trained, judged and used.

    python baselines/sadnet.py train --train capsule,hazelnut,leather --minutes 60
    python baselines/sadnet.py evaluate --test bottle,pill,wood
    python baselines/sadnet.py restore IMAGE_OR_FOLDER --model runs/sadnet
    python baselines/sadnet.py train --pairs FOLDER      # Degraded_image, GT_clean_image, Defect_mask

The baseline that `downstream/restore.py`, which has the same commands, is compared with. `train` leaves a run folder:
config, figures, curves, and the model in OUT/model; killed or stopped, the same command goes on.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from baselines.sadnet import Evaluate, Restore, Train, evaluate, restore, train
    from pretrain.command import run_commands

    sys.exit(run_commands({"train": (train, Train), "evaluate": (evaluate, Evaluate), "restore": (restore, Restore)}))

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pretrain.command import Names, UserError

if TYPE_CHECKING:
    from baselines.restoration.restorer import NetworkRestorer


@dataclass(frozen=True)
class Train:
    """Train a restorer on good images with synthetic anomalies, degraded, or on real pairs.

    Attributes:
        data: Folder of categories in MVTec AD's layout. Default is data/mvtec where it exists, else demo data.
        train: Categories to learn from; their good images alone. Default is all of them.
        pairs: Folder of real pairs to learn from instead; Degraded_image, GT_clean_image and Defect_mask.
        level: How the images are degraded; mild, medium or harsh.
        input_size: Side of the square that images are stretched to; 512, 640 and 800 were published.
        crop_px: Side of the squares that are cut out of it to learn from.
        batch_size: Squares a step.
        epochs: Length of the training in passes over the images.
        steps: Length in steps instead.
        minutes: Length in minutes instead, turned into steps after a short warm-up.
        learning_rate: Of Adam.
        warmup: Share of the steps in which the learning rate rises; without it, offsets may explode.
        half_cosines: How often the learning rate then falls or rises; 5 as published, 1 falls once.
        alpha: Weight of every pixel.
        beta: Weight that a defect's pixels have besides.
        loss_weights: Of squares, of absolute values, and of minus PSNR.
        weighting: published leaves minus PSNR unweighted, repaired weighs it, balanced counts small defects in full.
        seed: First weights, defects, degradation and order.
        checkpoint_minutes: Minutes between two checkpoints.
        device: cpu, cuda, or auto for a GPU where there is one.
        out: The run's folder; the same command again goes on where a run was stopped.
    """

    data: Path | None = None
    train: Names = Names()
    pairs: Path | None = None
    level: str = "medium"
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
    device: str = "auto"
    out: Path = Path("runs/sadnet")

    def restorer(self) -> "NetworkRestorer":
        """What is to be trained, not yet trained."""
        from baselines.restoration.restorer import SadNetRestorer

        return SadNetRestorer(**self.shared())

    def shared(self) -> dict:
        """The arguments that every restorer takes."""
        names = ("batch_size", "crop_px", "learning_rate", "warmup", "half_cosines", "alpha", "beta", "weighting")
        given = {name: getattr(self, name) for name in (*names, "device", "seed")}
        return given | {"loss_weights": list(self.loss_weights), "steps": self.steps or 1}


@dataclass(frozen=True)
class Evaluate:
    """Judge a trained restorer on categories that it never saw, or on real pairs, beside the degraded input.

    Attributes:
        model: The run's folder that train wrote.
        data: Folder of categories in MVTec AD's layout. Default is data/mvtec where it exists, else demo data.
        test: Categories to judge; their test images, degraded, with their real masks. Default is all that neither
            the training nor its encoder saw.
        pairs: Folder of real pairs to judge instead.
        level: How the test images are degraded. Default is as in training.
        input_size: Side of the square that images are stretched to; 0 for images as they are, real pairs only.
            Default is as in training.
        interpolate: Stretch what was restored back to its own size; --no-interpolate compares in the square.
        memory_mb: What the network may take at once; larger images are restored in tiles.
        seed: Another seed, other noise.
        shown: Images of each category that are drawn side by side; all of them with -1.
        allow_seen: Judge categories that were trained on; the title says so.
        out: Folder of results. Default is the folder test of the run.
    """

    model: Path = Path("runs/sadnet")
    data: Path | None = None
    test: Names = Names()
    pairs: Path | None = None
    level: str | None = None
    input_size: int | None = None
    interpolate: bool = True
    memory_mb: float = 2000.0
    seed: int = 0
    shown: int = 10
    allow_seen: bool = False
    out: Path | None = None


@dataclass(frozen=True)
class Restore:
    """Restore images of any size and depth; files keep their names, formats and levels.

    Attributes:
        images: Images, or folders of images.
        model: The run's folder that train wrote.
        memory_mb: What the network may take at once; larger images are restored in tiles.
        out: Folder for the restored images; existing files there are written anew.
    """

    images: tuple[Path, ...] = field(default=(), metadata={"positional": True})
    model: Path = Path("runs/sadnet")
    memory_mb: float = 2000.0
    out: Path = Path("runs/restored")


def train(config: Train) -> int:
    """Train, or go on with a training that was stopped, and write the model."""
    from baselines.restoration.run import MODEL, Session, make_material
    from pretrain.data.dataset import choose_folder
    from pretrain.degrade import level_named
    from pretrain.training.device import make_fabric
    from pretrain.training.run import Run
    from pretrain.training.session import stop_asked

    if config.pairs is None:
        config = replace(config, data=choose_folder(config.data))
        level_named(config.level)
    run, restorer = Run(config.out), config.restorer()
    restorer.recipe.check()
    check_length(config)
    fabric = make_fabric(config.device, "32-true")
    material = make_material(config, fabric.device)
    with run.held(config), stop_asked(fabric) as is_stop_asked:
        if run.is_finished:
            print(f"{config.out} holds a finished run: choose another --out for a new one.")
            return 0
        session = Session(restorer, run, material, config)
        metadata = material.metadata
        print(f"{type(restorer).__name__}: {metadata['images']} images of {', '.join(metadata['categories'])} "
              f"({metadata['data']}), {session.steps} steps of {config.batch_size}", flush=True)  # fmt: skip
        print(f"degradation, {metadata['degradation']}", flush=True)
        if session.first:
            print(f"going on after step {session.first}", flush=True)
        if not session.walk(is_stop_asked):
            return 130
        session.conclude()
        print(f"{session.steps} steps in {session.seconds / 60:.1f} min")
        print(f"model:  {config.out / MODEL}")
        print(f"curves: {config.out / 'curves.png'}")
        run.finish()
    return 0


def check_length(config: Train) -> None:
    for name in ("epochs", "steps", "minutes", "checkpoint_minutes"):
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise UserError(f"--{name.replace('_', '-')} must be above 0, not {value}.")
    if config.seed < 0:
        raise UserError(f"--seed must be 0 or more, not {config.seed}.")


def evaluate(config: Evaluate) -> None:
    """Judge, print the table, and write figures and images."""
    from baselines.restoration.evaluate_with import evaluate_with

    evaluate_with(config, load_sadnet)


def restore(config: Restore) -> int:
    """Restore every image; 3 where some could not be read."""
    from baselines.restoration.restore_with import restore_with

    return restore_with(config, load_sadnet)


def load_sadnet(folder: Path) -> "NetworkRestorer":
    from baselines.restoration.restorer import SadNetRestorer

    return SadNetRestorer.load(folder)
