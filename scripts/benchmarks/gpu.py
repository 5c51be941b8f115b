"""All of heldout on one GPU, in a quarter of an hour: what passes, how fast it is, and what real trainings give there.

    python scripts/benchmarks/gpu.py --pack gpu-pack --data FOLDER    # what a machine without a network lacks; run.sh
    OUT=FOLDER bash gpu-pack/run.sh --minutes 9                       # there; FOLDER gets the results
    python scripts/benchmarks/gpu.py --minutes 9 --data FOLDER        # on a machine that has heldout installed
    python scripts/benchmarks/gpu.py --dry-run                        # every part, tiny, on the CPU

Parts come in the order of their worth, each in a process of its own with a share of the minutes that are left. After
every figure OUT/results.json and OUT/results.md are whole: a run that is cut off has lost nothing. What a part left out
for want of time it names; `--parts` with those in a second run is how to get it. The last line is the same JSON.

Targets, for an H100 or H200: all tests pass, none is skipped; 80 % of the bare step's rate with each network; with
ResNet-18 15,000 views/s and with ResNet-50 4,300 (H200; on an H100 0.8 of that); PaDiM on Lite0 4,000 images/s; scores
of both devices within 1e-4.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from pretrain.command import start
    from scripts.benchmarks.config import Gpu

    start("scripts.benchmarks.gpu:main", Gpu)

import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import torch

from pretrain.command import UserError
from pretrain.data.images import check_names
from pretrain.demo import make
from pretrain.files import write_json, write_whole
from pretrain.training.device import choose_device
from scripts.benchmarks.config import Gpu
from scripts.benchmarks.parts.packing import write_pack
from scripts.benchmarks.parts.setting import Figures, Setting
from scripts.benchmarks.rounds import finish

REPOSITORY = Path(__file__).resolve().parents[2]
DRY_RUN = "a dry run"


class Planned(NamedTuple):
    """A part: its function, and how much of the time it takes, relative to the others that are left."""

    function: str
    weight: float


PARTS = {
    "tests": Planned("checks:tests", 2.0),
    "training": Planned("training:training", 2.5),
    "pretraining": Planned("recipes:pretraining", 3.0),
    "inference": Planned("inference:inference", 2.0),
    "baselines": Planned("recipes:baselines", 3.0),
    "views": Planned("training:views", 1.0),
    "service": Planned("serving:service", 1.0),
}
H200 = {
    "over_bare resnet18": 0.8, "over_bare resnet50": 0.8, "over_bare lite0": 0.8,
    "over_bare vit_small": 0.8, "views_per_s resnet18": 15_000, "views_per_s resnet50": 4_300,
    "images_per_s padim": 4_000,
}  # fmt: skip
AT_MOST = {"failed": 0, "skipped": 0,
           **{f"score_difference {name}": 1e-4 for name in ("padim", "patchcore", "fused")}}  # fmt: skip
PACKAGES = ("torch", "torchvision", "timm", "kornia")
RATES, OF_H100 = ("views_per_s", "images_per_s"), 0.8
# Beyond its share, until a part's process is stopped: what it had begun may end.
GRACE = 1.5
SECONDS_BETWEEN_LOOKS = 1.0
# The part that has a process of its own in a dry run too; the others do without, each of which takes seconds to import.
APART_ALWAYS = "tests"


def main(config: Gpu) -> int:
    if config.pack is not None:
        write_pack(config)
        return 0
    check_names(config.parts, PARTS, "part")
    device = "cpu" if config.dry_run else choose_device("cuda").type
    name = DRY_RUN if config.dry_run else torch.cuda.get_device_name()
    config.out.mkdir(parents=True, exist_ok=True)
    results = Results(config.out, name)
    with nullcontext(config.work) if config.work else tempfile.TemporaryDirectory() as work:
        run_parts(config, device, Path(work), results)
    figures = results.figures()
    wanted = targets(name, figures)
    return finish("gpu", config, results.lines(), {"gpu": name, **figures}, packages=PACKAGES,
                  heading=f"On one GPU: {name}", **wanted)  # fmt: skip


def run_parts(config: Gpu, device: str, work: Path, results: "Results") -> None:
    """One after another, each with its share of what is left of the minutes."""
    deadline_s = time.monotonic() + 60 * config.minutes
    data = config.data or generated(config, work)
    waiting = {part: planned for part, planned in PARTS.items() if part in config.parts or not config.parts}
    while waiting:
        part, planned = next(iter(waiting.items()))
        left_s = deadline_s - time.monotonic()
        share_s = left_s * planned.weight / sum(each.weight for each in waiting.values())
        del waiting[part]
        if left_s < 5 and not config.dry_run:
            results.add(part, {"left out: all of it": "no time was left"})
            continue
        setting = Setting(device, config.dry_run, share_s, data, work / part)
        print(f"{part}: {share_s:.0f} s", file=sys.stderr, flush=True)
        start_s = time.monotonic()
        if config.in_process or config.dry_run and part != APART_ALWAYS:
            run_here(part, planned, setting, results)
        else:
            run_apart(part, setting, config, results, min(GRACE * share_s, left_s))
        results.add(part, {"seconds": time.monotonic() - start_s})


def generated(config: Gpu, work: Path) -> Path:
    """Demo data, where none was named."""
    folder = work / "demo"
    count = {"train": 10, "good": 2, "defective": 1} if config.dry_run else {}
    make(folder, categories=("hazelnut", "leather", "pill")[: 2 if config.dry_run else 3], **count)
    return folder


def run_here(part: str, planned: Planned, setting: Setting, results: "Results") -> None:
    """In this process. An error ends the part, and is among its figures."""
    module, _, function = planned.function.partition(":")
    setting.folder.mkdir(parents=True, exist_ok=True)
    try:
        for figures in getattr(import_module(f"scripts.benchmarks.parts.{module}"), function)(setting):
            results.add(part, figures)
    except Exception as error:
        results.add(part, {"broken": [f"{type(error).__name__}: {error}"]})
        if not isinstance(error, UserError):
            traceback.print_exc()


def run_apart(part: str, setting: Setting, config: Gpu, results: "Results", limit_s: float) -> None:
    """In a process of its own, which is stopped after `limit_s`; a GPU that it left in disorder is nobody else's."""
    out = setting.folder.with_name(f"{part}-alone")
    options = ["--parts", part, "--in-process", "--minutes", setting.seconds / 60, "--data", setting.data, "--out", out,
               "--work", setting.folder.parent, *(["--dry-run"] if config.dry_run else [])]  # fmt: skip
    command = [sys.executable, str(Path(__file__).resolve()), *map(str, options)]
    stop_s = time.monotonic() + limit_s
    with open(config.out / "log.txt", "a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            while process.poll() is None and time.monotonic() < stop_s:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(min(SECONDS_BETWEEN_LOOKS, max(0.0, stop_s - time.monotonic())))
                results.add(part, figures_in(out, part))  # so that this process too may be cut off
        finally:
            if is_stopped := process.poll() is None:
                os.killpg(process.pid, 9)
                process.wait()
    figures = figures_in(out, part)
    if is_stopped:
        figures["left out: the rest"] = f"it was stopped after {limit_s:.0f} s"
    elif process.returncode:
        why = f"{part}: its process ended with {process.returncode}, log.txt says why"
        figures["broken"] = [*figures.get("broken", []), why]
    results.add(part, figures)


def figures_in(out: Path, part: str) -> Figures:
    """What the part's own process has found so far."""
    file = out / "results.json"
    return json.loads(file.read_text())["parts"].get(part, {}) if file.is_file() else {}


class Results:
    """What is known so far, by part, on disk after every figure."""

    def __init__(self, out: Path, name: str) -> None:
        self.out, self.name, self.parts = out, name, {}

    def add(self, part: str, figures: Figures) -> None:
        self.parts.setdefault(part, {}).update(figures)
        write_json(self.out / "results.json", {"gpu": self.name, "parts": self.parts})
        text = "\n".join([f"## On one GPU: {self.name}", "", *(f"    {line}".rstrip() for line in self.lines()), ""])
        write_whole(self.out / "results.md", text.encode())

    def figures(self) -> Figures:
        """All of them, whatever their part."""
        every = {name: value for figures in self.parts.values() for name, value in figures.items()}
        return every | {"broken": [text for figures in self.parts.values() for text in figures.get("broken", [])]}

    def lines(self) -> list[str]:
        """A table of all."""
        lines = []
        for part, figures in self.parts.items():
            lines.append(f"{part}, {figures.get('seconds', 0):.0f} s")
            lines += [f"  {name:40}{_as_text(value)}" for name, value in figures.items() if name != "seconds"]
        return lines


def targets(name: str, figures: Figures) -> dict[str, Mapping[str, float]]:
    """Those of what was measured, for this GPU; none in a dry run. What is broken is missed."""
    if name == DRY_RUN:
        return {"missed": figures["broken"]}
    share = OF_H100 if "H100" in name else 1.0
    least = {each: target * (share if each.startswith(RATES) else 1) for each, target in H200.items()}
    # Each of the tests that are marked, as one that is skipped or was never collected proves nothing.
    least["passed"] = figures.get("tests", 1)
    return {
        "at_least": {each: target for each, target in least.items() if each in figures},
        "at_most": {each: target for each, target in AT_MOST.items() if each in figures},
        "missed": figures["broken"] + [f"{each} was not measured" for each in least if each not in figures],
    }


def _as_text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_as_text(inner)}" for name, inner in value.items())
    return str(value)
