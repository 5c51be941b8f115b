"""What the project that this one grew from has published for the same task, for comparison, marked as published."""

from typing import NamedTuple


class Reading(NamedTuple):
    """Figures of one confusion matrix with `positive` as the positive class, which changes all but the first two."""

    positive: str
    accuracy: float | None
    balanced_accuracy: float | None
    precision: float | None
    recall: float | None
    f1: float | None


# VGG16 with class activation maps, trained on capsule, hazelnut and leather, tested on 90 % of bottle, pill and wood of
# MVTec AD. In its matrix the positive class is GOOD: that is 450 good ones called good.
PUBLISHED_NAME = "VGG16-CAM as published"
PUBLISHED_ON = "944 images of MVTec AD's bottle, pill and wood"
PUBLISHED_TRUE_GOOD, PUBLISHED_FALSE_ALARMS, PUBLISHED_MISSED, PUBLISHED_FOUND = 450, 260, 54, 180


def both_readings(true_good: int, false_alarms: int, missed: int, found: int) -> list[Reading]:
    """The same decisions with anomalies as the positive class, as everywhere here, and with good ones."""
    good, defective = true_good + false_alarms, missed + found
    accuracy = _ratio(true_good + found, good + defective)
    balanced = None if not good or not defective else (true_good / good + found / defective) / 2
    readings = []
    for positive, true, wrong, overlooked in (
        ("anomaly", found, false_alarms, missed),
        ("good", true_good, missed, false_alarms),
    ):
        precision, recall = _ratio(true, true + wrong), _ratio(true, true + overlooked)
        readings.append(
            Reading(positive, accuracy, balanced, precision, recall, _ratio(2 * true, 2 * true + wrong + overlooked))
        )
    return readings


def published_readings() -> list[Reading]:
    return both_readings(PUBLISHED_TRUE_GOOD, PUBLISHED_FALSE_ALARMS, PUBLISHED_MISSED, PUBLISHED_FOUND)


def _ratio(count: int, total: int) -> float | None:
    return count / total if total else None
