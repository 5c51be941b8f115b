"""What a run learns from: good images with synthetic anomalies, degraded, or real pairs; a tenth is held out."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from baselines.contract.method import Pair
from baselines.restoration.config import Train
from baselines.restoration.pair_folder import PairFolder
from baselines.restoration.pairs import CroppedPairs, PairBatch, SyntheticPairs, good_images
from pretrain.command import UserError
from pretrain.data.dataset import data_name, load
from pretrain.degrade import describe
from pretrain.demo import is_demo

VALIDATION_SHARE, VALIDATION_CROPS = 0.1, 8
# Of the validation crops, the same in every training.
VALIDATION_SEED = 2**31
# More than any training asks for: a training itself says how many it takes.
ENDLESS = 2**40


class TrainingPairs(NamedTuple):
    """`source` gives the pairs to learn from by their numbers, `validation` is a batch that nothing is learned from;
    `summary` tells what they are, plain JSON; `count` images make an epoch."""

    source: Callable[[Sequence[int]], PairBatch]
    validation: PairBatch
    summary: dict
    count: int


def make_training_pairs(config: Train, device: torch.device | str = "cpu") -> TrainingPairs:
    """Synthetic pairs, made on the device, or real ones. Raises UserError where they cannot teach what is asked."""
    return _real(config) if config.pairs else _synthetic(config, device)


def _synthetic(config: Train, device: torch.device | str) -> TrainingPairs:
    images = load(config.data, config.input_size, config.train, layout=config.layout)
    good = good_images(images).images
    if not len(good):
        raise UserError(f"{', '.join(images.categories)} has no good images to learn from: name others by --train.")
    parts = good.split({"learning": 1 - VALIDATION_SHARE, "validation": VALIDATION_SHARE}, seed=0)
    learning, validation = parts["learning"], parts["validation"]
    if not len(validation):  # too few to hold any out
        learning = validation = good
    training, held_out = (
        SyntheticPairs(good_images(images), config.severity, config.crop_px, ENDLESS, seed, device)
        for images, seed in ((learning, config.seed), (validation, VALIDATION_SEED))
    )
    summary = {
        "data": data_name(config.data),
        "is_demo": is_demo(config.data),
        "categories": images.categories,
        "severity": config.severity,
        "degradation": describe(config.severity),
        "input_size": config.input_size,
        "images": len(learning),
    }
    return TrainingPairs(training.batch, held_out.batch(range(VALIDATION_CROPS)), summary, len(learning))


def _real(config: Train) -> TrainingPairs:
    folder = PairFolder(config.pairs, config.input_size, config.train).check()
    if config.beta and not folder.has_masks:
        raise UserError(
            f"{config.pairs} has no masks, so defects cannot count more: add Defect_mask, or give --beta 0."
        )
    order = np.random.default_rng(0).permutation(len(folder)).tolist()
    held_out = max(1, round(VALIDATION_SHARE * len(folder))) if len(folder) > 1 else 0
    pairs, validation = _Pairs(folder, order[held_out:]), _Pairs(folder, order[:held_out] or order)
    summary = {
        "data": str(config.pairs),
        "is_demo": False,
        "categories": sorted({files.category for files in folder.files}),
        "severity": None,
        "degradation": "as the pairs have it",
        "input_size": config.input_size,
        "images": len(pairs),
    }
    return TrainingPairs(
        CroppedPairs(pairs, config.crop_px, config.seed).batch,
        CroppedPairs(validation, config.crop_px, VALIDATION_SEED).batch(range(VALIDATION_CROPS)),
        summary,
        len(pairs),
    )


class _Pairs(Sequence[Pair]):
    """The pairs of a folder at these positions, without their names."""

    def __init__(self, folder: PairFolder, positions: Sequence[int]) -> None:
        self.folder, self.positions = folder, positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, position: int) -> Pair:
        return self.folder[self.positions[position]].pair
