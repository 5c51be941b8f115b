"""How fast an exported model answers, and how well, beside anomalib's Padim and Patchcore.

    python scripts/benchmarks/infer.py --data FOLDER        # categories in MVTec AD's layout; installs anomalib once
    python scripts/benchmarks/infer.py                      # on a generated product
    python scripts/benchmarks/infer.py --quick              # the default method, Padims, one category, few images
    python scripts/benchmarks/infer.py --data FOLDER --check --record RESULTS.md
    python scripts/benchmarks/infer.py --data FOLDER --size-px 256      # ours at the size of anomalib's images
    python scripts/benchmarks/infer.py --data FOLDER --sizes 224,512,native     # ours alone: time and memory by size

Ours are made by the commands themselves, `detect.py fit` and `export.py`, with their defaults: PaDiM, and PaDiM and
PatchCore fused, on the EfficientNet-Lite0 with ImageNet weights, as ONNX in fp32 and int8, by onnxruntime and, where it
is installed, the fp32 ones by OpenVINO too. anomalib's have its defaults too: Padim on its usual ResNet-18 (with
ImageNet weights where they are in torch's cache, else random ones, which take as long), by torch and by OpenVINO; and
with the very Lite0 and weights that ours have, Padim and Patchcore, by torch. Each sees images at its own default size,
ours at another by `--size-px`. Each is a process of its own; they take turns, and only one works at a time.
Preprocessing is part of every time. Times are of the first category, AUROCs the mean of all.

Targets: the fastest of ours, alone with an image, 8 times as fast as anomalib's torch Padim on ResNet-18 with as many
threads, and its image AUROC no lower than that of any Padim of anomalib's; from the start of a process to its first
answer less than 1 s.
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
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from math import nan
from pathlib import Path
from statistics import mean, median
from typing import Literal

import numpy as np
import timm
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score

from downstream.methods.references import draw
from pretrain.command import Names, UserError
from pretrain.data.dataset import load
from pretrain.demo import make
from pretrain.encoder import Encoder, make_encoder
from pretrain.weights import imagenet_file, read_state_dict
from scripts.benchmarks.by_size import NORMALS, by_size
from scripts.benchmarks.config import Infer
from scripts.benchmarks.patches import CATEGORY, DIMENSIONS, PEER
from scripts.benchmarks.peers import CONTESTANTS, Contestant, peer_python, started
from scripts.benchmarks.rounds import finish, in_rounds, speedup

REPOSITORY = Path(__file__).resolve().parents[2]
OPENVINO = ("openvino", "onnx", "onnxscript")  # anomalib exports through onnx
# Runs our ONNX files too, where it is installed.
BY_OPENVINO = "openvino"
BATCHES = (1, 16)
THEIR_PX = 256
# Of its patches, that anomalib's Patchcore keeps: its default of 0.1 takes minutes to choose.
SHARE = 0.01
RESNET, LITE = "resnet18", "tf_efficientnet_lite0"
PADIM = "anomalib padim, ResNet-18"
# By contestant: engine, model, backbone.
THEIRS = {
    PADIM: ("torch", "padim", RESNET),
    "the same by OpenVINO": ("openvino", "padim", RESNET),
    "anomalib padim, Lite0": ("torch", "padim", LITE),
    "anomalib patchcore, Lite0": ("torch", "patchcore", LITE),
}
PADIMS = (PADIM, "anomalib padim, Lite0")
DEFAULT = "fused onnx"
AT_LEAST = {"faster_1_thread": 8.0, "faster_2_threads": 8.0, "auroc_gain": 0.0}
AT_MOST = {"start_s": 1.0}


@dataclass(frozen=True)
class Material:
    """Files that contestants read: images as arrays, by split and whose they are; and the labels of the test images."""

    folder: Path
    category: str
    normals: int
    labels: list[bool]

    def images(self, split: str, whose: Literal["ours", "theirs"]) -> str:
        return str(self.folder / f"{split}-{whose}.npy")


def main(config: Infer) -> int:
    if config.sizes:
        with tempfile.TemporaryDirectory() as name:
            return by_size(config, config.data or generated(Path(name) / "demo", NORMALS))
    rounds, normals, images = (2, 32, 16) if config.quick else (config.rounds, config.normals, 32)
    threads = (2,) if config.quick else (1, 2)
    methods = ("fused",) if config.quick else ("padim", "fused")
    theirs = {name: of for name, of in THEIRS.items() if not config.quick or name in PADIMS}
    python = config.peer_python or peer_python("anomalib", PEER, *OPENVINO)
    measured, starts, aurocs = {}, {}, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = config.data or generated(folder / "demo", normals)
        categories = list(config.categories) or load(data, config.size_px).categories
        weights, usual = write_weights(folder)
        for category in categories[: 1 if config.quick else None]:
            material = make_material(
                folder / category, data, config.size_px, category, normals, 3 if config.quick else 1
            )
            models = make_ours(material, data, config.size_px, methods)
            make_theirs([python, CONTESTANTS / "anomalib_infer.py"], material, theirs, weights)
            commands = {
                count: commands_of(models, theirs, [python, CONTESTANTS / "anomalib_infer.py"], material, count)
                for count in threads
            }
            if measured or not rounds:  # times are of one category
                scores = {name: scores_of(command, material) for name, command in commands[threads[-1]].items()}
            else:
                for count in threads:
                    measured[count], scores = take_turns(rounds, images, commands[count], material)
                starts = {
                    name: [first_answer(command) for _ in range(1 if config.quick else rounds)]
                    for name, command in commands[threads[-1]].items()
                }
            aurocs[category] = {name: float(roc_auc_score(material.labels, of)) for name, of in scores.items()}
            print(json.dumps({category: aurocs[category]}), file=sys.stderr, flush=True)
    figures = figures_of(measured, aurocs, starts)
    seen = f"{', '.join(aurocs)}, up to {normals} normals each" if config.data else f"generated {CATEGORY}s"
    seen += f", ours at {config.size_px} px, anomalib's at {THEIR_PX}"
    lines = [f"{seen}; anomalib's ResNet-18 has {usual} weights"]
    if rounds:
        lines[0] += f"; medians of {rounds} interleaved"
        lines.append(
            "rounds, milliseconds an image (CPU milliseconds), times as fast as anomalib's Padim on ResNet-18 by torch;"
        )
    return finish(
        "infer",
        config,
        lines + table_of(figures),
        {**figures, "peer": PEER},
        at_least={name: target for name, target in AT_LEAST.items() if name in figures},
        at_most={name: target for name, target in AT_MOST.items() if name in figures},
        packages=("torch", "onnx", "onnxruntime"),
    )


def generated(folder: Path, normals: int) -> Path:
    os.environ["HELDOUT_CACHE"] = str(folder.parent / "cache")  # gone with the images
    make(folder, categories=(CATEGORY,), train=normals, good=26, defective=6)
    return folder


def write_weights(folder: Path) -> tuple[dict[str, Path], str]:
    """By backbone, its weights in timm's naming; and which those of the ResNet-18 are."""
    files = {backbone: folder / f"{backbone}.safetensors" for backbone in (RESNET, LITE)}
    try:
        encoder, usual = make_encoder(RESNET, "imagenet"), "ImageNet's"
    except UserError:
        encoder, usual = Encoder(RESNET, seed=0), "random"
    # torchvision and timm name a ResNet's weights alike; an EfficientNet's are the same tensors in the same order.
    save_file({n.split(".", 1)[1]: w.contiguous() for n, w in encoder.stages.state_dict().items()}, files[RESNET])
    published = read_state_dict(imagenet_file(LITE.removeprefix("tf_"))[0])
    names = timm.create_model(LITE).state_dict()
    save_file({n: w.contiguous() for n, w in zip(names, published.values(), strict=True)}, files[LITE])
    return files, usual


def make_material(folder: Path, data: Path, size_px: int, category: str, normals: int, every: int) -> Material:
    """Of the test images, every so many."""
    folder.mkdir()
    for whose, size in (("ours", size_px), ("theirs", THEIR_PX)):
        images = load(data, size, Names(category), keep_aspect=whose == "ours")  # each as its tool does it
        train = [i for i, record in enumerate(images.records) if record.split == "train"]
        test = [i for i, record in enumerate(images.records) if record.split == "test"][::every]
        # Those that detect.py draws.
        train = [train[i] for i in draw(len(train), min(normals, len(train)), 0)]
        material = Material(folder, category, len(train), [images.records[i].is_anomaly for i in test])
        for split, chosen in (("train", train), ("test", test)):
            np.save(material.images(split, whose), images.batch(chosen))
    return material


def make_ours(material: Material, data: Path, size_px: int, methods: tuple[str, ...]) -> dict[str, Path]:
    """Fitted and exported by the commands, by contestant."""
    models, of = {}, ("--data", data, "--category", material.category)
    for method in methods:
        folder = material.folder / method
        fitted = ("--method", method, "--encoder", "imagenet", "--size-px", size_px, "--shots", material.normals)
        call("downstream/detect.py", "fit", *of, *fitted, "--out", folder)
        models[f"{method} onnx"] = folder.with_suffix(".onnx")
        call("downstream/export.py", folder, "--data", data)
        models[f"{method} onnx-int8"] = folder.with_name(f"{method}-int8.onnx")
        # Whatever it costs: here that is measured, not refused.
        lenient = ("--max-auroc-loss", 1, "--max-changed-decisions", 1)
        call("downstream/export.py", folder, "--to", "onnx-int8", "--data", data, *lenient)
    return models


def make_theirs(command: list, material: Material, theirs: dict, weights: dict[str, Path]) -> None:
    """Each fitted once, though two engines may run it."""
    for name, (engine, _, backbone) in theirs.items():
        if engine == "torch":
            print(f"{name} is fitted to {material.category}", file=sys.stderr, flush=True)
            files = {"weights": str(weights[backbone]), "train": material.images("train", "theirs")}
            export = any(of == ("openvino", *theirs[name][1:]) for of in theirs.values())
            with started([*command, json.dumps(theirs_of(theirs[name], material, os.cpu_count() or 1))]) as contestant:
                contestant.do("make", **files, share=SHARE, export=export)


def theirs_of(contestant: tuple[str, str, str], material: Material, threads: int) -> dict:
    engine, model, backbone = contestant
    folder = str(material.folder / f"{model}-{backbone}")
    wanted = {"engine": engine, "model": model, "backbone": backbone, "folder": folder, "threads": threads}
    return {**wanted, "images": material.images("test", "theirs"), "dimensions": DIMENSIONS}


def commands_of(
    models: dict[str, Path], theirs: dict, command: list, material: Material, threads: int
) -> dict[str, list]:
    """How each contestant is started with so many threads."""
    commands = {}
    for name, model in models.items():
        wanted = {"model": str(model), "images": material.images("test", "ours"), "threads": threads}
        commands[name] = [sys.executable, CONTESTANTS / "ours_infer.py", json.dumps(wanted)]
        if find_spec(BY_OPENVINO) and "int8" not in name:
            by_openvino = json.dumps({**wanted, "runtime": BY_OPENVINO})
            commands[name.replace("onnx", BY_OPENVINO)] = [*commands[name][:-1], by_openvino]
    for name, contestant in theirs.items():
        commands[name] = [*command, json.dumps(theirs_of(contestant, material, threads))]
    return commands


def scores_of(command: list, material: Material) -> list[float]:
    with started(command) as contestant:
        return contestant.do("predict", batch=BATCHES[-1], count=len(material.labels))["scores"]


def take_turns(
    rounds: int, images: int, commands: dict[str, list], material: Material
) -> tuple[dict[str, dict], dict[str, list[float]]]:
    """By contestant and batch, a list over the rounds of seconds and CPU seconds per image, and its peak memory; and
    by contestant the scores of all test images."""
    peaks_mib = {}

    def turn(name: str, contestant: Contestant) -> dict[str, list[float]]:
        spent = {}
        for batch in BATCHES:
            done = contestant.do("predict", batch=batch, count=images)
            spent[f"batch {batch}"] = [done[key] / images for key in ("seconds", "cpu_seconds")]
            peaks_mib[name] = done["peak_mib"]
        return spent

    with ExitStack() as stack:
        contestants = {name: stack.enter_context(started(command)) for name, command in commands.items()}
        results = in_rounds(rounds, {name: partial(turn, name, each) for name, each in contestants.items()})
        whole = {"batch": BATCHES[-1], "count": len(material.labels)}
        scores = {name: each.do("predict", **whole)["scores"] for name, each in contestants.items()}
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


def children_cpu_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def figures_of(measured: dict, aurocs: dict[str, dict[str, float]], starts: dict) -> dict:
    """Ratios are medians of each round's own; the fastest of ours is the one with the lowest median, by onnxruntime,
    which comes with the extra `export`. `aurocs` by category and contestant."""
    means = {name: mean(of[name] for of in aurocs.values()) for name in next(iter(aurocs.values()))}
    if not measured:
        gain = means[DEFAULT] - max(means[name] for name in PADIMS)
        return {"auroc_gain": gain, "auroc": {**aurocs, "mean": means}}
    table = {}
    for threads, by_name in measured.items():
        for name, tasks in by_name.items():
            row = {"peak_mib": tasks["peak_mib"]}
            for batch in BATCHES:
                rounds = tasks[f"batch {batch}"]
                row[f"ms_{batch}"], row[f"cpu_ms_{batch}"] = (1e3 * median(each) for each in zip(*rounds, strict=True))
                theirs = by_name[PADIM][f"batch {batch}"]
                row[f"faster_{batch}"] = speedup([spent[0] for spent in rounds], [spent[0] for spent in theirs])
            table[f"{name}, {threads}"] = row
    ours = [name for name in next(iter(aurocs.values())) if name not in THEIRS and not name.endswith(BY_OPENVINO)]
    fastest = {threads: min(ours, key=lambda name: table[f"{name}, {threads}"]["ms_1"]) for threads in measured}
    started_s = {name: [median(each) for each in zip(*of_name, strict=True)] for name, of_name in starts.items()}
    faster = {
        f"faster_{threads}_thread{'s' * (threads > 1)}": table[f"{name}, {threads}"]["faster_1"]
        for threads, name in fastest.items()
    }
    return {
        "fastest": fastest[max(measured)],
        **faster,
        "auroc_gain": min(means[name] for name in fastest.values()) - max(means[name] for name in PADIMS),
        "start_s": max(started_s[name][0] for name in ours),
        "auroc": {**aurocs, "mean": means},
        "starts_s": started_s,
        "table": table,
    }


def table_of(figures: dict) -> list[str]:
    """Times and memory by threads; AUROCs by category."""
    width = max(map(len, THEIRS)) + 1
    lines = times_of(figures, width) if "table" in figures else []
    categories = list(figures["auroc"])
    lines.append(f"{'image AUROC':{width}}" + "".join(f"{category:>14}" for category in categories))
    for name in figures["auroc"]["mean"]:
        lines.append(f"{name:{width}}" + "".join(f"{figures['auroc'][each][name]:14.3f}" for each in categories))
    if "starts_s" in figures:
        lines.append("start of the process to the first answer, seconds (CPU seconds):")
        lines += [f"  {name:{width}}{wall:7.2f} ({cpu:.2f})" for name, (wall, cpu) in figures["starts_s"].items()]
    return [line.rstrip() for line in lines]


def times_of(figures: dict, width: int) -> list[str]:
    head = f"{'threads':>8}{'batch 1':>16}{'batch 16':>16}{'times anomalib':>16}{'peak MiB':>10}"
    lines = [f"{'':{width}}{head}"]
    for named, row in figures["table"].items():
        name, threads = named.rsplit(", ", 1)
        times = [f"{row[f'ms_{batch}']:.1f} ({row[f'cpu_ms_{batch}']:.1f})" for batch in BATCHES]
        faster, peak = f"{row['faster_1']:.2f}, {row['faster_16']:.2f}", row["peak_mib"] or nan
        lines.append(f"{name:{width}}{threads:>8}{times[0]:>16}{times[1]:>16}{faster:>16}{peak:10.0f}")
    return lines


def call(script: str, *arguments: object) -> None:
    """Run one of our commands; UserError if it fails, with its own words above."""
    done = subprocess.run([sys.executable, REPOSITORY / script, *map(str, arguments)], check=False, stdout=sys.stderr)
    if done.returncode:
        raise UserError(f"{script} ended with exit code {done.returncode}: see what it says above.")
