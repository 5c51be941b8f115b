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
from pretrain.data.images import GOOD, category_folders, check_names

HELD_OUT, ONE_CLASS, LEAVE_ONE_OUT = "held-out", "one-class", "leave-one-out"
PROTOCOLS = (HELD_OUT, ONE_CLASS, LEAVE_ONE_OUT)
DEFAULT_TRAIN, DEFAULT_TEST = Names("capsule,hazelnut,leather"), Names("bottle,pill,wood")
# Of the labelled images of the training categories. A method that stops early holds out 15 % of all itself.
LEARNING, CALIBRATION = 0.85, 0.15


@dataclass(frozen=True)
class Fold:
    """One test category and the categories that labels come from, none in the one-class protocol."""

    test: str
    train: tuple[str, ...]


def make_folds(protocol: str, folder: Path, train: Names | None, test: Names | None) -> list[Fold]:
    """The folds of a protocol. Raises UserError for categories that are not there, or are on both sides."""
    found = category_folders(folder)
    if protocol != HELD_OUT and train:
        raise UserError(f"--protocol {protocol} chooses what to train on itself: leave --train out.")
    test = test or (DEFAULT_TEST if protocol == HELD_OUT else Names(sorted(found)))
    train = train or (DEFAULT_TRAIN if protocol == HELD_OUT else Names())
    check_names([*train, *test], found, f"category in {folder}")
    if both := sorted(set(train) & set(test)):
        raise UserError(
            f"{', '.join(both)} is in --train and in --test: figures there would say nothing of unseen products; "
            "name each category once."
        )
    if protocol == LEAVE_ONE_OUT:
        if len(found) < 2:
            raise UserError(f"{folder} has one category: with it left out there is nothing to learn from.")
        return [Fold(category, tuple(sorted(set(found) - {category}))) for category in test]
    return [Fold(category, tuple(train)) for category in test]


class Material:
    """The images of one fold."""

    def __init__(self, images: ImageSet, fold: Fold) -> None:
        self.fold = fold
        of_test = images.of(fold.test)
        self.tests = of_test.subset(_positions(of_test, "test"))
        tested = {entry.digest for entry in self.tests.entries}
        normals = of_test.subset(_positions(of_test, "train", GOOD))
        apart = [i for i, entry in enumerate(normals.entries) if entry.digest not in tested]
        self.normals, self.dropped_normals = normals.subset(apart), len(normals) - len(apart)
        self.labelled = images.subset([i for i, record in enumerate(images.records) if record.category in fold.train])

    def training(self, seed: int) -> tuple[ImageSet, dict[str, ImageSet]]:
        """What to learn from, and by category the normals that thresholds are calibrated with: disjoint."""
        if not len(self.labelled):
            return self.labelled, {}
        parts = self.labelled.split({"learning": LEARNING, "calibration": CALIBRATION}, seed)
        calibration = parts["calibration"]
        good = calibration.subset([i for i, record in enumerate(calibration.records) if not record.is_anomaly])
        return parts["learning"], {category: good.of(category) for category in good.categories}

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that change with any image, label or mask of the fold."""
        digest = blake2b(digest_size=8)
        for images in (self.tests, self.normals, self.labelled):
            for record, entry in zip(images.records, images.entries, strict=True):
                mask = record.mask.stat().st_size if record.mask else None
                place = f"{record.category}/{record.split}/{record.defect}/{record.path.name}"
                digest.update(f"{place} {mask} {images.size_px} ".encode() + entry.digest)
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


def warnings_about(material: Material) -> list[str]:
    """What keeps figures of a test category from being complete, or from being believed."""
    category, tests = material.fold.test, material.tests
    defective = [record for record in tests.records if record.is_anomaly]
    lines = []
    if not len(tests):
        lines.append(f"{category}: no test images, so nothing can be measured")
    elif not defective or len(defective) == len(tests):
        lines.append(f"{category}: all {len(tests)} test images are {'defective' if defective else 'good'}: "
                     "no figure that compares the two is defined")  # fmt: skip
    without_mask = sum(record.mask is None for record in defective)
    if defective and without_mask == len(defective):
        lines.append(f"{category}: no masks, so there are no pixel figures")
    elif without_mask:
        lines.append(f"{category}: {without_mask} of {len(defective)} defective test images have no mask; pixel "
                     "figures are of the others")  # fmt: skip
    if material.dropped_normals:
        lines.append(f"{category}: {material.dropped_normals} images of train/{GOOD} are also test images; no "
                     "method refers to them")  # fmt: skip
    if not len(material.normals):
        lines.append(f"{category}: no normals in train/{GOOD}, so methods that refer to normals are left out")
    return lines


def _positions(images: ImageSet, split: str, defect: str | None = None) -> list[int]:
    return [
        position
        for position, record in enumerate(images.records)
        if record.split == split and defect in (None, record.defect)
    ]
