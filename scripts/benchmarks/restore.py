"""How fast SADNet and the encoder's decoder restore, and what they are worth after equal training time.

    python scripts/benchmarks/restore.py            # some minutes on two cores
    python scripts/benchmarks/restore.py --quick    # within a minute or so: less training, fewer rounds
    python scripts/benchmarks/restore.py --check    # exit code 1 where a target is missed
    python scripts/benchmarks/restore.py --record RESULTS.md

Both learn from the same generated products with synthetic anomalies and are tested on others, with their real masks.
Each
gets the same time: steps are timed in turn, and as many are taken as fit. Then both restore the same images in turn.
SADNet learns as published but for the weighted minus PSNR, and at the better of two learning rates; ours has a random
encoder unless one is given. Targets: at least 5 times faster a megapixel, and no worse in the mask.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from pretrain.command import run_command
    from scripts.benchmarks.restore import Config, main

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
    from baselines.restoration.pairs import NamedPair, SyntheticPairs
    from baselines.restoration.restorer import NetworkRestorer

TRAIN, TEST = ("capsule", "metal_nut", "leather"), ("bottle", "wood")
SIZE_PX, CROP_PX, SEVERITY = 256, 64, "medium"
QUICK_SHARE = 4  # every fourth test image
TIMED_ROUNDS, ROUNDS, QUICK_ROUNDS = 4, 5, 2
MINUTES, QUICK_MINUTES = 1.5, 0.1
AT_LEAST = {"speed": 5.0, "masked_psnr_ahead": 0.0}


@dataclass(frozen=True)
class Config:
    """Measure SADNet and ours: seconds a megapixel, and PSNR after equal training time.

    Attributes:
        minutes: Training of each.
        encoder: Encoder file for ours that did not see bottle and wood. Default is a random one.
        quick: Less training and fewer rounds.
        check: Exit code 1 if a target is missed.
        record: Append what is printed to this file.
    """

    minutes: float = MINUTES
    encoder: Path | None = None
    quick: bool = False
    check: bool = False
    record: Path | None = None


def main(config: Config) -> int:
    import torch

    from baselines.restoration.restorer import SadNetRestorer
    from downstream.restoration.restorer import EncoderRestorer

    minutes = QUICK_MINUTES if config.quick else config.minutes
    shared = {"crop_px": CROP_PX, "device": "cpu"}
    contestants = {
        "sadnet": SadNetRestorer(**shared),
        "sadnet at 1e-3": SadNetRestorer(**shared, learning_rate=1e-3),
        "ours": EncoderRestorer(**shared, batch_size=8, encoder=config.encoder or "random"),
    }
    with tempfile.TemporaryDirectory() as place:
        pairs, tests = make_material(Path(place))
        tests = tests[::QUICK_SHARE] if config.quick else tests
        steps = train(contestants, pairs, 60 * minutes)
        seconds = restore_in_turn(contestants, tests, QUICK_ROUNDS if config.quick else ROUNDS)
        figures = figures_of(contestants, tests, seconds)
    missed = [name for name, target in AT_LEAST.items() if figures[name] < target]
    lines = in_words(figures, steps, minutes, torch.get_num_threads())
    lines.append(f"missed: {', '.join(missed)}" if missed else "all targets met")
    print("\n".join(lines))
    if config.record:
        record(lines, config)
    hardware = {"cores": os.cpu_count(), "machine": platform.machine(), "threads": torch.get_num_threads()}
    versions = {"torch": version("torch"), "torchvision": version("torchvision"), "python": platform.python_version()}
    metadata = {**asdict(config), "encoder": str(config.encoder), "record": None, **figures, "steps": steps}
    print(json.dumps({"benchmark": "restore", **metadata, "missed": missed, **hardware, **versions}))
    return int(bool(missed) and config.check)


def make_material(place: Path) -> tuple["SyntheticPairs", "list[NamedPair]"]:
    """Pairs of generated products to learn from, and defective images of others to judge by."""
    from baselines.restoration.pairs import DegradedImages, SyntheticPairs, good_images
    from baselines.restoration.training_pairs import ENDLESS
    from pretrain.data.dataset import load
    from pretrain.demo import make

    os.environ["HELDOUT_CACHE"] = str(place / "cache")
    make(place / "demo", categories=(*TRAIN, *TEST), train=20, good=0, defective=2)
    good = good_images(load(place / "demo", SIZE_PX, TRAIN))
    tests = load(place / "demo", SIZE_PX, TEST)
    tests = tests.subset([i for i, one in enumerate(tests.records) if one.is_anomaly])
    return SyntheticPairs(good, SEVERITY, CROP_PX, ENDLESS, 0, "cpu"), list(DegradedImages(tests, SEVERITY))


def train(contestants: dict[str, "NetworkRestorer"], pairs: "SyntheticPairs", seconds: float) -> dict[str, int]:
    """Train each for as many steps as fit; which are timed in turn, early ones and late ones."""
    took: dict[str, list[float]] = {name: [] for name in contestants}
    sessions = {name: restorer.prepare(pairs.batch) for name, restorer in contestants.items()}
    for number in range(TIMED_ROUNDS + 1):
        for name, session in sessions.items():
            start_s = time.perf_counter()
            session.train_step(number, max(0.0, (number - 0.5) / TIMED_ROUNDS))
            if number:  # the first one allocates and warms caches
                took[name].append(time.perf_counter() - start_s)
    steps = {name: max(1, round(seconds * len(each) / sum(each))) for name, each in took.items()}
    for name, restorer in contestants.items():
        print(f"training {name}: {steps[name]} steps", file=sys.stderr, flush=True)
        restorer.steps = steps[name]
        session = restorer.prepare(pairs.batch)
        for number in range(restorer.steps):
            session.train_step(number)
        restorer.finish(session.network)
    return steps


def restore_in_turn(
    contestants: dict[str, "NetworkRestorer"], tests: "list[NamedPair]", rounds: int
) -> dict[str, list[float]]:
    """Seconds a megapixel in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, restorer in contestants.items():
            image = tests[number % len(tests)].pair.degraded[None]
            start_s = time.perf_counter()
            restorer.restore(image)
            if number:
                seconds[name].append(1e6 * (time.perf_counter() - start_s) / SIZE_PX**2)
    return seconds


def figures_of(
    contestants: dict[str, "NetworkRestorer"], tests: "list[NamedPair]", seconds: dict[str, list[float]]
) -> dict:
    """Speed is the median of each round's own ratio; SADNet is taken at its better learning rate."""
    from baselines.restoration.evaluation import DEGRADED, evaluate_pairs, mean_figures

    values = {}
    for name, restorer in contestants.items():
        found = mean_figures([one for one, _ in evaluate_pairs(tests, restorer.restore, name)])
        for who in (DEGRADED, name):
            values[who] = {kind: found[who][kind].value for kind in ("psnr", "masked_psnr")}
    best = max((name for name in contestants if name != "ours"), key=lambda name: values[name]["masked_psnr"])
    return {
        "speed": median(theirs / own for theirs, own in zip(seconds[best], seconds["ours"], strict=True)),
        "masked_psnr_ahead": values["ours"]["masked_psnr"] - values[best]["masked_psnr"],
        "gain_over_degraded": values["ours"]["psnr"] - values[DEGRADED]["psnr"],
        "seconds_per_megapixel": {name: median(each) for name, each in seconds.items()},
        "decibels": values,
    }


def in_words(figures: dict, steps: dict[str, int], minutes: float, threads: int) -> list[str]:
    from pretrain.degrade import describe as degradation

    lines = [
        f"trained {minutes:g} min each on generated {', '.join(TRAIN)}, tested on {', '.join(TEST)}, {SIZE_PX} px, "
        f"{threads} threads,",
        f"{degradation(SEVERITY)}",
    ]
    for name, values in figures["decibels"].items():
        row = f"  {name:15} PSNR {values['psnr']:6.2f} dB, in mask {values['masked_psnr']:6.2f} dB"
        if name in steps:
            row += f", {figures['seconds_per_megapixel'][name]:6.2f} s a megapixel, {steps[name]} steps"
        lines.append(row)
    return [
        *lines,
        f"  speed           {figures['speed']:8.1f}  (target: at least {AT_LEAST['speed']:g})",
        f"  in mask ahead   {figures['masked_psnr_ahead']:8.2f}  (dB; target: at least 0)",
    ]


def record(lines: list[str], config: Config) -> None:
    from pretrain.encoder import commit

    metadata = (
        f"{datetime.now():%Y-%m-%d}, {os.cpu_count()} cores, {platform.machine()}, commit {(commit() or '')[:7]}, "
    )
    metadata += f"torch {version('torch')}"
    command = "python scripts/benchmarks/restore.py" + (" --quick" if config.quick else "")
    told = "\n".join(f"    {line}" for line in lines)
    with open(config.record, "a", encoding="utf-8") as file:
        file.write(
            f"\n## Speed of restoration, and its worth after equal training\n\n{metadata}\n\n    {command}\n\n{told}\n"
        )
