"""Real trainings: encoders by two recipes, and the classic baselines by those they were published with."""

import json
from collections.abc import Iterator
from pathlib import Path

from baselines.autoencoder import main as autoencoder
from baselines.autoencoders.config import Config as AutoEncoder
from downstream.evaluate import main as evaluate
from downstream.restoration.config import RestorationStudy
from downstream.restoration.table import cell_file, read_cell
from downstream.restore import study
from downstream.study.config import Evaluate
from pretrain.command import Names
from pretrain.config import Config as SimClr
from pretrain.data.dataset import load
from pretrain.simclr import main as simclr
from scripts.benchmarks.parts.setting import MIN_TRAINING_S, Figures, Setting, left_out, run_typed

METHODS = "padim,patchcore"
# Of the time that is left, a half's training takes so much: the other half's and a study follow.
SHARES = (0.25, 0.33)
TOO_SHORT = f"too short: a training would have had less than {MIN_TRAINING_S} s"


def tested(setting: Setting) -> list[str]:
    """The categories that can be tested on: those with good and defective test images."""
    images = load(setting.data, setting.size(320, 32))
    kinds: dict[str, set[bool]] = {name: set() for name in images.categories}
    for record in images.records:
        if record.split == "test":
            kinds[record.category].add(record.is_anomaly)
    return [name for name, found in kinds.items() if len(found) == 2]


def pretraining(setting: Setting) -> Iterator[Figures]:
    """Each half of the categories left out by an encoder of the other half, by the default recipe and then by the
    paper's, and what both find on what they never saw, beside their start and random weights."""
    names = tested(setting)
    halves = [Names(names[0::2]), Names(names[1::2])]
    tiny = ("--steps", 2, "--size-px", 32, "--batch", 4, "--architecture", "timm/test_resnet", "--start", "random")
    for recipe, options in (("default", ()), ("paper's", ("--recipe", "simclr"))):
        encoders = []
        for number, unseen in enumerate(halves):
            if (minutes := setting.minutes(SHARES[number])) is None:
                yield left_out(f"the {recipe} recipe", TOO_SHORT)
                return
            out = setting.folder / f"{recipe}-{number}"
            length = setting.size(("--minutes", minutes), tiny)
            run_typed(simclr, SimClr, "--data", setting.data, "--hold-out", unseen, *length, "--device",
                      setting.device, "--out", out, *options)  # fmt: skip
            encoders.append(out / "encoder.safetensors")
            yield {f"monitor {recipe}, without {unseen}": _monitored(out)}
        out = setting.folder / f"study-{recipe}"
        small = ("--size-px", 32, "--shots", "2") if setting.is_tiny else ("--shots", "4,all")
        run_typed(evaluate, Evaluate, "--data", setting.data, "--protocol", "leave-one-out", "--test", Names(names),
                  "--encoder", Names(map(str, encoders)), "--methods", setting.size(METHODS, "patchcore"), "--seeds", 0,
                  *small, "--device", setting.device, "--out", out, "--record", setting.folder / "study.md",
                  "--heading", f"Leave-one-out on a GPU, {recipe} recipe")  # fmt: skip
        yield {f"auroc {recipe}": _aurocs(out)}


def _monitored(run: Path) -> dict[str, float]:
    """AUROC of synthetic anomalies, at first and at the end."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    found = [line["synthetic_auroc"] for line in lines if "synthetic_auroc" in line]
    return {"start": found[0], "end": found[-1]}


def _aurocs(study_folder: Path) -> dict[str, float | None]:
    """Mean image AUROC by row."""
    rows = json.loads((study_folder / "report.json").read_text())["rows"]
    return {row["name"]: (row["figures"].get("auroc") or {}).get("mean") for row in rows}


def baselines(setting: Setting) -> Iterator[Figures]:
    """SADNet at 256 px beside our restorer for as many minutes; then auto-encoders as published, on one category, each
    until it is trained or its time is over."""
    names = tested(setting)
    yield from restorers(setting, names)
    models = {"mvtec2": ("--loss", "ssim", "--size", 256), "ae": (), "vae": ()}
    tiny = {"mvtec2": ("--loss", "ssim", "--size", 64, "--epochs", 2),
            **dict.fromkeys(("ae", "vae"), ("--size", 32, "--width", 4, "--epochs", 2))}  # fmt: skip
    models = setting.size(models, tiny)
    for number, (model, options) in enumerate(models.items()):
        if (minutes := setting.minutes(0.8 / (len(models) - number))) is None:  # the rest is for its test images
            yield left_out(model, TOO_SHORT)
            continue
        out = setting.folder / model
        run_typed(autoencoder, AutoEncoder, "--model", model, "--data", setting.data, "--category", names[0], *options,
                  "--minutes", minutes, "--device", setting.device, "--out", out)  # fmt: skip
        figures = json.loads((out / names[0] / "figures.json").read_text())
        kept = {name: figures.get(name) for name in ("auroc", "pixel_auroc")}
        yield {f"{model} on {names[0]}": {"epochs": _epochs(out / names[0]), **kept}}


def _epochs(run: Path) -> int:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return 1 + max(int(line["epoch"]) for line in lines if "epoch" in line)


def restorers(setting: Setting, names: list[str]) -> Iterator[Figures]:
    """Both see every category but the first, which they are tested on."""
    if (minutes := setting.minutes(0.25)) is None:
        yield left_out("SADNet beside our restorer", TOO_SHORT)
        return
    out = setting.folder / "restoration"
    length = setting.size(("--minutes", minutes), ("--steps", 1))
    whole = ("--input-size", setting.size(256, 32), "--crop-px", setting.size(256, 32), "--images", setting.size(40, 2))
    run_typed(study, RestorationStudy, "--data", setting.data, "--train", Names(names[1:]), "--test", names[0],
              "--rows", "sadnet,imagenet", "--seeds", 0, *length, *whole, "--encoder", "none", "--device",
              setting.device, "--out", out)  # fmt: skip
    for row in ("sadnet", "imagenet"):
        cell = read_cell(cell_file(out, row, 0))
        restored = cell["figures"]["restored"]
        decibels = {name: restored[name]["value"] for name in ("psnr", "masked_psnr")}
        yield {f"restored by {row}": {"steps": cell["steps"], **decibels}}
