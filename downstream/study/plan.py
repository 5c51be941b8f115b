"""The plan of a study: every cell that is to be computed, and the metadata that its report tells."""

import math
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from downstream.methods.catalogue import HEADS, ConfiguredMethod, study_methods
from downstream.study.cell import IMAGENET, NONE, RANDOM, SIMCLR, Cell, Row, Work
from downstream.study.config import Evaluate
from downstream.study.encoders import Pretrained, choose_encoders, imagenet_encoder
from downstream.study.folds import ONE_CLASS, Fold, Material, check_content, make_folds, warnings_about
from pretrain.command import Names, UserError
from pretrain.data.dataset import choose_folder, data_name, load
from pretrain.demo import is_demo
from pretrain.encoder import Encoder, commit, fingerprint

SIZE_PX, QUICK_SIZE_PX = 224, 64
SEEDS, QUICK_SEEDS = Names("0,1,2"), Names("0")
SHOTS = Names("4,all")
ALL = "all"


class Opened(NamedTuple):
    """An encoder to judge, and what identifies it."""

    encoder: Encoder
    identity: str


@dataclass(frozen=True)
class Study:
    """All cells, in the order in which they are computed, and `metadata` for the report, plain JSON."""

    works: Sequence[Work]
    metadata: dict


def make_study(config: Evaluate) -> Study:
    """Read the images and the encoders and plan the cells. Raises UserError for what must not be compared."""
    seeds = _seeds(config.seeds or (QUICK_SEEDS if config.quick else SEEDS))
    shots = _shots(config.shots or SHOTS)
    size_px = config.size_px or (QUICK_SIZE_PX if config.quick else SIZE_PX)
    if not 0 < config.false_alarm_rate < 1:
        raise UserError(
            f"--false-alarm-rate {config.false_alarm_rate} cannot be kept: "
            "give a share above 0 and below 1, such as 0.05."
        )
    methods = study_methods(config.methods, config.quick)
    folder = choose_folder(config.data)
    folds = make_folds(config.protocol, folder, config.train, config.test)
    if config.protocol == ONE_CLASS:
        methods = [method for method in methods if not method.needs_training]
    tested = [fold.test for fold in folds]
    chosen, warnings = choose_encoders(config.encoder, folder, tested, config.allow_seen)
    wanted = sorted({category for fold in folds for category in (fold.test, *fold.train)})
    images = load(folder, size_px, wanted)
    check_content(images, folds)
    materials = [Material(images, fold) for fold in folds]
    warnings += [line for material in materials for line in warnings_about(material)]
    warnings += [line for material in materials for line in _too_few(material, shots)]
    opened = _Encoders(chosen)
    works = [
        work
        for seed in seeds
        for method in methods
        for kind in opened.kinds(method)
        for number in (shots if method.sees_normals and not method.is_control else [ALL if method.sees_normals else ""])
        for material in materials
        for work in [_work(method, kind, number, seed, material, opened, size_px, config)]
        if work is not None
    ]
    masks = {
        str(record.path.relative_to(folder)): str(record.mask.relative_to(folder))
        for material in materials
        for record in material.tests.records
        if record.mask
    }
    return Study(
        works, {"masks": masks} | _metadata(config, folder, folds, chosen, warnings, seeds, shots, size_px, methods)
    )


class _Encoders:
    """The encoders of each kind, opened once."""

    def __init__(self, chosen: dict[str, list[Pretrained]]) -> None:
        self.chosen = chosen
        known = [one for files in chosen.values() for one in files]
        self.architecture = known[0].encoder.architecture if known else "resnet18"
        self._random: dict[tuple[str, int], Opened] = {}
        found = imagenet_encoder(self.architecture)
        self.imagenet = found and Opened(found, fingerprint(found))

    def kinds(self, method: ConfiguredMethod) -> list[str]:
        if not method.takes_encoder:
            return [NONE]
        has_simclr = any(self.chosen.values())
        return [SIMCLR] * has_simclr + [RANDOM] + [IMAGENET] * (self.imagenet is not None)

    def of(self, kind: str, category: str, seed: int) -> Opened | None:
        """Of several files each seed takes another."""
        if kind == IMAGENET:
            return self.imagenet
        files = self.chosen[category]
        if kind == SIMCLR:
            return Opened(files[seed % len(files)].encoder, files[seed % len(files)].fingerprint)
        architecture = files[seed % len(files)].encoder.architecture if files else self.architecture
        if (architecture, seed) not in self._random:
            encoder = Encoder(architecture, seed).eval()
            self._random[architecture, seed] = Opened(encoder, fingerprint(encoder))
        return self._random[architecture, seed]


def _work(
    method: ConfiguredMethod,
    kind: str,
    shots: str,
    seed: int,
    material: Material,
    encoders: _Encoders,
    size_px: int,
    config: Evaluate,
) -> Work | None:
    """A cell; none where a number of references was asked for that the category does not have."""
    if shots.isdigit() and int(shots) > len(material.normals):
        return None
    opened = encoders.of(kind, material.fold.test, seed) if kind else None
    cell = Cell(
        row=Row(method.name, kind, shots),
        category=material.fold.test,
        seed=seed,
        train=material.fold.train,
        arguments=method.arguments,
        encoder_id=opened.identity if opened else "",
        material=material.digest,
        size_px=size_px,
        false_alarm_rate=config.false_alarm_rate,
    )
    return Work(cell, method, opened.encoder if opened else None, material)


def _too_few(material: Material, shots: Sequence[str]) -> list[str]:
    category, count = material.fold.test, len(material.normals)
    missing = [number for number in shots if number != ALL and 0 < count < int(number)]
    return [f"{category}: {count} normals, so there are no rows with {', '.join(missing)}"] if missing else []


def _metadata(
    config: Evaluate,
    folder: Path,
    folds: Sequence[Fold],
    chosen: dict[str, list[Pretrained]],
    warnings: Sequence[str],
    seeds: Sequence[int],
    shots: Sequence[str],
    size_px: int,
    methods: Sequence[ConfiguredMethod],
) -> dict:
    files = {one.path: one for used in chosen.values() for one in used}
    return {
        "data": data_name(folder),
        "folder": str(folder),
        "is_demo": is_demo(folder),
        "protocol": config.protocol,
        "folds": [{"test": fold.test, "train": list(fold.train)} for fold in folds],
        "seeds": list(seeds),
        "shots": list(shots),
        "size_px": size_px,
        "false_alarm_rate": config.false_alarm_rate,
        "quick": config.quick,
        "allow_seen": config.allow_seen,
        "encoders": [
            {
                "file": str(path),
                "fingerprint": one.fingerprint,
                "architecture": one.encoder.architecture,
                "data": one.origin.data if one.origin else "not known",
                "saw": list(one.saw),
                "recipe": one.origin.recipe if one.origin else {},
                "judged_on": [category for category, used in chosen.items() if one in used],
            }
            for path, one in files.items()
        ],
        "methods": [
            {
                "name": one.name,
                "title": one.title,
                "family": one.family,
                "is_control": one.is_control,
                "is_head": one.family == HEADS,
                "arguments": one.arguments,
            }
            for one in methods
        ],
        "warnings": list(warnings),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "versions": {name: version(name) for name in ("torch", "torchvision", "scikit-learn", "numpy")}
        | {"python": platform.python_version()},
        "commit": commit(),
        "date": datetime.now().strftime("%Y-%m-%d %H:%M"),
    }


def _seeds(names: Names) -> list[int]:
    for name in names:
        if not name.isdigit():
            raise UserError(f"--seeds {names} holds {name!r}, which is no seed: give whole numbers, such as 0,1,2.")
    return [int(name) for name in names]


def _shots(names: Names) -> list[str]:
    for name in names:
        if name != ALL and not (name.isdigit() and int(name)):
            raise UserError(f"--shots {names} holds {name!r}: give numbers of references or all, such as 1,4,16,all.")
    return sorted(names, key=lambda name: math.inf if name == ALL else int(name))
