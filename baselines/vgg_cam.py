"""VGG16 with class activation maps: learn defects on some products, look for them on products that were never seen.

    python baselines/vgg_cam.py train --train capsule,hazelnut,leather
    python baselines/vgg_cam.py test --test bottle,pill,wood
    python baselines/vgg_cam.py train --architecture efficientnet_lite0             # ImageNet's, on every machine
    python baselines/vgg_cam.py train --weights random --width 0.25 --size-px 96    # without ImageNet

The baseline that this project is compared with. `train` leaves a run folder: config, figures, curves, and the model in
OUT/model; killed or stopped, the same command resumes. `test` prints both readings of the confusion matrix beside the
published one, and leaves images and JSON in OUT/test.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from baselines.cam.config import Test, Train
    from pretrain.command import start_commands

    start_commands({"train": ("baselines.vgg_cam:train", Train), "test": ("baselines.vgg_cam:test", Test)})

import sys
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from pathlib import Path

import torch

from baselines.cam.config import Test, Train
from baselines.cam.method import Cam, VggCam
from baselines.cam.network import VGG16
from baselines.cam.report import calibration_maps, draw_curves, evaluate, print_report, write_report
from baselines.contract.method import Images, Samples
from pretrain.command import UserError
from pretrain.data.dataset import ImageSet, choose_folder, data_name, layout_of, load
from pretrain.drawing import save_image
from pretrain.files import stored_json, write_json
from pretrain.training.device import choose_device
from pretrain.training.fabric import make_fabric
from pretrain.training.memory import told_what_fits
from pretrain.training.run import Run
from pretrain.training.session import Session

MODEL, CALIBRATION_FILE = "model", "calibration.json"
# Of the labeled images of the training categories; another 15 % of all end the training.
TRAIN_SHARE, CALIBRATION_SHARE = 0.85, 0.15


def train(config: Train) -> None:
    """Train, or resume a training that was stopped, and write the model."""
    config = replace(config, data=choose_folder(config.data))
    run, method = Run(config.out), make_method(config)
    method.recipe()  # what cannot be trained is told before the folder is this run's
    fabric = make_fabric(config.device, "32-true")
    method.to(fabric.device)
    config = replace(config, device=fabric.device.type)
    images = load(config.data, config.size_px, config.train, layout=config.layout)
    parts = images.split({"train": TRAIN_SHARE, "calibration": CALIBRATION_SHARE}, config.seed)
    samples, calibration = Samples(parts["train"]), parts["calibration"]
    with run.held(config):
        if run.skip_if_finished():
            return
        # Named by what it was made of: a run that resumes takes it as it is.
        frozen = config.out / f"frozen-{content(parts['train'])}.f32"
        with method.prepare(samples, frozen) as training:
            start = "from scratch"
            if config.weights != "random":
                layers = "first ten layers" if config.architecture == VGG16 else "all levels but the last"
                start = f"from {config.weights}, {layers} frozen"
            print(f"{method.title} {start}: {len(training.split.train)} images of {', '.join(images.categories)} "
                  f"({data_name(config.data)}), {len(training.split.validation)} to stop in time, "
                  f"{len(calibration)} for thresholds", flush=True)  # fmt: skip
            open_session = partial(Session, "training", run=run, fabric=fabric,
                                   checkpoint_minutes=config.checkpoint_minutes)  # fmt: skip
            with told_what_fits(config.batch_size, config.size_px, training.step_of, fabric.device,
                                options=("--batch-size", "--size-px")):  # fmt: skip
                minutes = training.train(open_session).seconds / 60
            method.finish(samples, training).save(config.out / MODEL)
        metadata = {
            "data": data_name(config.data),
            "layout": config.layout,
            "categories": sorted(config.train or {record.category for record in parts["train"].records}),
            "architecture": config.architecture,
            "weights": config.weights if config.weights in ("random", "imagenet") else Path(config.weights).name,
            "weights_saw": list(method.saw),
            "size_px": config.size_px,
            "best_epoch": training.state.best_epoch,
            **scores_of_normals(method, calibration),
        }
        write_json(config.out / CALIBRATION_FILE, metadata)
        save_image(draw_curves(run.metrics(), f"{method.title} on {metadata['data']}"), config.out / "curves.png")
        if maps := calibration_maps(method, calibration, metadata):
            save_image(maps, config.out / "maps.png")
        frozen.unlink(missing_ok=True)
        run.finish(MODEL, CALIBRATION_FILE, "curves.png", "maps.png")
    epochs = sum("epoch" in line for line in run.metrics())
    print(f"{epochs} epochs in {minutes:.1f} min; the weights are those of epoch {metadata['best_epoch'] + 1}")
    print(f"model:  {config.out / MODEL}")
    print(f"curves: {config.out / 'curves.png'}")
    print(f"next:   python baselines/vgg_cam.py test --model {config.out} --data {config.data} --test CATEGORIES")


def make_method(config: Train) -> Cam:
    """The method with the options that were typed."""
    same = (
        "architecture",
        "weights",
        "width",
        "epochs",
        "learning_rate",
        "patience",
        "target_accuracy",
        "cached",
        "seed",
    )
    options = {name: getattr(config, name) for name in same}
    return class_of(config.architecture)(input_px=config.size_px, train_batch=config.batch_size, **options)


def class_of(architecture: str) -> type[Cam]:
    """The class by which the catalogue knows it."""
    return VggCam if architecture == VGG16 else Cam


def content(images: ImageSet) -> str:
    """Eight hexadecimal digits that change with any image."""
    return blake2b(b"".join(entry.digest for entry in images.entries), digest_size=4).hexdigest()


def scores_of_normals(method: Cam, calibration: ImageSet) -> dict[str, list[float]]:
    """What thresholds come from: scores of the calibration part's good images, and the peaks of their maps."""
    good = calibration.subset([i for i, record in enumerate(calibration.records) if not record.is_anomaly])
    predictions = list(method.predict(Images(good)))
    scores = torch.cat([torch.zeros(0), *(prediction.scores.cpu() for prediction in predictions)])
    peaks = torch.cat([torch.zeros(0), *(prediction.maps.flatten(1).amax(1).cpu() for prediction in predictions)])
    return {"normal_scores": scores.tolist(), "normal_peaks": peaks.tolist()}


def test(config: Test) -> None:
    """Classify, print the figures, and write images and JSON."""
    file = config.model / CALIBRATION_FILE
    if not file.is_file():
        raise UserError(
            f"there is no finished training in {config.model}; python baselines/vgg_cam.py train makes one."
        )
    metadata = stored_json(file, "train the model anew")
    known = sorted({*metadata["categories"], *metadata["weights_saw"]})
    if seen := sorted(set(config.test) & set(known)):
        raise UserError(
            f"{', '.join(seen)} was trained on, so figures there would say nothing of unseen products: choose --test "
            f"without {', '.join(known)}."
        )
    method = class_of(metadata["architecture"]).load(config.model / MODEL).to(choose_device(config.device))
    folder = choose_folder(config.data)
    layout = layout_of(folder, config.layout, metadata)
    images = load(folder, metadata["size_px"], config.test, layout=layout)
    if seen := sorted(set(images.categories) & set(known)):
        raise UserError(f"{', '.join(seen)} was trained on: name others with --test.")
    chosen = [i for i, record in enumerate(images.records) if config.images == "all" or record.split == "test"]
    if not chosen:
        raise UserError(f"{', '.join(images.categories)} has no test images: take --images all, or other ones.")
    evaluation = evaluate(method, images.subset(chosen), metadata, config)
    print_report(evaluation)
    write_report(evaluation, config.out or config.model / "test")
    sys.stdout.flush()
