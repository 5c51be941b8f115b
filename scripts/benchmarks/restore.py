"""How fast SADNet and the encoder's decoder restore, and what they are worth after equal training time.

    python scripts/benchmarks/restore.py            # some minutes on two cores
    python scripts/benchmarks/restore.py --quick    # within a minute or so: less training, fewer rounds
    python scripts/benchmarks/restore.py --check    # exit code 1 where a target is missed
    python scripts/benchmarks/restore.py --record RESULTS.md

Both learn from the same generated products with synthetic anomalies and are tested on others, with their real masks.
Each gets the same time: steps are timed in turn, and as many are taken as fit. Then both restore the same images in
turn. SADNet learns as published but for the weighted minus PSNR, and at the better of two learning rates; ours has a
random encoder unless one is given. Targets: at least 5 times faster per megapixel, and no worse in the mask.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from pretrain.command import start
    from scripts.benchmarks.config import Restore

    start("scripts.benchmarks.restore:main", Restore)

import os
import sys
import tempfile
import time
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median

import torch

from baselines.restoration.evaluation import DEGRADED, evaluate_pairs, mean_figures
from baselines.restoration.pairs import DegradedImages, NamedPair, SyntheticPairs, good_images
from baselines.restoration.restorer import NetworkRestorer, SadNetRestorer
from baselines.restoration.training_pairs import ENDLESS
from downstream.restoration.restorer import EncoderRestorer
from pretrain.data.dataset import load
from pretrain.degrade import describe
from pretrain.demo import make
from scripts.benchmarks.config import Restore
from scripts.benchmarks.rounds import finish, in_rounds, seconds_of, speedup

TRAIN, TEST = ("capsule", "metal_nut", "leather"), ("bottle", "wood")
SIZE_PX, CROP_PX, SEVERITY = 256, 64, "medium"
QUICK_SHARE = 4  # every fourth test image
TIMED_ROUNDS, ROUNDS, QUICK_ROUNDS = 4, 5, 2
QUICK_MINUTES = 0.1
AT_LEAST = {"speed": 5.0, "masked_psnr_ahead": 0.0}


def main(config: Restore) -> int:
    minutes = QUICK_MINUTES if config.quick else config.minutes
    shared = {"crop_px": CROP_PX}
    contestants = {
        "sadnet": SadNetRestorer(**shared),
        "sadnet at 1e-3": SadNetRestorer(**shared, learning_rate=1e-3),
        "ours": EncoderRestorer(**shared, batch_size=8, encoder=config.encoder or "random"),
    }
    with tempfile.TemporaryDirectory() as folder:
        pairs, tests = make_material(Path(folder))
        tests = tests[::QUICK_SHARE] if config.quick else tests
        steps = train(contestants, pairs, 60 * minutes)
        seconds = restore_in_turn(contestants, tests, QUICK_ROUNDS if config.quick else ROUNDS)
        figures = figures_of(contestants, tests, seconds)
    return finish(
        "restore",
        config,
        table(figures, steps, minutes),
        {**figures, "steps": steps, "threads": torch.get_num_threads()},
        at_least=AT_LEAST,
        packages=("torch", "torchvision"),
    )


def make_material(folder: Path) -> tuple[SyntheticPairs, list[NamedPair]]:
    """Pairs of generated products to learn from, and defective images of others to test on."""
    os.environ["HELDOUT_CACHE"] = str(folder / "cache")
    make(folder / "demo", categories=(*TRAIN, *TEST), train=20, good=0, defective=2)
    good = good_images(load(folder / "demo", SIZE_PX, TRAIN))
    tests = load(folder / "demo", SIZE_PX, TEST)
    tests = tests.subset([i for i, record in enumerate(tests.records) if record.is_anomaly])
    return SyntheticPairs(good, SEVERITY, CROP_PX, ENDLESS, 0, "cpu"), list(DegradedImages(tests, SEVERITY))


def train(contestants: dict[str, NetworkRestorer], pairs: SyntheticPairs, seconds: float) -> dict[str, int]:
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
    contestants: dict[str, NetworkRestorer], tests: list[NamedPair], rounds: int
) -> dict[str, list[float]]:
    """Seconds per megapixel in each round; in a round all restore the same image."""

    def turn(restorer: NetworkRestorer, numbers: count) -> float:
        image = tests[next(numbers) % len(tests)].pair.degraded[None]
        return 1e6 * seconds_of(partial(restorer.restore, image)) / SIZE_PX**2

    return in_rounds(rounds, {name: partial(turn, restorer, count()) for name, restorer in contestants.items()})


def figures_of(
    contestants: dict[str, NetworkRestorer], tests: list[NamedPair], seconds: dict[str, list[float]]
) -> dict:
    """Speed is the median of each round's own ratio; SADNet is taken at its better learning rate."""
    values = {}
    for name, restorer in contestants.items():
        means = mean_figures([evaluated for evaluated, _ in evaluate_pairs(tests, restorer.restore, name)])
        for who in (DEGRADED, name):
            values[who] = {figure: means[who][figure].value for figure in ("psnr", "masked_psnr")}
    best = max((name for name in contestants if name != "ours"), key=lambda name: values[name]["masked_psnr"])
    return {
        "speed": speedup(seconds["ours"], seconds[best]),
        "masked_psnr_ahead": values["ours"]["masked_psnr"] - values[best]["masked_psnr"],
        "gain_over_degraded": values["ours"]["psnr"] - values[DEGRADED]["psnr"],
        "seconds_per_megapixel": {name: median(each) for name, each in seconds.items()},
        "decibels": values,
    }


def table(figures: dict, steps: dict[str, int], minutes: float) -> list[str]:
    lines = [
        f"trained {minutes:g} min each on generated {', '.join(TRAIN)}, tested on {', '.join(TEST)}, {SIZE_PX} px, "
        f"{torch.get_num_threads()} threads,",
        describe(SEVERITY),
    ]
    for name, values in figures["decibels"].items():
        row = f"  {name:15} PSNR {values['psnr']:6.2f} dB, in mask {values['masked_psnr']:6.2f} dB"
        if name in steps:
            row += f", {figures['seconds_per_megapixel'][name]:6.2f} s per megapixel, {steps[name]} steps"
        lines.append(row)
    return lines
