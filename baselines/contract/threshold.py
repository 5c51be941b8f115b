"""A decision threshold from normal images only, at a false-alarm rate that the user states.

One rule everywhere: what scores ABOVE the threshold is anomalous, what equals it is good.

Among n normals that a method did not learn from, a further normal has a random rank, however scores are distributed: it
is above the k-th lowest with probability 1 - k/(n + 1) (split conformal prediction, Vovk et al. 2005). So k is the
lowest number for which that is at most the rate. With too few normals there is no such k: the highest of 8 lets every
ninth further normal through, whatever the rate asked for. Then scores are taken to be log-normally distributed, and the
bound is the one that Student's t gives for one further draw: mean + t s sqrt(1 + 1/n). It may lie below the highest.
Where scores have lighter tails, alarms are fewer (8 gamma or normal scores, 5 % asked for: 3 to 4 %), with heavier ones
more (Pareto's with exponent 3: 10 %, nearly what the highest of 8 lets through).

For maps, give each normal's highest map value: the rate is then that of good images which would show any region.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit

from pretrain.command import UserError

# With fewer normals of its own a category's threshold comes from the training categories' calibration normals.
MIN_OWN_NORMALS = 8
# Against 20 * (1 - 0.05) being a hair above 19.
ROUNDING = 1e-9
# A normal that is among its own references scores next to nothing, and its logarithm would outweigh all others.
MIN_OF_MEDIAN = 1e-3


class Threshold(NamedTuple):
    """`value` in units of the score; the false-alarm rate asked for; `count` of normals that it comes from; `why`, a
    sentence for a person: where it comes from and what so many normals can promise."""

    value: float
    false_alarm_rate: float
    count: int
    why: str


def is_anomalous(scores: ArrayLike, threshold: float) -> np.ndarray:
    """Bool, of the scores' shape. Raises UserError where a score is not finite.

    Both are compared as float32, as which methods give scores, so that arrays, lists and single numbers decide alike.
    """
    return finite(scores).astype(np.float32, copy=False) > np.float32(threshold)


def finite(scores: ArrayLike) -> np.ndarray:
    """Scores or maps as an array, shape and dtype as they are. Raises UserError where one is not finite."""
    array = np.asarray(scores)
    if not np.isfinite(array).all():
        count = int(array.size - np.isfinite(array).sum())
        raise UserError(f"{count} of {array.size} scores are NaN or infinite: look for what the method was given.")
    return array


def threshold_from_normals(scores: ArrayLike, false_alarm_rate: float) -> Threshold:
    """The threshold above which a share of at most `false_alarm_rate` of further normals is expected.

    `scores` (n,) are of normals of the category that the method did not learn from: held out, or left out in turn.
    Raises UserError without scores, for scores that are not finite, and for a rate that is not between 0 and 1.
    """
    array = _checked(scores, false_alarm_rate)
    count = len(array)
    if count == 0:
        raise UserError("0 normal scores give no threshold: give good images of the category, 8 or more if you can.")
    if count == 1:
        why = "the only normal score there is: it says nothing of the spread, so every second good image may be above."
        return Threshold(float(array[0]), false_alarm_rate, 1, why)
    value, source = _limit(array, np.full(count, 1 / count), false_alarm_rate)
    return Threshold(value, false_alarm_rate, count, source)


def threshold_from_other_categories(
    own_scale: float, calibration: Mapping[str, ArrayLike], false_alarm_rate: float
) -> Threshold:
    """For a category with fewer than MIN_OWN_NORMALS: what is usual among normals elsewhere, in this one's unit.

    `calibration` holds, for each training category, scores (n,) of normals that the method did not learn from, against
    as many references as the category has, divided by the scale of that category; `own_scale` is the category's own,
    found in the same way. Every category has the same weight, however many normals it brings. The rate is kept as far
    as the category's scores, in its unit, spread as those of the others: a promise about categories, not a proof.
    Raises UserError without calibration, and for values that are not finite or a scale that is not above 0.
    """
    if not (math.isfinite(own_scale) and own_scale > 0):
        raise UserError(f"a scale of {own_scale} is no unit for scores: give references that are not all alike.")
    checked = {category: _checked(scores, false_alarm_rate) for category, scores in calibration.items()}
    empty = [category for category, scores in checked.items() if not len(scores)]
    if empty or not checked:
        names = ", ".join(empty) or "the training categories"
        raise UserError(f"there are no calibration normals of {names}: give some, or {MIN_OWN_NORMALS} own references.")
    pooled = np.concatenate(list(checked.values()))
    weights = np.concatenate([np.full(len(scores), 1 / len(scores) / len(checked)) for scores in checked.values()])
    value, source = _limit(pooled, weights, false_alarm_rate)
    factor = f"{value:.4g}, from {len(checked)} training categories"
    why = f"{own_scale:.4g}, the scale of this category, times {factor}: {source}"
    return Threshold(own_scale * value, false_alarm_rate, len(pooled), why)


def confidence(score: float, threshold: float, normal_scores: ArrayLike) -> float:
    """How sure a decision is, from 0.5, at the threshold, to 1: the chance that it stays the same if the score moves as
    far as normals differ from each other.

    Student's t distribution function at the distance to the threshold in standard deviations of the normals, n - 1
    degrees of freedom: it depends on no unit, so it compares between categories and methods, and few normals make it
    careful. 0.5, not known, where there are fewer than two normals or all are alike.
    """
    normals = finite(normal_scores).astype(np.float64)
    distance = abs(float(finite(score)) - threshold)
    deviation = normals.std(ddof=1) if len(normals) > 1 else 0.0
    if deviation == 0:
        return 0.5
    return float(stdtr(len(normals) - 1, distance / (deviation * math.sqrt(1 + 1 / len(normals)))))


def _checked(scores: ArrayLike, false_alarm_rate: float) -> np.ndarray:
    if not 0 < false_alarm_rate < 1:
        raise UserError(
            f"a false-alarm rate of {false_alarm_rate} cannot be kept: give a share above 0 and below 1, such as 0.05."
        )
    array = finite(scores).astype(np.float64)
    if array.ndim != 1:
        raise ValueError(f"scores must be (n,), not {array.shape}.")
    return array


def _limit(scores: np.ndarray, weights: np.ndarray, false_alarm_rate: float) -> tuple[float, str]:
    """The threshold and where it comes from. `weights` (n,) sum to 1; a further score weighs as the heaviest."""
    order = np.argsort(scores)
    ordered, count = scores[order], len(scores)
    # What share of all, the further one included and taken to be the highest, lies at or below each.
    reached = np.cumsum(weights[order]) / (1 + weights.max())  # k / (n + 1) where all weigh the same
    promised = _percent(1 - reached[-1])
    if ordered[0] == ordered[-1]:
        return float(ordered[0]), f"{count} normal scores, all alike: up to {promised} of further ones may be above."
    if reached[-1] >= 1 - false_alarm_rate - ROUNDING:
        k = int(np.searchsorted(reached, 1 - false_alarm_rate - ROUNDING))
        expected = (
            f"{_percent(1 - reached[k])} of further ones are expected above it ({_percent(false_alarm_rate)} asked for)"
        )
        return float(ordered[k]), f"number {k + 1} from below of {count} normal scores; {expected}."
    value, form = _student_t_bound(scores, weights, false_alarm_rate)
    needed = f"{_percent(false_alarm_rate)} takes {math.ceil(1 / false_alarm_rate - ROUNDING) - 1} of equal weight"
    assumed = f"the bound for one further score if they are {form}"
    return value, f"{count} normal scores can promise {promised} false alarms at best ({needed}), so it is {assumed}."


def _student_t_bound(scores: np.ndarray, weights: np.ndarray, false_alarm_rate: float) -> tuple[float, str]:
    """The bound for one further draw of a log-normal distribution, or of a normal one, and which."""
    is_log = scores.min() > MIN_OF_MEDIAN * abs(np.median(scores))
    values = np.log(scores) if is_log else scores
    effective = 1 / np.square(weights).sum()  # n where all weigh the same
    mean = (weights * values).sum()
    variance = (weights * np.square(values - mean)).sum() * effective / (effective - 1)
    bound = mean + stdtrit(effective - 1, 1 - false_alarm_rate) * math.sqrt(variance * (1 + 1 / effective))
    # Two scores far apart put the bound beyond all numbers: the highest one says the same, and can be stored.
    highest = float(np.finfo(np.float32).max)
    with np.errstate(over="ignore"):
        value = float(np.clip(np.exp(bound) if is_log else bound, -highest, highest))
    return value, "log-normally distributed" if is_log else "normally distributed"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
