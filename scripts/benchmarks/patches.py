"""How fast patch statistics are fitted and run, and how much memory that takes, beside anomalib's Padim and Patchcore.

    python scripts/benchmarks/patches.py            # some ten minutes on two cores; installs anomalib once
    python scripts/benchmarks/patches.py --quick    # fewer rounds and images, no Patchcore
    python scripts/benchmarks/patches.py --check    # exit code 1 where a target is missed

All see the same generated images of one product (200 to learn from, 50 to test on) at 256 px through the same ResNet-18
with the same random weights; PaDiM has 100 random dimensions of levels 1 to 3, PatchCore a tenth of the patches of
levels 2 and 3. Each contestant is a process of its own; they take turns, and only one works at a time. Ours finds a
threshold while it is fitted, each normal being left out in turn; anomalib's models do not.

Targets, ours over anomalib's Padim: on the same 64 x 64 grid in fp32 fitted 2.5 times as fast, a single image 1.8
times, batches 3 times, at most 1.2 GB; on a 32 x 32 grid, perhaps of smaller images (`--coarse-px`), 4, 3 and 5 times
with image AUROC no more than 0.005 lower; memory at most 1.1 times from 200 to 2,000 images; PatchCore fitted
within 60 s.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from pretrain.command import start
    from scripts.benchmarks.config import Patches

    start("scripts.benchmarks.patches:main", Patches)

import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from threading import Timer

import numpy as np
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score

from pretrain.command import UserError
from pretrain.data.dataset import load
from pretrain.demo import make
from pretrain.encoder import Encoder
from scripts.benchmarks.config import Patches
from scripts.benchmarks.peers import CONTESTANTS, Contestant, peer_python, started
from scripts.benchmarks.rounds import finish, in_rounds, speedup

PEER = "anomalib==2.7.0"
SIZE_PX, GRID, DIMENSIONS, SHARE, BATCH = 256, 64, 100, 0.1, 16
COARSE_GRID = 32
CATEGORY = "hazelnut"
# Same grid, same smoothing, same score as anomalib's.
PADIM = {
    "dimensions": DIMENSIONS,
    "neighborhood": 1,
    "variance_weight": 0.0,
    "grid": GRID,
    "blur": 1 / 64,
    "top_share": 0.0,
    "batch_size": BATCH,
}
OURS = {
    "ours": ("padim", PADIM),
    "ours, coarse": ("padim", {**PADIM, "grid": COARSE_GRID}),
    "patchcore": (
        "patchcore",
        {"levels": ["level2", "level3"], "grid": COARSE_GRID, "coreset_ratio": SHARE, "batch_size": BATCH},
    ),
}
AT_LEAST = {
    "fit": 2.5, "single": 1.8, "batched": 3.0, "coarse_fit": 4.0, "coarse_single": 3.0, "coarse_batched": 5.0,
    "coarse_auroc_gain": -0.005,
}  # fmt: skip
AT_MOST = {"peak_gb": 1.2, "peak_growth": 1.1, "patchcore_fit_s": 60.0}


def main(config: Patches) -> int:
    rounds, normals = (2, 60) if config.quick else (config.rounds, config.normals)
    python = config.peer_python or peer_python("anomalib", PEER)
    with tempfile.TemporaryDirectory() as folder:
        files, labels = make_material(Path(folder), normals)
        theirs = [python, CONTESTANTS / "anomalib_patches.py"]
        padim = {"model": "padim", "dimensions": DIMENSIONS, "share": SHARE, **files, "weights": files["weights"]}
        padim.pop("encoder")
        commands = {"anomalib": [*theirs, json.dumps(padim)]}
        for name, (method, arguments) in OURS.items():
            size_px = config.coarse_px if name == "ours, coarse" else SIZE_PX
            wanted = {"method": method, "size_px": size_px, "arguments": arguments, **files}
            wanted.pop("weights")
            commands[name] = [sys.executable, CONTESTANTS / "ours_patches.py", json.dumps(wanted)]
        measured, scores = take_turns(rounds, len(labels), commands)
        peaks = {name: peak_mib(commands[name], 1) for name in ("anomalib", "ours", "ours, coarse")}
        peak_of_more = peak_mib(commands["ours, coarse"], 10)
        patchcore = None if config.quick else patchcore_seconds(theirs, padim, config.patchcore_minutes)
    figures = figures_of(measured, scores, labels, peaks, peak_of_more)
    return finish(
        "patches",
        config,
        table(figures, config, rounds, normals, patchcore),
        {**figures, "patchcore_s": patchcore, "peer": PEER},
        at_least=AT_LEAST,
        at_most=AT_MOST,
        packages=("torch", "faiss-gpu"),
    )


def make_material(folder: Path, normals: int) -> tuple[dict[str, str], list[bool]]:
    """Files that all contestants read: images as arrays, and one encoder in two forms; the test images' labels."""
    os.environ["HELDOUT_CACHE"] = str(folder / "cache")
    make(folder / "demo", categories=(CATEGORY,), train=normals, good=26, defective=6)
    images = load(folder / "demo", SIZE_PX)
    files = {"train": str(folder / "train.npy"), "test": str(folder / "test.npy")}
    positions = {
        split: [i for i, record in enumerate(images.records) if record.split == split] for split in ("train", "test")
    }
    for split, chosen in positions.items():
        np.save(files[split], images.batch(chosen))
    encoder = Encoder("resnet18", seed=0, input_size_px=SIZE_PX)
    files |= {"encoder": str(folder / "encoder.safetensors"), "weights": str(folder / "weights.safetensors")}
    encoder.save(files["encoder"])
    save_file({n.split(".", 1)[1]: w.contiguous() for n, w in encoder.stages.state_dict().items()}, files["weights"])
    return files, [images.records[i].is_anomaly for i in positions["test"]]


def take_turns(rounds: int, tests: int, commands: dict[str, list]) -> tuple[dict, dict[str, list[float]]]:
    """Seconds by contestant and task, a list over the rounds; and each one's scores of the test images."""
    scores = {}

    def turn(name: str, contestant: Contestant) -> dict[str, float]:
        fit_s = contestant.do("fit")["seconds"]
        single_s = contestant.do("predict", batch=1, count=16)["seconds"] / 16
        batched = contestant.do("predict", batch=BATCH, count=tests)
        scores[name] = batched["scores"]
        return {"fit": fit_s, "single": single_s, "batched": batched["seconds"] / tests}

    with ExitStack() as stack:
        turns = {name: partial(turn, name, stack.enter_context(started(command))) for name, command in commands.items()}
        patchcore = turns.pop("patchcore")  # it has a limit and no peer: once warm, once measured
        measured = in_rounds(rounds, turns)
        measured |= in_rounds(1, {"patchcore": patchcore})
    by_task = {
        name: {task: [each[task] for each in results] for task in ("fit", "single", "batched")}
        for name, results in measured.items()
    }
    return by_task, scores


def peak_mib(command: list, repeat: int) -> float:
    """Peak memory of a fresh process that is fitted to the normals, `repeat` times over, and predicts a batch."""
    with started(command) as contestant:
        contestant.do("fit", repeat=repeat)
        return contestant.do("predict", batch=BATCH, count=BATCH)["peak_mib"]


def patchcore_seconds(theirs: list, arguments: dict, minutes: float) -> float | None:
    """What anomalib's Patchcore takes to be fitted; none if it was stopped before it had finished."""
    print(f"anomalib's Patchcore, for at most {minutes:g} minutes", file=sys.stderr, flush=True)
    with started([*theirs, json.dumps({**arguments, "model": "patchcore"})]) as contestant:
        timer = Timer(60 * minutes, contestant.process.kill)
        timer.start()
        start_s = time.perf_counter()
        try:
            return contestant.do("fit")["seconds"]
        except UserError:
            if time.perf_counter() - start_s < 60 * minutes:
                raise
            return None
        finally:
            timer.cancel()


def figures_of(measured: dict, scores: dict, labels: list[bool], peaks: dict[str, float], peak_of_more: float) -> dict:
    """Ratios are medians of each round's own."""

    def faster(name: str, task: str) -> float:
        return speedup(measured[name][task], measured["anomalib"][task])

    figures = {task: faster("ours", task) for task in ("fit", "single", "batched")}
    figures |= {f"coarse_{task}": faster("ours, coarse", task) for task in ("fit", "single", "batched")}
    aurocs = {name: float(roc_auc_score(labels, predicted)) for name, predicted in scores.items()}
    figures["coarse_auroc_gain"] = aurocs["ours, coarse"] - aurocs["anomalib"]
    figures |= {"peak_gb": peaks["ours"] * 2**20 / 1e9, "peak_growth": peak_of_more / peaks["ours, coarse"]}
    figures |= {"patchcore_fit_s": measured["patchcore"]["fit"][0], "auroc": aurocs, "peak_mib": peaks}
    usual = {name: {task: median(all_s) for task, all_s in tasks.items()} for name, tasks in measured.items()}
    return {**figures, "seconds": usual}


def table(figures: dict, config: Patches, rounds: int, normals: int, patchcore: float | None) -> list[str]:
    lines = [
        f"{normals} normals of generated {CATEGORY}s at {SIZE_PX} px, ResNet-18 with random weights,",
        f"medians of {rounds} interleaved rounds; our PatchCore measured once",
        f"  {'':16}{'fit s':>8}{'single ms':>11}{'batched ms':>12}{'AUROC':>8}{'peak MiB':>10}",
    ]
    for name, tasks in figures["seconds"].items():
        peak = figures["peak_mib"].get(name)
        lines.append(
            f"  {name:16}{tasks['fit']:8.2f}{1e3 * tasks['single']:11.1f}{1e3 * tasks['batched']:12.1f}"
            f"{figures['auroc'][name]:8.3f}" + (f"{peak:10.0f}" if peak else "")
        )
    if not config.quick:
        took = f"took {patchcore:.0f} s" if patchcore else f"was stopped after {config.patchcore_minutes:g} minutes"
        lines.append(f"  anomalib's Patchcore with {SHARE:.0%} of its patches {took}")
    return lines
