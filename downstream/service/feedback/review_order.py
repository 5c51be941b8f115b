"""Which images an operator should look at first: those that the model is least sure of.

By turns the one whose score is nearest to the threshold, counted in the normals' spread, and the one that is least
like any other image: the first moves the threshold, the second shows the model something it has never seen.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

Reason = Literal["near the threshold", "unlike the others"]


class Doubt(NamedTuple):
    """Why the image at `position` comes now; what is not known is none."""

    position: int
    reason: Reason
    spreads: float | None
    distance: float | None


def spread(normal_scores: Sequence[float]) -> float | None:
    """The unit in which scores are told apart from the threshold: that of one further normal. None with too few."""
    count = len(normal_scores)
    deviation = float(np.std(np.asarray(normal_scores, np.float64), ddof=1)) if count > 1 else 0.0
    return deviation * (1 + 1 / count) ** 0.5 if deviation > 0 else None


def review_order(
    scores: Sequence[float], thresholds: Sequence[float], unit: float | None, distances: Sequence[float | None]
) -> list[Doubt]:
    """All positions, the one to look at first first; each score has its threshold. `distances` are to the nearest other
    image, as far as known."""
    away = np.abs(np.asarray(scores, np.float64) - np.asarray(thresholds, np.float64))
    known = np.array([np.nan if distance is None else distance for distance in distances], np.float64)
    by_threshold = np.argsort(away, kind="stable")
    by_distance = [i for i in np.argsort(-known, kind="stable") if not np.isnan(known[i])]
    turns = _by_turns(by_threshold.tolist(), [int(i) for i in by_distance])
    return [Doubt(i, reason, None if unit is None else float(away[i] / unit), distances[i]) for i, reason in turns]


def _by_turns(first: list[int], second: list[int]) -> list[tuple[int, Reason]]:
    seen: set[int] = set()
    turns: list[tuple[int, Reason]] = []
    for turn in range(max(len(first), len(second))):
        for order, reason in ((first, "near the threshold"), (second, "unlike the others")):
            if turn < len(order) and order[turn] not in seen:
                seen.add(order[turn])
                turns.append((order[turn], reason))
    return turns
