"""Whether numbers still come as they did: Kolmogorov-Smirnov for a window, CUSUM for a slow creep.

Both have a false-alarm rate that can be stated before anything is seen, since both look at ranks among the references
alone: however scores are distributed, those of an unchanged line rank alike.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import kolmogorov, ndtri

# Of windows without drift, one in so many is called drifted.
KS_FALSE_ALARM_RATE = 0.001
KS_WINDOW = 100
# Half a standard deviation would find a creep of one soonest (Montgomery, chapter 9), but forgives less that references
# are few: with 200 of them it alarms twice as often as its limit says, with this every 16,000 images (simulated).
CUSUM_ALLOWANCE = 0.75
# Images between two false alarms of the CUSUM, on average, is what is stated; known references would give the other.
CUSUM_RUN_LENGTH, CUSUM_RUN_LENGTH_KNOWN = 10_000, 20_000
MIN_REFERENCES = 20


class Ks(NamedTuple):
    """The largest difference of the shares below any value, and how often chance makes it as large."""

    statistic: float
    p_value: float


class Cusum(NamedTuple):
    """Sums of what went above and below the references since it last was none, in standard deviations; `limit` is
    where it alarms, `alarms` are positions at which it did and began anew."""

    high: float
    low: float
    limit: float
    alarms: list[int]


def kolmogorov_smirnov(first: Sequence[float], second: Sequence[float]) -> Ks:
    """Of two samples. The p-value is Kolmogorov's limit: with few, or with ties, it is too large rather than too small,
    so fewer windows are called drifted than the rate says (7 to 8 in a thousand at .01, 50 to 200 references)."""
    one, other = np.sort(np.asarray(first, np.float64)), np.sort(np.asarray(second, np.float64))
    at = np.concatenate([one, other])
    shares = [np.searchsorted(sample, at, side="right") / len(sample) for sample in (one, other)]
    statistic = float(np.abs(shares[0] - shares[1]).max())
    size = math.sqrt(len(one) * len(other) / (len(one) + len(other)))
    return Ks(statistic, float(kolmogorov(size * statistic)))


def normal_ranks(values: Sequence[float], references: Sequence[float]) -> np.ndarray:
    """Each value as a standard normal number, by its rank among the references (in the middle of equal ones)."""
    known = np.sort(np.asarray(references, np.float64))
    values = np.asarray(values, np.float64)
    below = np.searchsorted(known, values, side="left") + np.searchsorted(known, values, side="right")
    return ndtri((below / 2 + 0.5) / (len(known) + 1))


def cusum(values: Sequence[float], limit: float, allowance: float = CUSUM_ALLOWANCE) -> Cusum:
    """Page's two-sided CUSUM of values that are standard normal while nothing changes."""
    high = low = 0.0
    alarms = []
    for position, value in enumerate(values):
        high, low = max(0.0, high + value - allowance), max(0.0, low - value - allowance)
        if max(high, low) > limit:
            alarms.append(position)
            high = low = 0.0
    return Cusum(high, low, limit, alarms)


def cusum_limit(run_length: float = CUSUM_RUN_LENGTH_KNOWN, allowance: float = CUSUM_ALLOWANCE) -> float:
    """The limit at which the two-sided CUSUM alarms once in `run_length` values on average while nothing changes:
    Siegmund's approximation (1985), solved for the limit."""
    low, high = 0.0, 100.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if _run_length(middle, allowance) < run_length else (low, middle)
    return high


def _run_length(limit: float, allowance: float) -> float:
    """On average, of both sides together: half of one side's."""
    drift, corrected = -allowance, limit + 1.166
    return (math.exp(-2 * drift * corrected) + 2 * drift * corrected - 1) / (2 * drift * drift) / 2
