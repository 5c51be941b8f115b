"""What restorers are worth on products that none of them saw: SADNet and ours, trained for equally long.

Every cell, a row with a seed, is a run folder with `evaluation.json` in it: the same command resumes a study that was
stopped. PSNR in the mask says whether a defect is restored; whether it can still be detected is measured by PaDiM,
whose references are clean good images and which scores the test images clean, degraded and restored.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from baselines import sadnet
from baselines.contract.method import Images
from baselines.contract.metrics import image_figures
from baselines.restoration.config import Train as SadNetTrain
from baselines.restoration.evaluation import DEGRADED, EvaluatedImage, mean_figures, restored_figures
from baselines.restoration.pairs import DegradedImages
from baselines.restoration.run import MODEL, train_restorer, training_summary
from downstream.methods.padim import PaDiM
from downstream.restoration.config import RestorationStudy, Train
from downstream.restoration.restorer import load_restorer, make_restorer
from downstream.restoration.table import (
    FORMAT,
    RestorationTable,
    cell_file,
    markdown_lines,
    read_cell,
    restoration_table,
)
from downstream.study.encoders import choose_encoders, imagenet_encoder
from downstream.study.figures import mean_of_defined
from downstream.study.folds import HELD_OUT, make_folds
from pretrain.command import Names, UserError
from pretrain.data.dataset import ImageSet, choose_folder, load
from pretrain.data.images import check_names
from pretrain.encoder import DEFAULT_ARCHITECTURE, fingerprint, load_encoder
from pretrain.files import write_json
from pretrain.progress import Progress
from pretrain.training.device import choose_device
from pretrain.weights import IMAGENET

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
ROWS = (*SADNET, *(encoder + variant for encoder in ENCODERS for variant in OURS))
DEFAULT_ROWS = ("sadnet", "simclr", "random", "imagenet")
CLEAN, RESTORED = "clean", "restored"
# PaDiM's references; more take longer and change little.
MAX_NORMALS = 60
# Categories of which PaDiM is kept from row to row: it takes 250 MB of each.
MAX_KEPT = 4


def run_study(config: RestorationStudy) -> None:
    """Train and evaluate what is missing, print the table, record it where that is asked."""
    lines = markdown_lines(compute_study(config))
    print("\n".join(lines))
    if config.record:
        with open(config.record, "a", encoding="utf-8") as record:
            record.write(f"\n## {config.heading}\n\n" + "\n".join(lines) + "\n")


def compute_study(config: RestorationStudy) -> RestorationTable:
    """Train and evaluate what is missing; the table of all."""
    config = replace(config, data=choose_folder(config.data))
    folds = make_folds(HELD_OUT, config.data, config.train, config.test, config.layout)
    config = replace(config, train=Names(folds[0].train), test=Names(fold.test for fold in folds))
    seeds = [int(seed) for seed in config.seeds if seed.isdigit()]
    if len(seeds) < len(config.seeds) or not seeds:
        raise UserError(f"--seeds {config.seeds} cannot be used: give numbers from 0 up, such as 0,1,2.")
    check_names(config.rows, ROWS, "row")
    tested = [fold.test for fold in folds]
    chosen, _ = choose_encoders(config.encoder, config.data, tested)
    # One encoder restores all test categories, so it must have seen none of them.
    shared = [source.path for source in chosen[tested[0]] if all(source in files for files in chosen.values())]
    rows = [row for row in config.rows or DEFAULT_ROWS if _can_run(row, shared, bool(config.rows))]
    images = fewer_tests(load(config.data, config.input_size, tested, layout=config.layout), config.images)
    with Progress("restoration study", len(rows) * len(seeds), "cells") as progress:
        for seed in seeds:
            encoder = shared[seed % len(shared)] if shared else None
            detector = Detector(encoder, seed, choose_device(config.device))
            for row in rows:
                compute_cell(config, row, seed, detector, images)
                progress.advance(note=f"{row}, seed {seed}")
    return restoration_table(config, rows, seeds)


def fewer_tests(images: ImageSet, most: int | None) -> ImageSet:
    """The images with `most` test images of each category at most, as many good as defective ones where there are
    enough, each spread over all of its kind."""
    if most is None:
        return images
    left_out = set()
    for category in images.categories:
        for is_anomaly in (False, True):
            of_kind = [
                i
                for i, record in enumerate(images.records)
                if (record.category, record.split, record.is_anomaly) == (category, "test", is_anomaly)
            ]
            count = max(1, (most + is_anomaly) // 2)  # of an odd number, one defective image more
            if len(of_kind) > count:
                left_out |= set(of_kind) - {of_kind[i * len(of_kind) // count] for i in range(count)}
    return images.subset([i for i in range(len(images)) if i not in left_out])


def compute_cell(config: RestorationStudy, row: str, seed: int, detector: "Detector", images: ImageSet) -> None:
    """Train and evaluate a row with a seed, unless its file is there. Raises UserError if that is of other options."""
    file, options = cell_file(config.out, row, seed), _options(config, detector.encoder)
    if not file.is_file():
        train(config, row, seed, detector.encoder, file.parent)
        evaluation = evaluate_cell(file.parent, images, config.severity, detector)
        write_json(file, {"format": FORMAT, "cell": file.parent.name, "options": options, **evaluation})
    elif {"images": "None"} | read_cell(file)["options"] != options:  # cells of before had all images
        raise UserError(f"{file.parent} was computed with other options: choose another --out.")


def _options(config: RestorationStudy, encoder: Path | None) -> dict:
    """What a cell's figures depend on besides its row and seed."""
    names = ("data", "train", "test", "severity", "input_size", "images", "crop_px", "minutes", "steps")
    return {name: str(getattr(config, name)) for name in names} | {"encoder": encoder and fingerprint(encoder)}


def _can_run(row: str, encoders: Sequence[Path], was_asked: bool) -> bool:
    """Whether a row's encoder is at hand. Raises UserError where the row was asked for by its name."""
    start = row.split("-")[0]
    if start == "simclr" and encoders or start == "imagenet" and imagenet_encoder(DEFAULT_ARCHITECTURE):
        return True
    if start not in ("simclr", "imagenet"):
        return True
    if was_asked:
        raise UserError(f"there is no encoder for the row {row}: give --encoder FILE, or leave the row out.")
    print(f"the row {row} is left out: there is no such encoder that saw none of the test categories.")
    return False


def train(config: RestorationStudy, row: str, seed: int, encoder: Path | None, out: Path) -> None:
    """Train a row's restorer; all rows have the same images, time and crops."""
    names = ("data", "layout", "train", "severity", "input_size", "crop_px", "minutes", "steps", "device")
    shared = {name: getattr(config, name) for name in names} | {"seed": seed, "out": out}
    if row in SADNET:
        train_restorer(SadNetTrain(**shared, **SADNET[row]), sadnet.make_restorer)
        return
    start, _, variant = row.partition("-")
    # The other starts, random and imagenet, are options of that name.
    encoder = encoder if start == "simclr" else Path(start)
    options = OURS[variant and f"-{variant}"]
    train_restorer(Train(**shared, encoder=encoder, batch_size=8, **options), make_restorer)


def evaluate_cell(run: Path, images: ImageSet, severity: str, detector: "Detector") -> dict:
    """Figures of the restored test images, and of PaDiM on them, plain JSON."""
    restorer = load_restorer(run / MODEL).to(detector.device)
    summary, seconds, pixels = training_summary(run), 0.0, 0
    evaluated: list[EvaluatedImage] = []
    aurocs: dict[str, dict[str, float | None]] = {}  # by category and version
    for category in images.categories:
        of_category = images.of(category)
        tests = of_category.subset([i for i, record in enumerate(of_category.records) if record.split == "test"])
        versions: dict[str, list[torch.Tensor]] = {CLEAN: [], DEGRADED: [], RESTORED: []}
        for name, _, (degraded, clean, mask) in DegradedImages(tests, severity):
            # Restoring alone is timed, not degrading, nor figures.
            start_s = time.perf_counter()
            restored = restorer.restore(degraded[None])[0]
            seconds, pixels = seconds + time.perf_counter() - start_s, pixels + degraded[0].numel()
            figures = {
                version: restored_figures(image, clean, mask)
                for version, image in ((DEGRADED, degraded), (RESTORED, restored))
            }
            evaluated.append(EvaluatedImage(name, category, figures))
            for version, image in zip(versions, (clean, degraded, restored), strict=True):
                versions[version].append(image)
        labels = [record.is_anomaly for record in tests.records]
        aurocs[category] = detector.aurocs(of_category, labels, versions)
    return {
        "figures": {
            version: {figure: value._asdict() for figure, value in figures.items()}
            for version, figures in mean_figures(evaluated).items()
        },
        "detection_auroc": {
            version: mean_of_defined(by_version[version] for by_version in aurocs.values())
            for version in (CLEAN, DEGRADED, RESTORED)
        },
        "detection_auroc_by_category": aurocs,
        "seconds_per_megapixel": 1e6 * seconds / pixels,
        "steps": summary["steps"],
        "minutes": summary["minutes"],
    }


class Detector:
    """PaDiM with an encoder and a seed, which all rows of that seed share, as they do clean and degraded images."""

    def __init__(self, encoder: Path | None, seed: int, device: torch.device) -> None:
        self.encoder, self.seed, self.device = encoder, seed, device
        self._methods: dict[str, PaDiM] = {}
        self._known: dict[str, dict[str, float | None]] = {}

    def aurocs(
        self, images: ImageSet, labels: Sequence[bool], versions: Mapping[str, Sequence[torch.Tensor]]
    ) -> dict[str, float | None]:
        """Image AUROC of PaDiM on each version of a category's test images; None where it has too few normals, or only
        good or only defective images."""
        (category,) = images.categories
        normals = [i for i, record in enumerate(images.records) if record.split == "train" and not record.is_anomaly]
        if len(normals) < 2:
            return dict.fromkeys(versions)
        method = self._method(category, images.subset(normals[:MAX_NORMALS]))
        known = self._known.get(category, {})
        aurocs = known | {
            name: image_figures(labels, _scores(method, tests), 0.0).auroc
            for name, tests in versions.items()
            if name not in known
        }
        self._known[category] = {name: aurocs[name] for name in (CLEAN, DEGRADED)}
        return aurocs

    def _method(self, category: str, normals: ImageSet) -> PaDiM:
        if category in self._methods:
            return self._methods[category]
        encoder = load_encoder(self.encoder) if self.encoder else IMAGENET
        method = PaDiM(encoder=encoder, seed=self.seed).to(self.device).refer(Images(normals))
        if len(self._methods) < MAX_KEPT:
            self._methods[category] = method
        return method


def _scores(method: PaDiM, tests: Sequence[torch.Tensor]) -> np.ndarray:
    return torch.cat([batch.scores for batch in method.predict(tests)]).cpu().numpy()
