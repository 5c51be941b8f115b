"""Who sees what: which images a method learns from, refers to, is calibrated with, and is tested on.

held-out         labels of the training categories; of a test category only the normals that a method declares
one-class        a category's own normals, and nothing else: the classic benchmark of PaDiM and auto-encoders
leave-one-out    every category in turn is the test category, and all others train
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

from pretrain.command import Names, UserError
from pretrain.data.dataset import ImageSet
from pretrain.data.decode import mask_files
from pretrain.data.images import GOOD, LayoutName, check_names
from pretrain.data.layouts import category_folders

HELD_OUT, ONE_CLASS, LEAVE_ONE_OUT = "held-out", "one-class", "leave-one-out"
DEFAULT_TRAIN, DEFAULT_TEST = Names("capsule,hazelnut,leather"), Names("bottle,pill,wood")
# Of the labeled images of the training categories: 70 % fit, 15 % validation, 15 % calibration. A method that stops
# early takes its validation images out of what it fits to, so both are one part here.
FIT_SHARE, CALIBRATION_SHARE = 0.85, 0.15


@dataclass(frozen=True)
class Fold:
    """One test category and the categories that labels come from, none in the one-class protocol."""

    test: str
    train: tuple[str, ...]


def make_folds(
    protocol: str, folder: Path, train: Names | None, test: Names | None, layout: LayoutName | None = None
) -> list[Fold]:
    """The folds of a protocol. Raises UserError for categories that are not there, or are on both sides."""
    present = category_folders(folder, layout)
    if protocol != HELD_OUT and train:
        raise UserError(f"--protocol {protocol} chooses what to train on itself: leave --train out.")
    test = test or (DEFAULT_TEST if protocol == HELD_OUT else Names(sorted(present)))
    train = train or (DEFAULT_TRAIN if protocol == HELD_OUT else Names())
    check_names([*train, *test], present, f"category in {folder}")
    if on_both_sides := sorted(set(train) & set(test)):
        raise UserError(
            f"{', '.join(on_both_sides)} is in --train and in --test: figures there would say nothing of unseen "
            "products; name each category once."
        )
    if protocol == LEAVE_ONE_OUT:
        if len(present) < 2:
            raise UserError(f"{folder} has one category: with it left out there is nothing to learn from.")
        return [Fold(category, tuple(sorted(set(present) - {category}))) for category in test]
    return [Fold(category, tuple(train)) for category in test]


class FoldImages:
    """The images of one fold: `tests` and `normals` of the test category, `labeled` of the training categories."""

    def __init__(self, images: ImageSet, fold: Fold) -> None:
        self.fold = fold
        of_test = images.of(fold.test)
        self.tests = of_test.subset(_positions(of_test, "test"))
        normals = of_test.subset(_positions(of_test, "train", GOOD))
        # A test image that also lies in train/good would be referred to: it is dropped there, by its pixels.
        tested = {entry.digest for entry in self.tests.entries}
        not_tested = [i for i, entry in enumerate(normals.entries) if entry.digest not in tested]
        self.normals, self.dropped_normals = normals.subset(not_tested), len(normals) - len(not_tested)
        self.labeled = images.subset([i for i, record in enumerate(images.records) if record.category in fold.train])

    def training(self, seed: int) -> tuple[ImageSet, dict[str, ImageSet]]:
        """What methods fit to, and by category the normals that thresholds are calibrated with: disjoint."""
        if not len(self.labeled):
            return self.labeled, {}
        split = self.labeled.split({"learning": FIT_SHARE, "calibration": CALIBRATION_SHARE}, seed)
        calibration = split["calibration"]
        good = calibration.subset([i for i, record in enumerate(calibration.records) if not record.is_anomaly])
        return split["learning"], {category: good.of(category) for category in good.categories}

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that change with any image, label or mask of the fold."""
        digest = blake2b(digest_size=8)
        for images in (self.tests, self.normals, self.labeled):
            for record, entry in zip(images.records, images.entries, strict=True):
                mask_bytes = sum(file.stat().st_size for file in mask_files(record.mask)) if record.mask else None
                name = f"{record.category}/{record.split}/{record.defect}/{record.path.name}"
                digest.update(f"{name} {mask_bytes} {images.size_px} ".encode() + entry.digest)
        return digest.hexdigest()


def check_content(images: ImageSet, folds: Sequence[Fold]) -> None:
    """Raise UserError where the same image is on both sides of a fold."""
    for group in images.copies():
        for fold in folds:
            tested = [record for record in group if record.category == fold.test]
            learned = [record for record in group if record.category in fold.train]
            if tested and learned:
                raise UserError(
                    f"the same image is trained on and tested on: {learned[0].path} and {tested[0].path}; remove "
                    "one, or leave one of the two categories out."
                )


def _positions(images: ImageSet, split: str, defect: str | None = None) -> list[int]:
    return [
        position
        for position, record in enumerate(images.records)
        if record.split == split and defect in (None, record.defect)
    ]
