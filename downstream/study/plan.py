"""The plan of a study: every cell that is to be computed, and what its report tells of how it was made."""

import math
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from downstream.methods.catalogue import ConfiguredMethod, at_scales, study_methods
from downstream.methods.ensemble import shares_of
from downstream.study.cell import IMAGENET, NO_ENCODER, RANDOM, SIMCLR, START, Cell, RowKey
from downstream.study.compute import CellTask
from downstream.study.config import Evaluate
from downstream.study.controls import ControlEncoders
from downstream.study.encoders import PretrainedEncoder, choose_encoders
from downstream.study.folds import ONE_CLASS, Fold, FoldImages, check_content, make_folds
from downstream.study.warnings import fold_warnings, shots_warnings
from pretrain.command import Names, UserError
from pretrain.data.dataset import choose_folder, data_name, load
from pretrain.demo import is_demo
from pretrain.encoder import Encoder, commit
from pretrain.training.device import choose_device

# As detect.py has it; all methods without a GPU look at a third of the pixels, or three categories would take hours.
SIZE_PX, SIZE_PX_WITHOUT_GPU, QUICK_SIZE_PX = 384, 224, 128
SEEDS, QUICK_SEEDS = Names("0,1,2"), Names("0")
ALL = "all"
SHOTS, QUICK_SHOTS = Names("4,all"), Names(ALL)


@dataclass(frozen=True)
class StudyPlan:
    """All cells, in the order in which they are computed, the encoders of each test category, and `metadata` for the
    report, plain JSON."""

    tasks: Sequence[CellTask]
    encoders: Mapping[str, Sequence[PretrainedEncoder]]
    metadata: dict


@dataclass(frozen=True)
class Settings:
    """A config with its defaults resolved and checked."""

    folder: Path
    folds: Sequence[Fold]
    methods: Sequence[ConfiguredMethod]
    seeds: Sequence[int]
    shots: Sequence[str]
    are_shots_asked: bool
    size_px: int
    false_alarm_rate: float


def plan_study(config: Evaluate, chosen: Mapping[str, Sequence[PretrainedEncoder]] | None = None) -> StudyPlan:
    """Read the images and the encoders, those of each test category where they are `chosen` already, and plan the
    cells. Raises UserError for what must not be compared."""
    settings = resolve(config)
    folds, folder = settings.folds, settings.folder
    warnings = []
    if chosen is None:
        chosen, warnings = choose_encoders(config.encoder, folder, [fold.test for fold in folds], config.allow_seen)
    categories = sorted({category for fold in folds for category in (fold.test, *fold.train)})
    images = load(folder, settings.size_px, categories, layout=config.layout)
    check_content(images, folds)
    images_by_fold = [FoldImages(images, fold) for fold in folds]
    numbers = [int(shots) for shots in settings.shots if shots != ALL]
    warnings += [line for fold in images_by_fold for line in fold_warnings(fold)]
    warnings += [line for fold in images_by_fold for line in shots_warnings(fold, numbers)]
    masks = {
        str(record.path.relative_to(folder)): str(record.mask.relative_to(folder))
        for fold in images_by_fold
        for record in fold.tests.records
        if record.mask
    }
    controls = ControlEncoders(chosen)
    warnings += [start.note for start in controls.starts.values() if start.note]
    metadata = {
        "masks": masks,
        **_settings_metadata(config, settings),
        "encoders": _encoders_metadata(chosen, controls),
        "warnings": warnings,
        **_machine_metadata(),
    }
    return StudyPlan(list(make_tasks(settings, images_by_fold, chosen, controls)), chosen, metadata)


def resolve(config: Evaluate) -> Settings:
    """The config's defaults and checks. Raises UserError for values that cannot be used."""
    seeds = _seeds(config.seeds or (QUICK_SEEDS if config.quick else SEEDS))
    shots = _shots(config.shots or (QUICK_SHOTS if config.quick else SHOTS))
    if not 0 < config.false_alarm_rate < 1:
        raise UserError(
            f"--false-alarm-rate {config.false_alarm_rate} cannot be kept: "
            "give a share above 0 and below 1, such as 0.05."
        )
    has_gpu = choose_device(config.device).type == "cuda"
    scales = shares_of(config.scales) if config.scales else []
    methods = [at_scales(method, scales) for method in study_methods(config.methods, config.quick, has_gpu)]
    folder = choose_folder(config.data)
    folds = make_folds(config.protocol, folder, config.train, config.test, config.layout)
    if config.protocol == ONE_CLASS:
        methods = [method for method in methods if not method.needs_training]
    takes_hours = not (has_gpu or config.methods or config.protocol == ONE_CLASS)
    usual_px = SIZE_PX_WITHOUT_GPU if takes_hours else SIZE_PX
    size_px = config.size_px or (QUICK_SIZE_PX if config.quick else usual_px)
    return Settings(folder, folds, methods, seeds, shots, bool(config.shots), size_px, config.false_alarm_rate)


def make_tasks(
    settings: Settings,
    images_by_fold: Sequence[FoldImages],
    chosen: Mapping[str, Sequence[PretrainedEncoder]],
    controls: ControlEncoders,
) -> Iterator[CellTask]:
    """Every cell, in an order in which those that can share a fitted method follow each other."""
    for seed in settings.seeds:
        for method in settings.methods:
            for encoder_name in _encoder_names(method, chosen, controls):
                for shots in _shots_of(method, encoder_name, settings):
                    for images in images_by_fold:  # innermost: they share a fitted method where folds train alike
                        if shots.isdigit() and int(shots) > len(images.normals):
                            continue  # warned of by shots_warnings
                        row = RowKey(method.name, encoder_name, shots)
                        control = _encoder(encoder_name, chosen[images.fold.test], seed, controls)
                        if control is None:
                            continue  # not of this category's encoder: another one has such a start
                        encoder, fingerprint = control
                        yield CellTask(_cell(row, seed, method, images, fingerprint, settings), method, encoder, images)


def _cell(
    row: RowKey, seed: int, method: ConfiguredMethod, images: FoldImages, fingerprint: str, settings: Settings
) -> Cell:
    return Cell(
        row=row,
        category=images.fold.test,
        seed=seed,
        train=images.fold.train,
        arguments=method.arguments,
        encoder_id=fingerprint,
        images_id=images.digest,
        size_px=settings.size_px,
        false_alarm_rate=settings.false_alarm_rate,
    )


def _encoder_names(
    method: ConfiguredMethod, chosen: Mapping[str, Sequence[PretrainedEncoder]], controls: ControlEncoders
) -> list[str]:
    """SimCLR, what it started from, random; and ImageNet's weights, the usual start, also where it is another."""
    if not method.takes_encoder:
        return [NO_ENCODER]
    has_own_start = any(start.row == START for start in controls.starts.values())
    return [SIMCLR] * any(chosen.values()) + [START] * has_own_start + [RANDOM] + [IMAGENET] * bool(controls.imagenet)


def _encoder(
    name: str, files: Sequence[PretrainedEncoder], seed: int, controls: ControlEncoders
) -> tuple[Encoder | None, str] | None:
    """An encoder and its fingerprint; none where there is no such encoder. Of several files each seed takes another,
    and its controls are of that one: its start, and its architecture."""
    if name == NO_ENCODER:
        return None, ""
    file = files[seed % len(files)] if files else None
    if name == SIMCLR:
        return file.encoder, file.fingerprint
    if name == START:
        return controls.starts[file.path].control
    architecture = file.encoder.architecture if file else controls.architecture
    return controls.imagenet.get(architecture) if name == IMAGENET else controls.random(architecture, seed)


def _shots_of(method: ConfiguredMethod, encoder_name: str, settings: Settings) -> Sequence[str]:
    """Numbers of references. A control that refers to normals gets all of them; so do, where nobody asked for numbers,
    the control's encoder and what a few cannot teach."""
    if not method.sees_normals:
        return [""]
    gets_few = settings.are_shots_asked or (method.entry.few_normals and encoder_name != RANDOM)
    return [ALL] if method.is_control or not gets_few else settings.shots


def _settings_metadata(config: Evaluate, settings: Settings) -> dict:
    return {
        "data": data_name(settings.folder),
        "folder": str(settings.folder),
        "is_demo": is_demo(settings.folder),
        "protocol": config.protocol,
        "folds": [{"test": fold.test, "train": list(fold.train)} for fold in settings.folds],
        "seeds": list(settings.seeds),
        "shots": list(settings.shots),
        "size_px": settings.size_px,
        "false_alarm_rate": settings.false_alarm_rate,
        "quick": config.quick,
        "allow_seen": config.allow_seen,
        "methods": [
            {name: getattr(method, name) for name in ("name", "title", "family", "is_control", "arguments")}
            for method in settings.methods
        ],
    }


def _encoders_metadata(chosen: Mapping[str, Sequence[PretrainedEncoder]], controls: ControlEncoders) -> list[dict]:
    files = {file.path: file for of_category in chosen.values() for file in of_category}
    return [
        {
            "file": str(path),
            **file.encoder.as_json(),
            "data": file.origin.data if file.origin else "not known",
            "recipe": file.origin.recipe if file.origin else {},
            "start": controls.starts[path].metadata,
            "tested_on": [category for category, of_category in chosen.items() if file in of_category],
        }
        for path, file in files.items()
    ]


def _machine_metadata() -> dict:
    packages = ("torch", "torchvision", "scikit-learn", "numpy")
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "versions": {name: version(name) for name in packages} | {"python": platform.python_version()},
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
