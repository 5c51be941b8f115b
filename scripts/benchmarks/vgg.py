"""How much faster VGG16-CAM is trained when what its frozen layers give is computed once, beside the plain loop.

    python scripts/benchmarks/vgg.py            # some minutes on two cores
    python scripts/benchmarks/vgg.py --quick    # within a minute: fewer images and rounds
    python scripts/benchmarks/vgg.py --check    # exit code 1 where a target is missed
    python scripts/benchmarks/vgg.py --record RESULTS.md

Both trainings start from the same weights, a file of random ones that is taken for pretrained, on the same generated
images of 224 px, and take epochs in turn, validation included: the recipe of `baselines/vgg_cam.py` at batch 40. Both
are the same code but for where the frozen layers' results come from. Targets: an epoch at least 4 times as fast, and
weights that are the same to 1e-5 of the largest. The whole run's ratio counts the one pass through the frozen layers.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from pretrain.command import start
    from scripts.benchmarks.config import Vgg

    start("scripts.benchmarks.vgg:main", Vgg)

import os
import tempfile
import time
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median

import torch

from baselines.cam.method import VggCam
from baselines.cam.network import VGG16, make_network
from baselines.cam.training import CamTraining
from baselines.contract.method import Samples
from pretrain.data.dataset import load
from pretrain.demo import make
from scripts.benchmarks.config import Vgg
from scripts.benchmarks.rounds import finish, in_rounds, seconds_of, speedup

SIZE_PX, CATEGORY, WHOLE_RUN_EPOCHS = 224, "hazelnut", 10
QUICK_ROUNDS, QUICK_IMAGES = 2, 20
AT_LEAST = {"epoch": 4.0}
AT_MOST = {"weights_apart": 1e-5}


def main(config: Vgg) -> int:
    rounds, images = (QUICK_ROUNDS, QUICK_IMAGES) if config.quick else (config.rounds, config.images)
    with tempfile.TemporaryDirectory() as folder:
        samples, weights = make_material(Path(folder), images)
        seconds, once_s, apart = train_in_turn(samples, weights, rounds, Path(folder))
    plain_s, ours_s = median(seconds["plain"]), median(seconds["ours"])
    figures = {
        "epoch": speedup(seconds["ours"], seconds["plain"]),
        "whole_run": WHOLE_RUN_EPOCHS * plain_s / (once_s + WHOLE_RUN_EPOCHS * ours_s),
        "plain_epoch_s": plain_s,
        "our_epoch_s": ours_s,
        "once_s": once_s,
        "weights_apart": apart,
        "images": len(samples),
        "threads": torch.get_num_threads(),
    }
    lines = [
        f"{len(samples)} generated images at {SIZE_PX} px, batch 40, {torch.get_num_threads()} threads,",
        f"medians of {rounds} interleaved epochs, validation included; weights apart relative to the largest",
        f"  plain loop      {plain_s:8.2f} s per epoch",
        f"  ours            {ours_s:8.2f} s per epoch, after {once_s:.2f} s once",
        f"  whole run       {figures['whole_run']:8.2f}  ({WHOLE_RUN_EPOCHS} epochs and that one pass, by medians)",
    ]
    return finish("vgg", config, lines, figures, at_least=AT_LEAST, at_most=AT_MOST)


def make_material(folder: Path, count: int) -> tuple[Samples, Path]:
    """Generated images, two thirds of them good, and a file of VGG16 weights as torchvision publishes them."""
    os.environ["HELDOUT_CACHE"] = str(folder / "cache")
    make(folder / "demo", categories=(CATEGORY,), train=2 * count // 3, good=0, defective=-(-count // 3))
    images = load(folder / "demo", SIZE_PX)
    defective = [i for i, record in enumerate(images.records) if record.is_anomaly][: count - 2 * count // 3]
    good = [i for i, record in enumerate(images.records) if not record.is_anomaly]
    network = make_network(VGG16, seed=7)
    path = folder / "vgg16.pth"
    ours = network.features.state_dict()
    torch.save({f"features.{name.partition('.')[2]}": weight for name, weight in ours.items()}, path)
    return Samples(images.subset([*good, *defective])), path


def train_in_turn(
    samples: Samples, weights: Path, rounds: int, folder: Path
) -> tuple[dict[str, list[float]], float, float]:
    """Seconds of each epoch; of the one pass through the frozen layers; how far apart both trainings' weights end."""
    plain, ours = (VggCam(weights=str(weights), cached=cached, epochs=rounds + 1, patience=99)
                   for cached in (False, True))  # fmt: skip
    with plain.prepare(samples) as first:
        start_s = time.perf_counter()
        with ours.prepare(samples, folder / "frozen.f32") as second:
            once_s = time.perf_counter() - start_s
            seconds = in_rounds(
                rounds, {"plain": partial(epoch_s, first, count()), "ours": partial(epoch_s, second, count())}
            )
        pairs = list(zip(first.network.parameters(), second.network.parameters(), strict=True))
        apart = max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-12)) for a, b in pairs)
    return seconds, once_s, apart


def epoch_s(training: CamTraining, epochs: count) -> float:
    """Seconds of the next epoch and its validation."""

    def epoch() -> None:
        number = next(epochs)
        for step in range(number * training.steps_in_epoch, (number + 1) * training.steps_in_epoch):
            training.step(step)
        training.end_epoch(number)

    return seconds_of(epoch)
