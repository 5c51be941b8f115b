"""What restorers are worth on products that none of them saw: SADNet and ours, trained for equally long.

Every cell, a row with a seed, is a run folder with `judged.json` in it: the same command goes on where it was stopped.
PSNR in the mask says whether a defect is restored; whether it can still be found is asked of PaDiM, which refers to
clean good images and judges the test images clean, degraded and restored.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import torch

from baselines import sadnet as restoration
from baselines.contract.method import Images
from baselines.contract.metrics import image_figures
from baselines.restoration.evaluation import ALL, DEGRADED, Judged, means, restored_figures
from baselines.restoration.pairs import DegradedImages
from baselines.restoration.run import MODEL, training_metadata
from downstream import restore
from downstream.methods.padim import PaDiM
from downstream.restoration.table import JUDGED_FILE, RestorationTable, markdown_lines, restoration_table
from downstream.study.encoders import choose_encoders, imagenet_encoder
from downstream.study.folds import HELD_OUT, make_folds
from pretrain.command import Names, UserError
from pretrain.data.dataset import ImageSet, choose_folder, load
from pretrain.data.images import check_names
from pretrain.encoder import fingerprint, load_encoder
from pretrain.files import write_json
from pretrain.progress import Progress

if TYPE_CHECKING:
    from downstream.restore import Study

SADNET = {
    "sadnet": {},
    "sadnet-fast": {"learning_rate": 1e-3},
    "sadnet-published": {"weighting": "published"},
    "sadnet-balanced": {"weighting": "balanced", "beta": 1.0, "loss_weights": (0.0, 0.0, 0.5)},
}
OURS = {
    "": {},
    "-frozen": {"frozen": 1.0},
    "-no-mask": {"beta": 0.0},
    "-published": {"weighting": "published"},
    "-balanced": {"weighting": "balanced", "beta": 1.0},
}
ENCODERS = ("simclr", "random", "imagenet")
ROWS = (*SADNET, *(encoder + kind for encoder in ENCODERS for kind in OURS))
DEFAULT_ROWS = ("sadnet", "simclr", "random", "imagenet")
# PaDiM's references; more would take longer than they teach.
MAX_NORMALS = 60


def run_study(config: "Study") -> None:
    """Train and judge what is missing, print the table, record it where that is asked."""
    lines = markdown_lines(computed(config))
    print("\n".join(lines))
    if config.record:
        with open(config.record, "a", encoding="utf-8") as record:
            record.write(f"\n## {config.heading}\n\n" + "\n".join(lines) + "\n")


def computed(config: "Study") -> RestorationTable:
    """Train and judge what is missing; the table of all."""
    config = replace(config, data=choose_folder(config.data))
    folds = make_folds(HELD_OUT, config.data, config.train, config.test)
    config = replace(config, train=Names(folds[0].train), test=Names(fold.test for fold in folds))
    seeds = [int(seed) for seed in config.seeds if seed.isdigit()]
    if len(seeds) < len(config.seeds) or not seeds:
        raise UserError(f"--seeds {config.seeds} cannot be used: give numbers from 0 up, such as 0,1,2.")
    check_names(config.rows, ROWS, "row")
    tested = [fold.test for fold in folds]
    chosen, _ = choose_encoders(config.encoder, config.data, tested)
    shared = [one.path for one in chosen[tested[0]] if all(one in files for files in chosen.values())]
    rows = [row for row in config.rows or DEFAULT_ROWS if _can_run(row, shared, bool(config.rows))]
    images = load(config.data, config.input_size, tested)
    with Progress("restoration study", len(rows) * len(seeds), "cells") as progress:
        for seed in seeds:
            encoder = shared[seed % len(shared)] if shared else None
            for row in rows:
                file = config.out / f"{row}-seed-{seed}" / JUDGED_FILE
                asked = _asked(config, encoder)
                if not file.is_file():
                    if restoration.train(_training(config, row, seed, encoder, file.parent)):
                        raise KeyboardInterrupt  # it was asked to stop, and has saved
                    judged = judge_cell(file.parent, images, config, encoder, seed)
                    write_json(file, {"asked": asked, **judged})
                elif json.loads(file.read_text())["asked"] != asked:
                    raise UserError(f"{file.parent} was computed with other options: choose another --out.")
                progress.advance(note=f"{row}, seed {seed}")
    return restoration_table(config, rows, seeds)


def _asked(config: "Study", encoder: Path | None) -> dict:
    """What a cell's figures depend on besides its row and seed."""
    names = ("data", "train", "test", "level", "input_size", "crop_px", "minutes", "steps")
    return {name: str(getattr(config, name)) for name in names} | {"encoder": encoder and fingerprint(encoder)}


def _can_run(row: str, encoders: Sequence[Path], was_asked: bool) -> bool:
    """Whether a row's encoder is at hand. Raises UserError where the row was asked for by its name."""
    kind = row.split("-")[0]
    if kind == "simclr" and encoders or kind == "imagenet" and imagenet_encoder("resnet18"):
        return True
    if kind not in ("simclr", "imagenet"):
        return True
    if was_asked:
        raise UserError(f"there is no encoder for the row {row}: give --encoder FILE, or leave the row out.")
    print(f"the row {row} is left out: there is no such encoder that saw none of the test categories.")
    return False


def _training(config: "Study", row: str, seed: int, encoder: Path | None, out: Path) -> restoration.Train:
    """The training of a row; all have the same images, time and squares."""
    shared = {name: getattr(config, name) for name in
              ("data", "train", "level", "input_size", "crop_px", "minutes", "steps", "device")}  # fmt: skip
    shared |= {"seed": seed, "out": out}
    if row in SADNET:
        return restoration.Train(**shared, **SADNET[row])
    start, _, kind = row.partition("-")
    eyes = encoder if start == "simclr" else Path(start)
    return restore.Train(**shared, encoder=eyes, batch_size=8, **OURS[kind and f"-{kind}"])


def judge_cell(run: Path, images: ImageSet, config: "Study", encoder: Path | None, seed: int) -> dict:
    """Figures of the test images, and whether their defects are still found, plain JSON."""
    restorer = restore.load_restorer(run / MODEL)
    metadata, found, seconds, pixels = training_metadata(run), {}, 0.0, 0
    judged: list[Judged] = []
    for category in images.categories:
        of_category = images.of(category)
        tests = of_category.subset([i for i, record in enumerate(of_category.records) if record.split == "test"])
        seen: dict[str, list[torch.Tensor]] = {"clean": [], DEGRADED: [], "restored": []}
        for name, _, (degraded, clean, mask) in DegradedImages(tests, config.level):
            start_s = time.perf_counter()
            restored = restorer.restore(degraded[None])[0]
            seconds, pixels = seconds + time.perf_counter() - start_s, pixels + degraded[0].numel()
            figures = {who: restored_figures(image, clean, mask) for who, image in
                       ((DEGRADED, degraded), ("restored", restored))}  # fmt: skip
            judged.append(Judged(name, category, figures))
            for kind, image in zip(seen, (clean, degraded, restored), strict=True):
                seen[kind].append(image)
        found[category] = _aurocs(of_category, [record.is_anomaly for record in tests.records], seen, encoder, seed)
    result = {
        "by": {who: {figure: value._asdict() for figure, value in figures.items()}
               for who, figures in means(judged, ALL).items()},
        "found": {kind: _average([one[kind] for one in found.values()]) for kind in seen},
        "found_by_category": found,
        "seconds_per_megapixel": 1e6 * seconds / pixels,
        "steps": metadata["steps"],
        "minutes": metadata["minutes"],
    }  # fmt: skip
    return result


def _aurocs(image_set: ImageSet, labels: list[bool], seen: dict, encoder: Path | None, seed: int) -> dict:
    """Image AUROC of PaDiM on each kind of image; none where a category has no normals or but one label."""
    normals = [i for i, record in enumerate(image_set.records) if record.split == "train" and not record.is_anomaly]
    if len(normals) < 2:
        return dict.fromkeys(seen)
    eyes = load_encoder(encoder) if encoder else "random"
    method = PaDiM(encoder=eyes, seed=seed).refer(Images(image_set.subset(normals[:MAX_NORMALS])))
    scores = {kind: torch.cat([part.scores for part in method.predict(images)]) for kind, images in seen.items()}
    return {kind: image_figures(labels, values.numpy(), 0.0).auroc for kind, values in scores.items()}


def _average(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None
