"""How often the model is wrong, as far as people said: shares with Wilson's interval."""

import math
from collections.abc import Iterable
from typing import NamedTuple

Z_95 = 1.959963984540054  # of the standard normal distribution, 2.5 % are above


class Rate(NamedTuple):
    """`count` of `total`; `low` to `high` has the true share in 95 of 100 cases. Of none, everything is possible."""

    count: int
    total: int
    share: float | None
    low: float
    high: float


def wilson(count: int, total: int) -> Rate:
    """Wilson (1927): the shares that a test at 5 % would not refuse. Unlike count +- 2 deviations it does not say that
    none in ten is none at all."""
    if total == 0:
        return Rate(0, 0, None, 0.0, 1.0)
    share, z2 = count / total, Z_95 * Z_95
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total)) / (1 + z2 / total)
    # At the ends rounding would leave 1e-17 where the formula has 0.
    low = 0.0 if count == 0 else max(0.0, middle - half)
    return Rate(count, total, share, low, 1.0 if count == total else min(1.0, middle + half))


def error_rates(said: Iterable[tuple[str, bool]]) -> tuple[Rate, Rate]:
    """False alarms among images that people called good, and misses among those that they called defective, from pairs
    of verdict and what the model had said. `unsure` counts nowhere."""
    counts = {"false_alarm": 0, "missed_defect": 0, "good": 0, "defective": 0}
    for verdict, was_defective in said:
        if verdict == "agree":
            counts["defective" if was_defective else "good"] += 1
        elif verdict in counts:
            counts[verdict] += 1
    alarms, misses = counts["false_alarm"], counts["missed_defect"]
    return wilson(alarms, alarms + counts["good"]), wilson(misses, misses + counts["defective"])
