"""How fast a fitted model answers, native and exported, beside anomalib's Padim by torch and by OpenVINO.

    python scripts/benchmarks/infer.py              # some ten minutes on two cores; installs anomalib once
    python scripts/benchmarks/infer.py --quick      # fewer rounds, normals and images
    python scripts/benchmarks/infer.py --check      # exit code 1 where a target is missed
    python scripts/benchmarks/infer.py --record RESULTS.md

All see the same generated images of one product at 256 px through the same ResNet-18 with the same random weights,
100 random dimensions of levels 1 to 3. Ours has a Gaussian for each of 32 x 32 positions, anomalib's for each of
64 x 64; one row is ours on 64 x 64. Ours are made by the commands themselves, `detect.py fit` and `export.py`. Each
contestant is a process of its own; they take turns, and only one works at a time. Preprocessing is part of every time.

Targets: the fastest of ours, alone with an image, 4 times as fast as anomalib's torch Padim with as many threads, and
its image AUROC no more than 0.005 lower; from the start of a process to its first answer less than 1 s.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from pretrain.command import start
    from scripts.benchmarks.config import Infer

    start("scripts.benchmarks.infer:main", Infer)

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from math import nan
from pathlib import Path
from statistics import median

from sklearn.metrics import roc_auc_score

from pretrain.command import UserError
from scripts.benchmarks.config import Infer
from scripts.benchmarks.patches import CATEGORY, COARSE_GRID, DIMENSIONS, GRID, PEER, SIZE_PX, make_material
from scripts.benchmarks.peers import CONTESTANTS, Contestant, peer_python, started
from scripts.benchmarks.rounds import finish, in_rounds, speedup

REPOSITORY = Path(__file__).resolve().parents[2]
OPENVINO = ("openvino", "onnx", "onnxscript")  # anomalib exports through onnx
THREADS, BATCHES = (1, 2), (1, 16)
OURS = ("native fp32", "native bf16", "onnx", "onnx-int8", "onnx, 64 x 64")
THEIRS = ("anomalib torch", "anomalib openvino")
EXPORTED = ("onnx", "onnx-int8")
# As anomalib smooths and scores.
OPTIONS = "dimensions={dimensions},neighborhood=1,variance_weight=0.0,blur=0.015625,top_share=0.0,grid={grid}"
AT_LEAST = {"faster_1_thread": 4.0, "faster_2_threads": 4.0, "auroc_gain": -0.005}
AT_MOST = {"start_s": 1.0}


def main(config: Infer) -> int:
    rounds, normals = (2, 60) if config.quick else (config.rounds, config.normals)
    python = config.peer_python or peer_python("anomalib", PEER, *OPENVINO)
    with tempfile.TemporaryDirectory() as folder:
        files, labels = make_material(Path(folder), normals)
        models = make_models(Path(folder), files["encoder"])
        theirs = [python, CONTESTANTS / "anomalib_infer.py"]
        make_theirs(theirs, Path(folder), files)
        measured, scores = {}, {}
        for threads in THREADS:
            commands = commands_of(models, theirs, Path(folder), files["test"], threads)
            measured[threads], scores = take_turns(rounds, len(labels), commands)
        starts = {name: [first_answer(command) for _ in range(rounds)] for name, command in commands.items()}
        starts["detect.py run, onnx"] = [run_detect(models["onnx"], Path(folder)) for _ in range(rounds)]
    figures = figures_of(measured, scores, labels, starts)
    return finish(
        "infer",
        config,
        table_of(figures, rounds, normals),
        {**figures, "peer": PEER},
        at_least=AT_LEAST,
        at_most=AT_MOST,
        packages=("torch", "onnx", "onnxruntime"),
    )


def make_models(parent: Path, encoder: str) -> dict[str, Path]:
    """Ours, fitted and exported by the commands, by contestant."""
    data, models = parent / "demo", {}
    for grid in (COARSE_GRID, GRID):
        folder = parent / "models" / f"grid{grid}"
        options = OPTIONS.format(dimensions=DIMENSIONS, grid=grid)
        call("downstream/detect.py", "fit", "--data", data, "--category", CATEGORY, "--encoder", encoder,
             "--size-px", SIZE_PX, "--options", options, "--out", folder)  # fmt: skip
        call("downstream/export.py", folder, "--data", data)
        if grid == COARSE_GRID:
            # Whatever it costs: here that is measured, not refused.
            lenient = ("--max-auroc-loss", 1, "--max-changed-decisions", 1)
            call("downstream/export.py", folder, "--to", "onnx-int8", "--data", data, *lenient)
            models = dict.fromkeys(("native fp32", "native bf16"), folder)
            models |= {"onnx": folder.with_suffix(".onnx"), "onnx-int8": folder.with_name(f"{folder.name}-int8.onnx")}
        else:
            models["onnx, 64 x 64"] = folder.with_suffix(".onnx")
    return models


def make_theirs(command: list, parent: Path, files: dict[str, str]) -> None:
    print("anomalib is fitted and exported", file=sys.stderr, flush=True)
    with started([*command, json.dumps(theirs_of("torch", parent, files["test"], 2))]) as contestant:
        contestant.do("make", weights=files["weights"], train=files["train"])


def theirs_of(engine: str, parent: Path, images: str, threads: int) -> dict:
    folder = str(parent / "anomalib")
    return {"engine": engine, "folder": folder, "images": images, "threads": threads, "dimensions": DIMENSIONS}


def commands_of(models: dict[str, Path], theirs: list, parent: Path, images: str, threads: int) -> dict[str, list]:
    """How each contestant is started with so many threads."""
    ours = [sys.executable, CONTESTANTS / "ours_infer.py"]
    commands = {}
    for name, model in models.items():
        wanted = {"model": str(model), "images": images, "threads": threads, "bf16": name.endswith("bf16")}
        commands[name] = [*ours, json.dumps(wanted)]
    for name in THEIRS:
        commands[name] = [*theirs, json.dumps(theirs_of(name.split()[1], parent, images, threads))]
    return commands


def take_turns(rounds: int, tests: int, commands: dict[str, list]) -> tuple[dict, dict]:
    """By contestant and batch, a list over the rounds of seconds and CPU seconds per image; peak memory; and scores."""
    scores, peaks_mib = {}, {}

    def turn(name: str, contestant: Contestant) -> dict[str, list[float]]:
        spent = {}
        for batch in BATCHES:
            done = contestant.do("predict", batch=batch, count=tests)
            spent[f"batch {batch}"] = [done[key] / tests for key in ("seconds", "cpu_seconds")]
            scores[name], peaks_mib[name] = done["scores"], done["peak_mib"]
        return spent

    with ExitStack() as stack:
        turns = {name: partial(turn, name, stack.enter_context(started(command))) for name, command in commands.items()}
        results = in_rounds(rounds, turns)
    measured = {
        name: {f"batch {batch}": [spent[f"batch {batch}"] for spent in of_name] for batch in BATCHES}
        | {"peak_mib": peaks_mib[name]}
        for name, of_name in results.items()
    }
    return measured, scores


def first_answer(command: list) -> tuple[float, float]:
    """Seconds, and CPU seconds, from the start of a process to its first answer."""
    before, start_s = children_cpu_s(), time.perf_counter()
    with started(command) as contestant:
        contestant.do("predict", batch=1, count=1)
        took_s = time.perf_counter() - start_s
    return took_s, children_cpu_s() - before


def run_detect(model: Path, parent: Path) -> tuple[float, float]:
    """The same of the whole command, one image in a file, results and all."""
    image = next((parent / "demo" / CATEGORY / "test" / "good").iterdir())
    before, start_s = children_cpu_s(), time.perf_counter()
    command = [sys.executable, REPOSITORY / "downstream" / "detect.py", "run", image, "--model", model]
    subprocess.run([*command, "--out", parent / "out"], check=False, capture_output=True)
    return time.perf_counter() - start_s, children_cpu_s() - before


def children_cpu_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def figures_of(measured: dict, scores: dict, labels: list[bool], starts: dict) -> dict:
    """Ratios are medians of each round's own; the fastest of ours is the one with the lowest median."""
    table = {}
    for threads, by_name in measured.items():
        for name, tasks in by_name.items():
            row = {"peak_mib": tasks["peak_mib"]}
            for batch in BATCHES:
                rounds = tasks[f"batch {batch}"]
                row[f"ms_{batch}"], row[f"cpu_ms_{batch}"] = (1e3 * median(each) for each in zip(*rounds, strict=True))
                theirs = by_name["anomalib torch"][f"batch {batch}"]
                row[f"faster_{batch}"] = speedup([spent[0] for spent in rounds], [spent[0] for spent in theirs])
            table[f"{name}, {threads}"] = row
    aurocs = {name: float(roc_auc_score(labels, of_name)) for name, of_name in scores.items()}
    fastest = {threads: min(OURS, key=lambda name: table[f"{name}, {threads}"]["ms_1"]) for threads in THREADS}
    started_s = {name: [median(each) for each in zip(*of_name, strict=True)] for name, of_name in starts.items()}
    return {
        "fastest": fastest[2],
        "faster_1_thread": table[f"{fastest[1]}, 1"]["faster_1"],
        "faster_2_threads": table[f"{fastest[2]}, 2"]["faster_1"],
        "auroc_gain": min(aurocs[name] for name in fastest.values()) - aurocs["anomalib torch"],
        "start_s": max(started_s[name][0] for name in EXPORTED),
        "auroc": aurocs,
        "starts_s": started_s,
        "table": table,
    }


def table_of(figures: dict, rounds: int, normals: int) -> list[str]:
    lines = [
        f"{normals} normals of generated {CATEGORY}s at {SIZE_PX} px, ResNet-18 with random weights; medians of",
        f"{rounds} interleaved rounds, milliseconds an image (CPU milliseconds);",
        f"{'':18}{'threads':>8}{'batch 1':>16}{'batch 16':>16}{'times anomalib':>16}{'peak MiB':>10}{'AUROC':>8}",
    ]
    for threads in THREADS:
        for name in (*OURS, *THEIRS):
            row = figures["table"][f"{name}, {threads}"]
            times = [f"{row[f'ms_{batch}']:.1f} ({row[f'cpu_ms_{batch}']:.1f})" for batch in BATCHES]
            faster = f"{row['faster_1']:.2f}, {row['faster_16']:.2f}"
            auroc, peak = figures["auroc"][name], row["peak_mib"] or nan
            lines.append(f"{name:18}{threads:8}{times[0]:>16}{times[1]:>16}{faster:>16}{peak:10.0f}{auroc:8.3f}")
    lines.append("start of the process to the first answer, seconds (CPU seconds):")
    lines += [f"  {name:22}{wall_s:7.2f} ({cpu_s:.2f})" for name, (wall_s, cpu_s) in figures["starts_s"].items()]
    return [line.rstrip() for line in lines]


def call(script: str, *arguments: object) -> None:
    """Run one of our commands; UserError if it fails, with its own words above."""
    done = subprocess.run([sys.executable, REPOSITORY / script, *map(str, arguments)], check=False, stdout=sys.stderr)
    if done.returncode:
        raise UserError(f"{script} ended with exit code {done.returncode}: see what it says above.")
