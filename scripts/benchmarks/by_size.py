"""`infer.py --sizes`: what an image costs by the size that it is seen at, in milliseconds and in memory.

Models are those of `detect.py fit --size-px`, of a few good images, and are run as they are fitted, image by image,
each in a process of its own. All sizes of a method take turns. A process's memory is its peak since the model was
loaded; what an image takes is what that is above what it held then.
"""

import json
import os
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from downstream.inspection.inspector import Inspector
from pretrain.command import Names, UserError
from pretrain.data.dataset import usual_size
from pretrain.data.decode import decode
from pretrain.data.layouts import scan
from pretrain.data.size import Asked, named
from scripts.benchmarks.config import Infer
from scripts.benchmarks.peers import CONTESTANTS, Contestant, started
from scripts.benchmarks.rounds import finish, in_rounds

METHODS = ("padim", "patchcore", "fused")
# Enough for as many patches to compare with as there are of many, from 512 px on.
NORMALS, IMAGES = 16, 4
AT_MOST = {"default_over_smallest": 12.0}


def by_size(config: Infer, data: Path) -> int:
    """Measure, print the table, and say whether the size that `fit` chooses takes as long as it may."""
    methods, rounds, normals = (METHODS[-1:], 2, 8) if config.quick else (METHODS, config.rounds, NORMALS)
    records = scan(data, config.categories[:1]).records
    records = [record for record in records if record.category == records[0].category]
    category, originals = records[0].category, [record.path for record in records if record.split == "train"]
    tests = [record.path for record in records if record.split == "test"]
    tests = tests[:: max(1, len(tests) // IMAGES)][:IMAGES]
    sizes = sizes_of(config.sizes[:2] if config.quick else config.sizes)
    measured = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = {size: folder / f"{size}.npy" for size in sizes}
        for size, asked in sizes.items():
            seen_at = usual_size(originals, asked)
            np.save(images[size], np.stack([decode(path, seen_at).pixels for path in tests]))
        for method in methods:
            models = {size: folder / f"{method}-{size}" for size in sizes}
            for size, model in models.items():
                print(f"{method} is fitted at {size} px", file=sys.stderr, flush=True)
                fitted = {"method": method, "encoder": "imagenet", "size_px": sizes[size] or "native"}
                Inspector.fit(data, category=category, shots=normals, **fitted).save(model)
            measured[method] = take_turns(rounds, models, images)
    chosen = named(usual_size(originals, "auto"))
    figures = figures_of(measured, chosen)
    lines = [
        f"{category}, {normals} normals; as fitted, by torch on {os.cpu_count()} threads, image by image; medians of",
        f"{rounds} interleaved rounds; `fit` sees these images at {chosen} px where nobody says",
    ]
    return finish(
        "infer", config, lines + table_of(figures["table"]), figures,
        at_most={name: target for name, target in AT_MOST.items() if name in figures},
        packages=("torch", "faiss-gpu"), heading="Speed and memory by size",
    )  # fmt: skip


def sizes_of(typed: Names) -> dict[str, Asked]:
    """By what is typed. Raises UserError for what is no size."""
    for each in typed:
        if each != "native" and not each.isdecimal():
            raise UserError(f"--sizes {each} is none: give numbers of pixels, or native.")
    return {each: None if each == "native" else int(each) for each in typed}


def take_turns(rounds: int, models: dict[str, Path], images: dict[str, Path]) -> dict[str, dict[str, list[float]]]:
    """By size, lists over the rounds of seconds and CPU seconds an image, and the memory in MiB: of the process, and
    what it takes beside the model."""

    def turn(contestant: Contestant, loaded_mib: float) -> list[float]:
        done = contestant.do("predict", batch=1, count=IMAGES)
        peak = done["peak_mib"] or float("nan")
        return [done["seconds"] / IMAGES, done["cpu_seconds"] / IMAGES, peak, peak - loaded_mib]

    with ExitStack() as stack:
        turns = {}
        for size, model in models.items():
            wanted = {"model": str(model), "images": str(images[size]), "threads": os.cpu_count()}
            command = [sys.executable, CONTESTANTS / "ours_infer.py", json.dumps(wanted)]
            contestant = stack.enter_context(started(command))
            loaded_mib = contestant.do("settle")["peak_mib"] or float("nan")
            turns[size] = partial(turn, contestant, loaded_mib)
        measured = in_rounds(rounds, turns)
    names = ("seconds", "cpu_seconds", "peak_mib", "image_mib")
    return {size: dict(zip(names, zip(*each, strict=True), strict=True)) for size, each in measured.items()}


def figures_of(measured: dict[str, dict], chosen: str) -> dict:
    """Medians, and how many times as long as at the first size: the median of each round's own ratio. `chosen` is the
    size of the default."""
    table = {}
    for method, sizes in measured.items():
        first = next(iter(sizes.values()))["seconds"]
        for size, each in sizes.items():
            table[f"{method}, {size}"] = {
                "ms": 1e3 * median(each["seconds"]),
                "cpu_ms": 1e3 * median(each["cpu_seconds"]),
                "times_first": median(now / then for now, then in zip(each["seconds"], first, strict=True)),
                "peak_mib": max(each["peak_mib"]),
                "image_mib": max(each["image_mib"]),
            }
    ratio = table.get(f"{next(reversed(measured))}, {chosen}")
    return {"table": table} | ({"default_over_smallest": ratio["times_first"]} if ratio else {})


def table_of(table: dict[str, dict[str, float]]) -> list[str]:
    lines = [f"  {'method, px':20}{'ms':>8}{'CPU ms':>9}{'times the first':>17}{'peak MiB':>10}{'MiB an image':>14}"]
    for name, row in table.items():
        lines.append(
            f"  {name:20}{row['ms']:8.1f}{row['cpu_ms']:9.1f}{row['times_first']:17.2f}{row['peak_mib']:10.0f}"
            f"{row['image_mib']:14.0f}"
        )
    return lines
