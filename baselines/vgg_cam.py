"""VGG16 with class activation maps: learn defects on some products, look for them on products that were never seen.

    python baselines/vgg_cam.py train --train capsule,hazelnut,leather
    python baselines/vgg_cam.py test --test bottle,pill,wood
    python baselines/vgg_cam.py train --weights random --width 0.25 --size-px 96    # without ImageNet

The baseline that this project is compared with. `train` leaves a run folder: config, figures, curves, and the model in
OUT/model; killed or stopped, the same command goes on. `test` prints both readings of the confusion matrix beside the
published one, and leaves images and JSON in OUT/test.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from baselines.vgg_cam import Test, Train, test, train
    from pretrain.command import run_commands

    sys.exit(run_commands({"train": (train, Train), "test": (test, Test)}))

import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pretrain.command import Names, UserError
from pretrain.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from baselines.cam.method import VggCam
    from baselines.cam.training import Training
    from baselines.contract.method import Samples
    from pretrain.data.dataset import ImageSet
    from pretrain.training.run import Run

MODEL, CALIBRATION_FILE, BEST_FILE = "model", "calibration.json", "best.safetensors"
# Of the labelled images of the training categories; another 15 % of all end the training.
LEARNING, CALIBRATION = 0.85, 0.15


@dataclass(frozen=True)
class Train:
    """Train on all labelled images of some categories.

    Attributes:
        data: Folder of categories in MVTec AD's layout. Default is data/mvtec where it exists, else demo data.
        train: Categories to learn from; images of both of their folders, train and test, with their labels.
        weights: imagenet (torchvision's), a VGG16 as .pth, or random; with random, nothing is frozen.
        width: Scales all channels, to try things on a small machine; needs random weights.
        size_px: Side of the square that images are stretched to.
        epochs: At most.
        batch_size: Images a step.
        learning_rate: Of Adam.
        patience: Epochs without a better validation loss after which to stop.
        target_accuracy: Also stop once this share of the training images is told right; 0.98 was published.
        cached: Compute what frozen layers give only once; the result is the same.
        seed: Splits, first weights and order.
        checkpoint_minutes: Minutes between two checkpoints.
        device: cpu, cuda, or auto for a GPU where there is one.
        out: The run's folder; the same command again goes on where a run was stopped.
    """

    data: Path | None = None
    train: Names = Names("capsule,hazelnut,leather")
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
    device: str = "auto"
    out: Path = Path("runs/vgg_cam")

    def method(self) -> "VggCam":
        from baselines.cam.method import VggCam

        return VggCam(
            weights=self.weights,
            width=self.width,
            input_px=self.size_px,
            epochs=self.epochs,
            train_batch=self.batch_size,
            learning_rate=self.learning_rate,
            patience=self.patience,
            target_accuracy=self.target_accuracy,
            cached=self.cached,
            device=self.device,
            seed=self.seed,
        )


@dataclass(frozen=True)
class Test:
    """Judge images of other categories, and say how well that went.

    Attributes:
        data: Folder of categories in MVTec AD's layout. Default is data/mvtec where it exists, else demo data.
        test: Categories to judge, none of which was trained on.
        model: The run's folder that train wrote.
        images: all, as published, or those of the test folders alone.
        false_alarm_rate: Share of good images that may be called defective at the calibrated threshold.
        minimum_area: Regions of fewer pixels get no box.
        shown: Images of each kind and category in the grid.
        out: Folder of results. Default is the folder test of the run.
    """

    data: Path | None = None
    test: Names = Names("bottle,pill,wood")
    model: Path = Path("runs/vgg_cam")
    images: Literal["all", "test"] = "all"
    false_alarm_rate: float = 0.05
    minimum_area: int = 0
    shown: int = 5
    out: Path | None = None


def train(config: Train) -> int:
    """Train, or go on with a training that was stopped, and write the model."""
    from baselines.contract.method import Samples
    from pretrain.data.dataset import choose_folder, data_name, load
    from pretrain.training.device import make_fabric
    from pretrain.training.run import Run
    from pretrain.training.session import stop_asked

    config = replace(config, data=choose_folder(config.data))
    run, method = Run(config.out), config.method()
    method.check()  # before the folder is this run's
    fabric = make_fabric(config.device, "32-true")
    images = load(config.data, config.size_px, config.train)
    parts = images.split({"learning": LEARNING, "calibration": CALIBRATION}, config.seed)
    learning = Samples(parts["learning"])
    with run.held(config), stop_asked(fabric) as is_stop_asked:
        if run.is_finished:
            print(f"{config.out} holds a finished run: choose another --out for a new one.")
            return 0
        frozen = config.out / f"frozen-{content(parts['learning'])}.f32"
        with method.session(learning, frozen) as session:
            start = "from scratch" if config.weights == "random" else f"from {config.weights}, first ten layers frozen"
            print(f"VGG16-CAM {start}: {len(session.parts.train)} images of {', '.join(images.categories)} "
                  f"({data_name(config.data)}), {len(session.parts.validation)} to stop in time, "
                  f"{len(parts['calibration'])} for thresholds", flush=True)  # fmt: skip
            seconds = walk(session, run, config, is_stop_asked)
            if not session.state.is_over:
                print(f"stopped after {session.state.step} steps; the same command goes on from there.")
                return 130
            conclude(method, learning, session, run, config, parts["calibration"], seconds)
        for left in (frozen, config.out / BEST_FILE):
            left.unlink(missing_ok=True)
        run.finish()
    return 0


def content(images: "ImageSet") -> str:
    """Eight hexadecimal digits that change with any image."""
    return blake2b(b"".join(entry.digest for entry in images.entries), digest_size=4).hexdigest()


def walk(session: "Training", run: "Run", config: Train, is_stop_asked: "Callable[[], bool]") -> float:
    """Take the steps that are left, until the end or until somebody asks to stop. Seconds over all resumes."""
    from baselines.cam.training import State
    from pretrain.files import write_tensors
    from pretrain.progress import Progress

    metadata = run.restore(session.network, session.optimizer) or {"state": {}, "seconds": 0.0}
    session.state = State(**metadata["state"])
    if session.state.step:
        print(f"going on after step {session.state.step}", flush=True)
    run.forget_figures_from(session.state.step)
    start_s = saved_s = time.monotonic()

    def seconds() -> float:
        return metadata["seconds"] + time.monotonic() - start_s

    with Progress("training", session.steps, "steps", done=session.state.step) as progress:
        for step in session.walk():
            run.log(step.step, loss=step.loss, **(step.epoch._asdict() if step.epoch else {}))
            if step.is_best:  # a run that is killed before its next checkpoint takes these steps again, to the same
                write_tensors(config.out / BEST_FILE, session.network.state_dict(), {"epoch": step.epoch.epoch})
            progress.advance(note=f"loss {step.loss:.3f}")
            if step.epoch:
                progress.print(in_words(step.epoch, step.is_best))
            is_stopped = is_stop_asked()
            if is_stopped or time.monotonic() - saved_s > 60 * config.checkpoint_minutes:
                run.save(session.network, session.optimizer, {"step": session.state.step, "seconds": seconds(),
                                                              "state": asdict(session.state)})  # fmt: skip
                saved_s = time.monotonic()
            if is_stopped:
                break
    return seconds()


def in_words(epoch, is_best: bool) -> str:
    line = f"epoch {epoch.epoch + 1}: loss {epoch.train_loss:.3f}, accuracy {epoch.train_accuracy:.1%}"
    if epoch.validation_loss is not None:
        line += f"; held out: loss {epoch.validation_loss:.3f}, accuracy {epoch.validation_accuracy:.1%}"
    return line + (", the best so far" if is_best else "")


def conclude(
    method: "VggCam",
    learning: "Samples",
    session: "Training",
    run: "Run",
    config: Train,
    calibration: "ImageSet",
    seconds: float,
) -> None:
    """Write the model with its best weights, the normals' scores that thresholds come from, and the curves."""
    import torch

    from baselines.contract.method import Images
    from pretrain.data.dataset import data_name
    from pretrain.drawing import Curve, curves, save_image
    from pretrain.files import read_tensors

    session.network.load_state_dict(read_tensors(config.out / BEST_FILE)[0])
    method.conclude(learning, session).save(config.out / MODEL)
    good = calibration.subset([i for i, record in enumerate(calibration.records) if not record.is_anomaly])
    found = list(method.predict(Images(good)))
    metadata = {
        "data": data_name(config.data),
        "categories": sorted(config.train or {record.category for record in learning.images.records}),
        "weights": config.weights if config.weights in ("random", "imagenet") else Path(config.weights).name,
        "size_px": config.size_px,
        "best_epoch": session.state.best_epoch,
        "normal_scores": torch.cat([part.scores for part in found]).tolist() if found else [],
        "normal_peaks": torch.cat([part.maps.flatten(1).amax(1) for part in found]).tolist() if found else [],
    }
    write_json(config.out / CALIBRATION_FILE, metadata)
    lines = run.metrics()
    epochs = [line for line in lines if "epoch" in line]
    panels = [
        Curve("loss", [(line["step"], line["loss"]) for line in lines]),
        Curve("accuracy of each epoch, training images", [(e["step"], e["train_accuracy"]) for e in epochs]),
    ]
    if epochs[0]["validation_loss"] is not None:
        panels.append(Curve("loss, held-out images", [(e["step"], e["validation_loss"]) for e in epochs]))
    save_image(curves(panels, f"VGG16-CAM on {metadata['data']}"), config.out / "curves.png")
    print(
        f"{len(epochs)} epochs in {seconds / 60:.1f} min; the weights are those of epoch {metadata['best_epoch'] + 1}"
    )
    print(f"model:  {config.out / MODEL}")
    print(f"curves: {config.out / 'curves.png'}")
    print(f"next:   python baselines/vgg_cam.py test --model {config.out} --data {config.data} --test CATEGORIES")


def test(config: Test) -> None:
    """Judge, print the figures, and write images and JSON."""
    from baselines.cam.method import VggCam
    from baselines.cam.report import judge, print_report, write_report
    from pretrain.data.dataset import choose_folder, load

    file = config.model / CALIBRATION_FILE
    if not file.is_file():
        raise UserError(
            f"there is no finished training in {config.model}; python baselines/vgg_cam.py train makes one."
        )
    metadata = json.loads(file.read_text())
    if seen := sorted(set(config.test) & set(metadata["categories"])):
        raise UserError(
            f"{', '.join(seen)} was trained on, so figures there would say nothing of unseen products: choose --test "
            f"without {', '.join(metadata['categories'])}."
        )
    method = VggCam.load(config.model / MODEL)
    images = load(choose_folder(config.data), metadata["size_px"], config.test)
    if seen := sorted(set(images.categories) & set(metadata["categories"])):
        raise UserError(f"{', '.join(seen)} was trained on: name others with --test.")
    chosen = [i for i, record in enumerate(images.records) if config.images == "all" or record.split == "test"]
    if not chosen:
        raise UserError(f"{', '.join(images.categories)} has no test images: take --images all, or other ones.")
    judged = judge(method, images.subset(chosen), metadata, config)
    print_report(judged)
    write_report(judged, config.out or config.model / "test")
    sys.stdout.flush()
