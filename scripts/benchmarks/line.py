"""What a line bears: stations and frames a second within a budget, beside the bare model; and how long it stays so.

    python scripts/benchmarks/line.py             # seven minutes on two cores
    python scripts/benchmarks/line.py --quick
    python scripts/benchmarks/line.py --soak 20000 --check

PaDiM on ImageNet's Lite0, fitted to generated hazelnuts of 256 px, judges them at 224 px from an int8 ONNX file. The
stations are a process of their own, `downstream/line.py`, which replays images as cameras would, each station at its
share of the rate, with a queue and a budget of 200 ms; signals go through the outbox into a CSV file. Latencies are
from a frame's arrival to its signal on disk, of the last 2,000 parts of each station. The bare model is the same file
in this process: each image is read, decoded and judged alone, one after another. Rates are shares of what it does; a
line bears a rate where no part of any station is a fault; each number of stations is tried from the rate of the one
before, up or down. "one hangs": beside the station there is one more whose camera takes the connection and never says
anything.

Targets: at half the rate of the bare model, one station's p99 at most 1.5 times the bare model's, also with one source
that hangs; over the soak no fault after its first tenth, and no more than 1.05 times the memory after the first tenth.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from pretrain.command import start
    from scripts.benchmarks.config import Line

    start("scripts.benchmarks.line:main", Line)

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import httpx
import psutil
import yaml

from downstream import export
from downstream.exporting.config import Config as Export
from downstream.inspection.config import Fit
from downstream.inspection.fitting import fit
from downstream.inspection.inspector import Inspector
from downstream.stations.tally import STEPS
from pretrain.command import UserError
from pretrain.data.decode import decode_bytes
from pretrain.demo import make
from pretrain.reading import read_regular
from scripts.benchmarks.config import Line
from scripts.benchmarks.rounds import finish, in_rounds

REPOSITORY = Path(__file__).resolve().parents[2]
CATEGORY, SIZE_PX = "hazelnut", 224
AT_MOST = {"p99_of_bare": 1.5, "p99_of_bare_with_one_that_hangs": 1.5, "soak_faults": 0, "memory_growth": 1.05}
SHARES = (1.75, 1.5, 1.25, 1.0, 0.85, 0.7, 0.55, 0.4, 0.3, 0.2, 0.1)
SETTLE_S = 2.0


class Bare(NamedTuple):
    """Milliseconds of an image alone, and images a second."""

    p50_ms: float
    p99_ms: float
    per_s: float


class Borne(NamedTuple):
    """A line under a load: the slowest station's latencies, parts and faults of all."""

    stations: int
    per_s: float
    p50_ms: float
    p99_ms: float
    parts: int
    faults: int
    put_aside: int
    is_borne: bool = True
    steps_p99_ms: Mapping[str, float] = {}


def main(config: Line) -> int:
    figures, lines = measured(config)
    at_most = {name: limit for name, limit in AT_MOST.items() if name in figures}
    return finish("line", config, lines, figures, at_most=at_most, packages=("onnxruntime",))


def measured(config: Line, size_px: int = SIZE_PX, options: str = "") -> tuple[dict, list[str]]:
    """Figures, and the table of them."""
    until_s = time.monotonic() + 60 * config.minutes
    seconds = 4.0 if config.quick else config.seconds
    rounds = 1 if config.quick else config.rounds
    counts = [int(count) for count in config.stations]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images, model = make_material(folder, config, size_px, options)
        inspector = Inspector.load(model, "cpu")
        bare = bare_of(inspector, images, 40 if config.quick else 400)
        half = bare.per_s / 2
        turns = {
            "bare": partial(bare_of, inspector, images, 40 if config.quick else 400),
            "line": partial(one_load, folder, images, 1, half, seconds, config.budget_ms),
            "one hangs": partial(one_load, folder, images, 1, half, seconds, config.budget_ms, hanging=True),
        }
        every = in_rounds(rounds, turns, warm_up=False)
        borne = most_borne(folder, images, counts, bare, seconds, config, until_s)
        soaked = soak(folder, images, borne[0].per_s if borne else half, config) if config.soak else {}
    figures = {
        "bare_p50_ms": median(each.p50_ms for each in every["bare"]),
        "bare_p99_ms": median(each.p99_ms for each in every["bare"]),
        "bare_per_s": median(each.per_s for each in every["bare"]),
        "line_p50_ms": median(each.p50_ms for each in every["line"]),
        "line_p99_ms": median(each.p99_ms for each in every["line"]),
        "line_steps_p99_ms": {step: median(each.steps_p99_ms[step] for each in every["line"]) for step in STEPS},
        "p99_of_bare": median(
            ours.p99_ms / theirs.p99_ms for ours, theirs in zip(every["line"], every["bare"], strict=True)
        ),
        "p99_of_bare_with_one_that_hangs": median(
            hangs.p99_ms / theirs.p99_ms for hangs, theirs in zip(every["one hangs"], every["bare"], strict=True)
        ),
        "line_p99_ms_with_one_that_hangs": median(each.p99_ms for each in every["one hangs"]),
        "faults_with_one_that_hangs": sum(each.faults for each in every["one hangs"]),
        "borne": [each._asdict() for each in borne],
        **soaked,
    }  # fmt: skip
    return figures, table(figures, borne, config, rounds, seconds)


def make_material(folder: Path, config: Line, size_px: int, options: str) -> tuple[Path, Path]:
    """A folder of images, and an int8 file of a model."""
    os.environ["HELDOUT_CACHE"] = str(folder / "cache")
    make(folder / "demo", categories=(CATEGORY,), train=64, good=24, defective=4)
    model = folder / "fitted" / "nut"
    fit(Fit(data=folder / "demo", category=CATEGORY, device="cpu", size_px=size_px, method="padim", options=options,
            out=model))  # fmt: skip
    file = folder / "models" / "nut.onnx"
    loose = {"max_auroc_loss": 1.0, "max_changed_decisions": 1.0}  # speed is measured here, nothing else
    if export.main(Export(model=(model,), to="onnx-int8", data=folder / "demo", out=file, device="cpu", **loose)):
        raise UserError("the model could not be exported: see above.")
    return folder / "demo" / CATEGORY / "test", file


def bare_of(inspector: Inspector, images: Path, count: int) -> Bare:
    """Read, decoded and judged one by one."""
    paths, ms = sorted(images.rglob("*.png")), []
    for number in range(count):
        start_s = time.perf_counter()
        decoded = decode_bytes(read_regular(paths[number % len(paths)]), inspector.size_px)
        inspector.inspect_decoded([Path()], [decoded])
        ms.append(1e3 * (time.perf_counter() - start_s))
    ordered = sorted(ms)
    return Bare(median(ms), ordered[int(0.99 * len(ordered))], 1e3 * count / sum(ms))


@contextmanager
def running(folder: Path, stations: Sequence[dict], budget_ms: float) -> Iterator[tuple[httpx.Client, psutil.Process]]:
    """A line of its own, in a new state."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        common = {"budget_ms": budget_ms, "waiting": "queue", "queue": 64}
        line = {
            "models": str(folder / "models"), "state": f"{place}/state", "port": 0,
            "stations": [{**common, **station} for station in stations],
            "sinks": [{"type": "csv", "path": f"{place}/parts.csv"}],
        }  # fmt: skip
        file = Path(place) / "line.yaml"
        file.write_text(yaml.safe_dump(line))
        command = [sys.executable, REPOSITORY / "downstream/line.py", "--config", file]
        with open(folder / "log", "w") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            url = next((text.split()[1] for text in process.stdout if text.startswith("line: ")), None)
            if url is None or not any(text.startswith("stations: ") for text in process.stdout):
                raise UserError(f"the line did not start: {(folder / 'log').read_text()[-500:]}")
            with httpx.Client(base_url=url, timeout=30, verify=False) as client:
                yield client, psutil.Process(process.pid)
        finally:
            process.terminate()
            process.communicate(timeout=60)


def one_load(
    folder: Path, images: Path, count: int, per_s: float, seconds: float, budget_ms: float, hanging: bool = False
) -> Borne:
    """`count` stations that share `per_s` frames a second."""
    source = {"type": "replay", "path": str(images), "rate": per_s / count, "loops": 0}
    stations = [{"name": f"s{number}", "source": source} for number in range(count)]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        if hanging:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}/never"
            camera = {"type": "video", "url": url, "timeout_s": 3600}
            stations.append({"name": "hangs", "source": camera, "silence_s": 1})
        with running(folder, stations, budget_ms) as (client, _):
            time.sleep(SETTLE_S)
            before = counted(client, count)
            time.sleep(seconds)
            status = client.get("/api/status").json()
    after = status["stations"][:count]
    latencies = [each["latency_ms"] for each in after]
    return Borne(
        count, per_s, max(each["p50"] or 0 for each in latencies), max(each["p99"] or 0 for each in latencies),
        sum(each["parts"] for each in after) - before[0], sum(each["faults"] for each in after) - before[1],
        status["sinks"][0]["put_aside"],
        steps_p99_ms={step: max(each["steps_ms"]["p99"].get(step, 0) for each in after) for step in STEPS},
    )  # fmt: skip


def counted(client: httpx.Client, count: int) -> tuple[int, int]:
    """Parts and faults so far."""
    stations = client.get("/api/status").json()["stations"][:count]
    return sum(each["parts"] for each in stations), sum(each["faults"] for each in stations)


def most_borne(
    folder: Path, images: Path, counts: Sequence[int], bare: Bare, seconds: float, config: Line, until_s: float
) -> list[Borne]:
    """Of each number of stations the highest rate at which no part is a fault and all are judged; the lowest that was
    tried where none was. From the rate of the number before it goes up or down. Begins no load after `until_s`."""
    shares = (0.5,) if config.quick else SHARES
    found, place = [], shares.index(0.85) if 0.85 in shares else 0
    for count in counts:
        tried: dict[int, Borne] = {}
        while place not in tried and time.monotonic() < until_s:
            load = one_load(folder, images, count, shares[place] * bare.per_s, seconds, config.budget_ms)
            all_judged = load.parts >= 0.95 * load.per_s * seconds
            load = load._replace(is_borne=all_judged and not load.faults and load.p99_ms <= config.budget_ms)
            print(f"{count} stations, {load.per_s:.0f}/s: {load.faults} faults, p99 {load.p99_ms:.0f} ms, "
                  f"{'' if load.is_borne else 'not '}borne", file=sys.stderr, flush=True)  # fmt: skip
            tried[place] = load
            place = min(max(0, place - 1 if load.is_borne else place + 1), len(shares) - 1)
        if not tried:
            print(f"no time for {count} stations", file=sys.stderr, flush=True)
            continue
        place = min((each for each, load in tried.items() if load.is_borne), default=max(tried))
        found.append(tried[place])
    return found


def soak(folder: Path, images: Path, per_s: float, config: Line) -> dict:
    """Many parts at the highest rate that one station bore."""
    memory, faults = [], []
    source = {"type": "replay", "path": str(images), "rate": per_s, "loops": 0}
    with running(folder, [{"name": "s0", "source": source}], config.budget_ms) as (client, process):
        for tenth in range(1, 11):
            while (counts := counted(client, 1))[0] < tenth * config.soak / 10:
                time.sleep(0.5)
            memory.append(process.memory_info().rss / 2**20)
            faults.append(counts[1])
            print(f"soak: {counts[0]} parts, {counts[1]} faults, {memory[-1]:.0f} MiB", file=sys.stderr, flush=True)
        waiting = client.get("/api/status").json()["sinks"][0]["waiting"]
    return {"soak_parts": config.soak, "soak_per_s": per_s, "soak_faults": faults[-1] - faults[0],
            "soak_waiting": waiting, "memory_mib": memory, "memory_growth": memory[-1] / memory[0]}  # fmt: skip


def table(figures: dict, borne: Sequence[Borne], config: Line, rounds: int, seconds: float) -> list[str]:
    lines = [
        f"generated {CATEGORY}s of 256 px, PaDiM on ImageNet's Lite0 at {SIZE_PX} px, int8; medians of {rounds} rounds",
        f"  bare model, alone    p50 {figures['bare_p50_ms']:6.1f} ms, p99 {figures['bare_p99_ms']:6.1f} ms, "
        f"{figures['bare_per_s']:.1f} images/s",
        f"  a station, half that p50 {figures['line_p50_ms']:6.1f} ms, p99 {figures['line_p99_ms']:6.1f} ms "
        "from arrival to signal on disk",
        "    of its steps alone "
        + ", ".join(f"{step} {ms:.1f}" for step, ms in figures["line_steps_p99_ms"].items())
        + " ms at p99",
        f"  and one that hangs   {'':11}p99 {figures['line_p99_ms_with_one_that_hangs']:6.1f} ms",
        f"without a fault in {seconds:g} s, within {config.budget_ms:g} ms:",
    ]
    lines += [
        f"  {each.stations:2} stations {each.per_s:7.1f} frames/s in all, p50 {each.p50_ms:.0f} ms, "
        f"p99 {each.p99_ms:.0f} ms" + ("" if each.is_borne else f": NOT BORNE, {each.faults} faults of {each.parts}")
        for each in borne
    ]
    if config.soak:
        first, *_, last = figures["memory_mib"]
        lines.append(f"  soak: {config.soak} parts at {figures['soak_per_s']:.0f}/s, {figures['soak_faults']} faults, "
                     f"{first:.0f} MiB after a tenth, {last:.0f} MiB at the end")  # fmt: skip
    return lines
