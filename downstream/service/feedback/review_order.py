"""Which images an operator should look at first: those that the model is least sure of.

By turns the one whose score is nearest to the threshold, counted in the normals' spread, the one that is least like any
other image, and the one on which the model's two statistics disagree most: the first moves the threshold, the second
shows the model something it has never seen, and of the third one statistic is wrong.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

Reason = Literal["near the threshold", "unlike the others", "statistics disagree"]


class Doubt(NamedTuple):
    """Why the image at `position` comes now; what is not known is none."""

    position: int
    reason: Reason
    spreads: float | None
    distance: float | None
    disagreement: float | None


def spread(normal_scores: Sequence[float]) -> float | None:
    """The unit in which scores are told apart from the threshold: that of one further normal. None with too few."""
    count = len(normal_scores)
    deviation = float(np.std(np.asarray(normal_scores, np.float64), ddof=1)) if count > 1 else 0.0
    return deviation * (1 + 1 / count) ** 0.5 if deviation > 0 else None


def review_order(
    scores: Sequence[float],
    thresholds: Sequence[float],
    unit: float | None,
    distances: Sequence[float | None],
    disagreements: Sequence[float | None],
) -> list[Doubt]:
    """All positions, the one to look at first first; each score has its threshold. `distances` are to the nearest other
    image, `disagreements` of the model's statistics, both as far as known."""
    away = np.abs(np.asarray(scores, np.float64) - np.asarray(thresholds, np.float64))
    orders: dict[Reason, list[int]] = {
        "near the threshold": np.argsort(away, kind="stable").tolist(),
        "unlike the others": _highest_first(distances),
        "statistics disagree": _highest_first(disagreements),
    }
    return [
        Doubt(i, reason, None if unit is None else float(away[i] / unit), distances[i], disagreements[i])
        for i, reason in _by_turns(orders)
    ]


def _highest_first(values: Sequence[float | None]) -> list[int]:
    """Positions of those that are known."""
    known = np.array([np.nan if value is None else value for value in values], np.float64)
    return [i for i in np.argsort(-known, kind="stable").tolist() if not np.isnan(known[i])]


def _by_turns(orders: Mapping[Reason, Sequence[int]]) -> list[tuple[int, Reason]]:
    seen: set[int] = set()
    turns: list[tuple[int, Reason]] = []
    for turn in range(max(map(len, orders.values()))):
        for reason, order in orders.items():
            if turn < len(order) and order[turn] not in seen:
                seen.add(order[turn])
                turns.append((order[turn], reason))
    return turns
