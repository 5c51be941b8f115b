"""The golden set: all images that operators have confirmed, and how two versions of a model judge them.

One image in APART is never learned from, by any version: which, its digest alone says, so that it stays so whatever is
learned when. Figures and the rule for promotion are of those; of the others it is shown what would change.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from baselines.contract.metrics import Interval
from downstream.inspection.inspection import Inspection
from downstream.learning.feedback import Confirmed
from downstream.study.significance import Difference, delong_interval, difference, wilson_interval, won_pairs

APART = 5
# Of either kind, below which nothing is promoted by itself: of fewer, chance alone makes one version look better.
MIN_TO_PROMOTE = 5


class Judged(NamedTuple):
    """A confirmed image and what both versions say of it; `is_apart` where no version learns from it."""

    image: str
    digest: str
    is_defective: bool
    is_apart: bool
    score_before: float
    threshold_before: float
    said_before: bool
    score_after: float
    threshold_after: float
    said_after: bool

    @property
    def is_changed(self) -> bool:
        return self.said_before != self.said_after

    @property
    def is_better(self) -> bool:
        """Whether the change is for the better."""
        return self.is_changed and self.said_after == self.is_defective


class VersionFigures(NamedTuple):
    """How one version judges the images that are kept apart. Intervals are of 95 %; none of none."""

    good: int
    defective: int
    false_alarms: int
    missed: int
    false_alarm_interval: Interval | None
    missed_interval: Interval | None
    auroc: float | None
    auroc_interval: Interval | None

    @property
    def mistakes(self) -> int:
        return self.false_alarms + self.missed


class Proof(NamedTuple):
    """Both versions on the images that are kept apart, by how much the AUROC differs, and all images."""

    before: VersionFigures
    after: VersionFigures
    auroc_difference: Difference | None
    images: list[Judged]


def is_kept_apart(digest: str) -> bool:
    """Whether no version learns from the image whose pixels have this digest, in hexadecimal digits."""
    return int(digest[:8], 16) % APART == 0


def judged(confirmed: Sequence[Confirmed], before: Iterable, after: Iterable) -> list[Judged]:
    """What both versions say of each; those that either cannot read are left out."""
    both = zip(confirmed, before, after, strict=True)
    return [
        Judged(
            str(known.image), known.digest, known.is_defective, is_kept_apart(known.digest),
            first.score, first.threshold, first.is_defective, second.score, second.threshold, second.is_defective,
        )
        for known, first, second in both
        if isinstance(first, Inspection) and isinstance(second, Inspection)
    ]  # fmt: skip


def prove(images: Sequence[Judged]) -> Proof:
    """The figures of both versions on the images that are kept apart."""
    apart = [image for image in images if image.is_apart]
    labels = np.array([image.is_defective for image in apart], bool)
    versions, matrices = [], []
    for scores, said in (
        ([image.score_before for image in apart], [image.said_before for image in apart]),
        ([image.score_after for image in apart], [image.said_after for image in apart]),
    ):
        matrices.append(won_pairs(labels, scores))
        versions.append(_figures(labels, np.array(said, bool), matrices[-1]))
    found = difference(matrices[1:], matrices[:1]) if matrices[0] is not None else None
    if found and found.interval.low == found.interval.high:  # where all pairs agree, of few images, nothing varies
        found = None
    return Proof(*versions, found, list(images))


def _figures(labels: np.ndarray, said: np.ndarray, matrix: np.ndarray | None) -> VersionFigures:
    good, defective = int((~labels).sum()), int(labels.sum())
    false_alarms, missed = int((said & ~labels).sum()), int((~said & labels).sum())
    return VersionFigures(
        good, defective, false_alarms, missed,
        wilson_interval(false_alarms, good), wilson_interval(missed, defective),
        None if matrix is None else float(matrix.mean()), delong_interval(matrix),
    )  # fmt: skip


def why_not_better(proof: Proof) -> str:
    """The rule by which a version may be promoted without a person: of the images that are kept apart there are five
    good and five defective ones or more, it misses no more and raises no more false alarms, and it makes fewer mistakes
    or, where both make as many, its AUROC is higher. Why it may not be; empty where it may."""
    before, after, _, _ = proof
    if min(after.good, after.defective) < MIN_TO_PROMOTE:
        return (
            f"{after.good} good and {after.defective} defective images that are kept apart prove too little: "
            f"{MIN_TO_PROMOTE} of each are needed"
        )
    if after.missed > before.missed:
        return f"it misses {after.missed} of {after.defective} defective images, {before.missed} were missed before"
    if after.false_alarms > before.false_alarms:
        return f"it raises {after.false_alarms} false alarms of {after.good} good images, {before.false_alarms} before"
    if after.mistakes == before.mistakes and after.auroc <= before.auroc:
        return "it makes as many mistakes as before, and its AUROC is no higher"
    return ""
