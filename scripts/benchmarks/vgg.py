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
    from pretrain.command import run_command
    from scripts.benchmarks.vgg import Config, main

    sys.exit(run_command(main, Config))

import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from baselines.cam.training import CamTraining
    from baselines.contract.method import Samples

SIZE_PX, CATEGORY, WHOLE_RUN_EPOCHS = 224, "hazelnut", 10
QUICK_ROUNDS, QUICK_IMAGES = 2, 20
AT_LEAST = {"epoch": 4.0}
AT_MOST = {"weights_apart": 1e-5}


@dataclass(frozen=True)
class Config:
    """Measure the training of VGG16-CAM with and without what its frozen layers give being kept.

    Attributes:
        rounds: How many epochs each takes, in turn.
        images: How many images an epoch has, about a sixth of them held out.
        quick: Fewer rounds and images.
        check: Exit code 1 if a target is missed.
        record: Append what is printed to this file.
    """

    rounds: int = 5
    images: int = 80
    quick: bool = False
    check: bool = False
    record: Path | None = None


def main(config: Config) -> int:
    import torch

    rounds, count = (QUICK_ROUNDS, QUICK_IMAGES) if config.quick else (config.rounds, config.images)
    with tempfile.TemporaryDirectory() as place:
        samples, weights = make_material(Path(place), count)
        seconds, apart = in_rounds(samples, weights, rounds, Path(place))
    figures = figures_of(seconds) | {"weights_apart": apart, "images": len(samples)}
    missed = [name for name, target in AT_LEAST.items() if figures[name] < target]
    missed += [name for name, target in AT_MOST.items() if figures[name] > target]
    lines = in_words(figures, rounds, torch.get_num_threads())
    lines.append(f"missed: {', '.join(missed)}" if missed else "all targets met")
    print("\n".join(lines))
    if config.record:
        record(lines, config)
    hardware = {"cores": os.cpu_count(), "machine": platform.machine(), "threads": torch.get_num_threads()}
    versions = {"torch": version("torch"), "python": platform.python_version()}
    metadata = {**asdict(config), "record": None, **figures, "missed": missed}
    print(json.dumps({"benchmark": "vgg", **metadata, **hardware, **versions}))
    return int(bool(missed) and config.check)


def make_material(place: Path, count: int) -> tuple["Samples", Path]:
    """Generated images, two thirds of them good, and a file of VGG16 weights as torchvision publishes them."""
    import torch

    from baselines.cam.network import make_network
    from baselines.contract.method import Samples
    from pretrain.data.dataset import load
    from pretrain.demo import make

    os.environ["HELDOUT_CACHE"] = str(place / "cache")
    make(place / "demo", categories=(CATEGORY,), train=2 * count // 3, good=0, defective=-(-count // 3))
    images = load(place / "demo", SIZE_PX)
    defective = [i for i, record in enumerate(images.records) if record.is_anomaly][: count - 2 * count // 3]
    good = [i for i, record in enumerate(images.records) if not record.is_anomaly]
    network = make_network(seed=7)
    path = place / "vgg16.pth"
    torch.save({f"features.{name}": weight for name, weight in network.features.state_dict().items()}, path)
    return Samples(images.subset([*good, *defective])), path


def in_rounds(samples: "Samples", weights: Path, rounds: int, place: Path) -> tuple[dict[str, list[float]], float]:
    """Seconds of each epoch, and of the pass that is made once; how far apart both trainings' weights end."""
    from baselines.cam.method import VggCam

    plain, ours = (VggCam(weights=str(weights), cached=cached, epochs=rounds + 1, patience=99, device="cpu")
                   for cached in (False, True))  # fmt: skip
    seconds: dict[str, list[float]] = {"plain": [], "ours": [], "once": []}
    with plain.prepare(samples) as first:
        start_s = time.perf_counter()
        with ours.prepare(samples, place / "frozen.f32") as second:
            seconds["once"].append(time.perf_counter() - start_s)
            for number in range(rounds + 1):
                print(f"round {number} of {rounds}" if number else "warming up", file=sys.stderr, flush=True)
                for name, training in (("plain", first), ("ours", second)):
                    took_s = epoch_seconds(training, number)
                    if number:
                        seconds[name].append(took_s)
        pairs = list(zip(first.network.parameters(), second.network.parameters(), strict=True))
        apart = max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-12)) for a, b in pairs)
    return seconds, apart


def epoch_seconds(training: "CamTraining", epoch: int) -> float:
    """One epoch and its validation."""
    start_s = time.perf_counter()
    for step in range(epoch * training.steps_in_epoch, (epoch + 1) * training.steps_in_epoch):
        training.step(step)
    training.end_epoch(epoch)
    return time.perf_counter() - start_s


def figures_of(seconds: dict[str, list[float]]) -> dict:
    """The ratio of an epoch is the median of each round's own; that of a whole run is computed from medians."""
    plain, ours, (once,) = median(seconds["plain"]), median(seconds["ours"]), seconds["once"]
    return {
        "epoch": median(a / b for a, b in zip(seconds["plain"], seconds["ours"], strict=True)),
        "whole_run": WHOLE_RUN_EPOCHS * plain / (once + WHOLE_RUN_EPOCHS * ours),
        "plain_epoch_s": plain,
        "our_epoch_s": ours,
        "once_s": once,
    }


def in_words(figures: dict, rounds: int, threads: int) -> list[str]:
    return [
        f"{figures['images']} generated images at {SIZE_PX} px, batch 40, {threads} threads,",
        f"medians of {rounds} interleaved epochs, validation included",
        f"  plain loop      {figures['plain_epoch_s']:8.2f} s an epoch",
        f"  ours            {figures['our_epoch_s']:8.2f} s an epoch, after {figures['once_s']:.2f} s once",
        f"  epoch           {figures['epoch']:8.2f}  (target: at least {AT_LEAST['epoch']:g})",
        f"  whole run       {figures['whole_run']:8.2f}  ({WHOLE_RUN_EPOCHS} epochs and that one pass, by medians)",
        f"  weights apart   {figures['weights_apart']:8.2g}  (of the largest; target: at most "
        f"{AT_MOST['weights_apart']:g})",
    ]


def record(lines: list[str], config: Config) -> None:
    from pretrain.encoder import commit

    metadata = (
        f"{datetime.now():%Y-%m-%d}, {os.cpu_count()} cores, {platform.machine()}, commit {(commit() or '')[:7]}, "
    )
    metadata += f"torch {version('torch')}"
    command = "python scripts/benchmarks/vgg.py" + (" --quick" if config.quick else "")
    told = "\n".join(f"    {line}" for line in lines)
    with open(config.record, "a", encoding="utf-8") as file:
        file.write(f"\n## Speed of training VGG16-CAM\n\n{metadata}\n\n    {command}\n\n{told}\n")
