"""How far an image AUROC, averaged over seeds and categories, can be told from chance or from another method's.

All of it rests on one matrix for each category: for every defective and every good image the share of seeds in which
the defective one scores higher, ties counting half. Its mean is the AUROC (Mann and Whitney 1947), resampling its rows
and columns is the bootstrap over images, and the spread of its row and column means is the variance of DeLong et al.
(1988). What is said is about further images of the same categories, not about further categories.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from baselines.contract.metrics import Interval

RESAMPLES = 2000
ALPHA = 0.05  # of every p, after Holm

# Quantile of the normal distribution between whose values 95 % lie.
NORMAL_95 = 1.959964


class Difference(NamedTuple):
    """Of two mean AUROCs: `value`, first minus second, the two-sided `p` that it is 0, and the 95 % interval that goes
    with p: it leaves 0 out where p is below 0.05."""

    value: float
    p: float
    interval: Interval


def won_pairs(labels: ArrayLike, scores: ArrayLike) -> np.ndarray | None:
    """Labels bool (n,), scores (seeds, n) -> (defective, good), from 0 to 1; none where there are not both."""
    is_defective, ranked = np.asarray(labels, bool), np.atleast_2d(np.asarray(scores))
    if is_defective.all() or not is_defective.any():
        return None
    defective, good = ranked[:, is_defective, None], ranked[:, None, ~is_defective]
    return ((defective > good) + 0.5 * (defective == good)).mean(0)


def mean_interval(matrices: Sequence[np.ndarray], seed: int = 0, confidence: float = 0.95) -> Interval | None:
    """Between which values the mean AUROC over categories lies when each one's good and defective images are drawn
    again, apart, with replacement. None without categories."""
    if not matrices:
        return None
    generator = np.random.default_rng(seed)
    means = np.zeros(RESAMPLES)
    for matrix in matrices:
        defective, good = matrix.shape
        rows = generator.multinomial(defective, np.full(defective, 1 / defective), RESAMPLES) / defective
        columns = generator.multinomial(good, np.full(good, 1 / good), RESAMPLES) / good
        means += ((rows @ matrix) * columns).sum(1) / len(matrices)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def difference(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> Difference | None:
    """Of the same images judged by two methods, category by category. None where nothing can be said: without
    categories, or where a category has a single good or defective image."""
    if not first:
        return None
    value = variance = 0.0
    for won_by_first, won_by_second in zip(first, second, strict=True):
        apart = won_by_first - won_by_second  # paired: the same images
        if min(apart.shape) < 2:
            return None
        value += apart.mean() / len(first)
        spread = sum(apart.mean(axis).var(ddof=1) / apart.shape[1 - axis] for axis in (0, 1))
        variance += spread / len(first) ** 2
    value, deviation = float(value), math.sqrt(variance)
    interval = Interval(value - NORMAL_95 * deviation, value + NORMAL_95 * deviation)
    if variance == 0:
        return Difference(value, 1.0 if value == 0 else 0.0, interval)
    return Difference(value, math.erfc(abs(value) / deviation / math.sqrt(2)), interval)


def holm(ps: Sequence[float]) -> list[float]:
    """p values corrected for being several (Holm 1979): at most that share of false findings in any of them."""
    order = sorted(range(len(ps)), key=lambda position: ps[position])
    corrected, highest = [0.0] * len(ps), 0.0
    for rank, position in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[position]))
        corrected[position] = highest
    return corrected


def is_clear(test: Mapping) -> bool:
    """Whether a comparison, `p_holm` among it, is hard to explain by chance; not where too few images allow no test."""
    return test["p_holm"] is not None and test["p_holm"] < ALPHA


def delong_interval(matrix: np.ndarray) -> Interval | None:
    """Between which values an AUROC lies with 95 %, by DeLong's variance on the scale of its logarithmic odds, so that
    it stays between 0 and 1. Where all pairs are won there is no variance: then one pair in so many may be lost, with
    the chance that Wilson's interval gives the smaller group. None where there are fewer than two of a kind."""
    if matrix is None or min(matrix.shape) < 2:
        return None
    value = float(matrix.mean())
    variance = sum(matrix.mean(axis).var(ddof=1) / matrix.shape[1 - axis] for axis in (0, 1))
    if not 0 < value < 1 or variance == 0:
        low, high = wilson_interval(round(value * min(matrix.shape)), min(matrix.shape))
        return Interval(low, high)
    deviation = NORMAL_95 * math.sqrt(variance) / (value * (1 - value))
    odds = math.log(value / (1 - value))
    return Interval(*(1 / (1 + math.exp(-bound)) for bound in (odds - deviation, odds + deviation)))


def wilson_interval(count: int, of: int) -> Interval | None:
    """Between which values a share lies with 95 % of which `count` of so many were seen (Wilson 1927); none of none."""
    if not of:
        return None
    share, square = count / of, NORMAL_95**2
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = NORMAL_95 / (1 + square / of) * math.sqrt(share * (1 - share) / of + square / (4 * of**2))
    return Interval(max(0.0, middle - half), min(1.0, middle + half))
