"""How fast a fitted model answers, native and exported, beside anomalib's Padim by torch and by OpenVINO.

    python scripts/benchmarks/infer.py              # some ten minutes on two cores; installs anomalib once
    python scripts/benchmarks/infer.py --quick      # fewer rounds, normals and images
    python scripts/benchmarks/infer.py --check      # exit code 1 where a target is missed
    python scripts/benchmarks/infer.py --record RESULTS.md

All see the same generated images of one product at 256 px through the same ResNet-18 with the same random weights,
100 random dimensions of levels 1 to 3. Ours has a Gaussian for each of 32 x 32 places, anomalib's for each of 64 x 64;
one row is ours on 64 x 64. Ours are made by the commands themselves, `detect.py fit` and `export.py`. Each contestant
is a process of its own; they take turns, and only one works at a time. Preprocessing is part of every time.

Targets: the fastest of ours, alone with an image, 4 times as fast as anomalib's torch Padim with as many threads, and
its image AUROC no more than 0.005 lower; from the start of a process to its first answer less than 1 s.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from pretrain.command import run_command
    from scripts.benchmarks.infer import Config, main

    sys.exit(run_command(main, Config))

import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from math import nan
from pathlib import Path
from statistics import median

from pretrain.command import UserError
from pretrain.encoder import commit
from scripts.benchmarks.patches import CATEGORY, COARSE_GRID, DIMENSIONS, GRID, PEER, SIZE_PX, make_material, started
from scripts.benchmarks.patches import make_peer as make_anomalib

REPOSITORY = Path(__file__).resolve().parents[2]
OPENVINO = ("openvino", "onnx", "onnxscript")  # anomalib exports through onnx
THREADS, BATCHES = (1, 2), (1, 16)
OURS = ("native fp32", "native bf16", "onnx", "onnx-int8", "onnx, 64 x 64")
THEIRS = ("anomalib torch", "anomalib openvino")
EXPORTED = ("onnx", "onnx-int8")
# As anomalib smooths and scores.
OPTIONS = "dimensions={dimensions},neighborhood=1,quiet=0.0,blur=0.015625,top_share=0.0,grid={grid}"
AT_LEAST = {"faster_1_thread": 4.0, "faster_2_threads": 4.0, "auroc_gain": -0.005}
AT_MOST = {"start_s": 1.0}


@dataclass(frozen=True)
class Config:
    """Measure how fast a model answers, beside anomalib's.

    Attributes:
        rounds: How often each is measured, in turn.
        normals: Images to learn from.
        peer_python: A Python that has anomalib and openvino. Default is one made beside the cache.
        quick: Fewer rounds, normals and images.
        check: Exit code 1 if a target is missed.
        record: Append the table and the command to this Markdown file.
    """

    rounds: int = 7
    normals: int = 200
    peer_python: Path | None = None
    quick: bool = False
    check: bool = False
    record: Path | None = None


def main(config: Config) -> int:
    rounds, normals = (2, 60) if config.quick else (config.rounds, config.normals)
    peer_python = config.peer_python or make_peer()
    with tempfile.TemporaryDirectory() as place:
        files, labels = make_material(Path(place), normals)
        models = make_models(Path(place), files["encoder"])
        theirs = [peer_python, REPOSITORY / "scripts/benchmarks/contestants/anomalib_infer_contestant.py"]
        make_theirs(theirs, Path(place), files)
        measured, scores = {}, {}
        for threads in THREADS:
            commands = commands_of(models, theirs, Path(place), files["test"], threads)
            measured[threads], scores = in_rounds(rounds, len(labels), commands, threads)
        starts = {name: [first_answer(command) for _ in range(rounds)] for name, command in commands.items()}
        starts["detect.py run, onnx"] = [run_detect(models["onnx"], Path(place)) for _ in range(rounds)]
    figures = figures_of(measured, scores, labels, starts)
    missed = [name for name, target in AT_LEAST.items() if figures[name] < target]
    missed += [name for name, target in AT_MOST.items() if figures[name] > target]
    hardware = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    versions = {"peer": PEER, **{name: version(name) for name in ("torch", "onnx", "onnxruntime")}}
    table = "\n".join(table_of(figures, rounds, normals, versions))
    print(table)
    print(f"missed: {', '.join(missed)}" if missed else "all targets met")
    metadata = {**asdict(config), "peer_python": None, "record": None, **figures, "missed": missed}
    print(json.dumps({"benchmark": "infer", **metadata, **hardware, **versions}))
    if config.record:
        record(config.record, table, missed)
    return int(bool(missed) and config.check)


def make_peer() -> Path:
    """The environment of benchmark_patches.py, with openvino in it. Its Python."""
    python = make_anomalib()
    mark = python.parents[2] / "-".join(("ready", *OPENVINO))
    if not mark.exists():
        try:
            subprocess.run([python, "-m", "pip", "install", "--quiet", *OPENVINO], check=True)
        except subprocess.CalledProcessError as error:
            raise UserError(f"openvino could not be installed ({error}); give a --peer-python that has it.") from None
        mark.touch()
    return python


def make_models(place: Path, encoder: str) -> dict[str, Path]:
    """Ours, fitted and exported by the commands, by contestant."""
    data, models = place / "demo", {}
    for grid in (COARSE_GRID, GRID):
        folder = place / "models" / f"grid{grid}"
        options = OPTIONS.format(dimensions=DIMENSIONS, grid=grid)
        call("downstream/detect.py", "fit", "--data", data, "--category", CATEGORY, "--encoder", encoder,
             "--size-px", SIZE_PX, "--options", options, "--out", folder)  # fmt: skip
        call("downstream/export.py", folder, "--data", data)
        if grid == COARSE_GRID:
            # Whatever it costs: here that is measured, not refused.
            lenient = ("--most-auroc-lost", 1, "--most-decisions-changed", 1)
            call("downstream/export.py", folder, "--to", "onnx-int8", "--data", data, *lenient)
            models = dict.fromkeys(("native fp32", "native bf16"), folder)
            models |= {"onnx": folder.with_suffix(".onnx"), "onnx-int8": folder.with_name(f"{folder.name}-int8.onnx")}
        else:
            models["onnx, 64 x 64"] = folder.with_suffix(".onnx")
    return models


def make_theirs(command: list, place: Path, files: dict[str, str]) -> None:
    print("anomalib is fitted and exported", file=sys.stderr, flush=True)
    with started([*command, json.dumps(theirs_of("torch", place, files["test"], 2))]) as contestant:
        contestant.do("make", weights=files["weights"], train=files["train"])


def theirs_of(engine: str, place: Path, images: str, threads: int) -> dict:
    folder = str(place / "anomalib")
    return {"engine": engine, "folder": folder, "images": images, "threads": threads, "dimensions": DIMENSIONS}


def commands_of(models: dict[str, Path], theirs: list, place: Path, images: str, threads: int) -> dict[str, list]:
    """How each contestant is started with so many threads."""
    ours = [sys.executable, REPOSITORY / "scripts/benchmarks/contestants/infer_contestant.py"]
    commands = {}
    for name, model in models.items():
        wanted = {"model": str(model), "images": images, "threads": threads, "bf16": name.endswith("bf16")}
        commands[name] = [*ours, json.dumps(wanted)]
    for name in THEIRS:
        commands[name] = [*theirs, json.dumps(theirs_of(name.split()[1], place, images, threads))]
    return commands


def in_rounds(rounds: int, tests: int, commands: dict[str, list], threads: int) -> tuple[dict, dict]:
    """By contestant and batch, a list over the rounds of seconds and CPU seconds an image; peak memory; and scores."""
    measured = {name: {f"batch {batch}": [] for batch in BATCHES} for name in commands}
    scores = {}
    with ExitStack() as stack:
        running = {name: stack.enter_context(started(command)) for name, command in commands.items()}
        for number in range(rounds + 1):
            what = f"round {number} of {rounds}" if number else "warming up"
            print(f"{threads} threads, {what}", file=sys.stderr, flush=True)
            for name, contestant in running.items():
                for batch in BATCHES:
                    count = tests if not number else 16 * (1 if batch == 1 else 2)
                    done = contestant.do("predict", batch=batch, count=count)
                    if number:
                        measured[name][f"batch {batch}"].append(
                            [done[key] / count for key in ("seconds", "cpu_seconds")]
                        )
                    else:
                        scores[name] = done["scores"]
                    measured[name]["peak_mib"] = done["peak_mib"]
    return measured, scores


def first_answer(command: list) -> tuple[float, float]:
    """Seconds, and CPU seconds, from the start of a process to its first answer."""
    before, start_s = children_cpu_s(), time.perf_counter()
    with started(command) as contestant:
        contestant.do("predict", batch=1, count=1)
        took_s = time.perf_counter() - start_s
    return took_s, children_cpu_s() - before


def run_detect(model: Path, place: Path) -> tuple[float, float]:
    """The same of the whole command, one image in a file, results and all."""
    image = next((place / "demo" / CATEGORY / "test" / "good").iterdir())
    before, start_s = children_cpu_s(), time.perf_counter()
    command = [sys.executable, REPOSITORY / "downstream" / "detect.py", "run", image, "--model", model]
    subprocess.run([*command, "--out", place / "out"], check=False, capture_output=True)
    return time.perf_counter() - start_s, children_cpu_s() - before


def children_cpu_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def figures_of(measured: dict, scores: dict, labels: list[bool], starts: dict) -> dict:
    """Ratios are medians of each round's own; the fastest of ours is the one with the lowest median."""
    from sklearn.metrics import roc_auc_score

    table = {}
    for threads, by_name in measured.items():
        for name, tasks in by_name.items():
            row = {"peak_mib": tasks["peak_mib"]}
            for batch in BATCHES:
                rounds = tasks[f"batch {batch}"]
                row[f"ms_{batch}"], row[f"cpu_ms_{batch}"] = (1e3 * median(one) for one in zip(*rounds, strict=True))
                pairs = zip(by_name["anomalib torch"][f"batch {batch}"], rounds, strict=True)
                row[f"faster_{batch}"] = median(theirs[0] / ours[0] for theirs, ours in pairs)
            table[f"{name}, {threads}"] = row
    aurocs = {name: float(roc_auc_score(labels, found)) for name, found in scores.items()}
    fastest = {threads: min(OURS, key=lambda name: table[f"{name}, {threads}"]["ms_1"]) for threads in THREADS}
    started_s = {name: [median(one) for one in zip(*some, strict=True)] for name, some in starts.items()}
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


def table_of(figures: dict, rounds: int, normals: int, versions: dict[str, str]) -> list[str]:
    lines = [
        f"{normals} normals of generated {CATEGORY}s at {SIZE_PX} px, ResNet-18 with random weights; medians of",
        f"{rounds} interleaved rounds, milliseconds an image (CPU milliseconds);",
        ", ".join(map(" ".join, versions.items())),
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
    lines += [f"{name:20}{figures[name]:8.3g}  (target: at least {target:g})" for name, target in AT_LEAST.items()]
    lines += [f"{name:20}{figures[name]:8.3g}  (target: at most {target:g})" for name, target in AT_MOST.items()]
    return [line.rstrip() for line in lines]


def record(file: Path, table: str, missed: list[str]) -> None:
    command = shlex.join(["python", "scripts/benchmarks/infer.py", *sys.argv[1:]])
    metadata = f"{date.today()}, {os.cpu_count()} cores, {platform.machine()}, commit {commit()}"
    indented = "\n".join(f"    {line}".rstrip() for line in table.splitlines())
    verdict = f"missed: {', '.join(missed)}" if missed else "all targets met"
    with open(file, "a") as opened:
        opened.write(f"\n## Speed of answering\n\n{metadata}\n\n    {command}\n\n{indented}\n    {verdict}\n")


def call(script: str, *arguments: object) -> None:
    """Run one of our commands; UserError if it fails, with its own words above."""
    done = subprocess.run([sys.executable, REPOSITORY / script, *map(str, arguments)], check=False, stdout=sys.stderr)
    if done.returncode:
        raise UserError(f"{script} ended with exit code {done.returncode}: see what it says above.")
