"""The rate that a threshold is asked for is the rate that it keeps, whatever the number of normals."""

import math

import numpy as np
import pytest
import torch
from scipy.special import ndtr

from baselines.contract.threshold import (
    confidence,
    is_anomalous,
    threshold_from_normals,
    threshold_from_other_categories,
)
from pretrain.command import UserError

REPEATS = 2000
SPREAD = 0.6


def false_alarm_rates(thresholds: list[float], scale: float = 1.0) -> np.ndarray:
    """Of further normals, whose logarithm has deviation SPREAD: exact, so that only the thresholds are random."""
    return 1 - ndtr(np.log(np.array(thresholds) / scale) / SPREAD)


def log_normal(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(0, SPREAD, shape)


@pytest.mark.parametrize("count", [2, 8, 20, 50, 200])
@pytest.mark.parametrize("false_alarm_rate", [0.05, 0.1])
def test_further_normals_are_above_at_the_rate_asked_for(count, false_alarm_rate):
    draws = log_normal(REPEATS, count, seed=count)
    rates = false_alarm_rates([threshold_from_normals(scores, false_alarm_rate).value for scores in draws])
    # A rank can only be a whole number: where ranks are used, up to 1/(n + 1) of the rate is given away.
    given_away = 1 / (count + 1) if count >= 1 / false_alarm_rate - 1 else 0
    assert false_alarm_rate - given_away - 0.006 < rates.mean() < false_alarm_rate + 0.006


def test_the_highest_of_few_normals_would_not_keep_the_rate():
    draws = log_normal(REPEATS, 8, seed=8)
    assert false_alarm_rates(draws.max(axis=1)).mean() == pytest.approx(1 / 9, abs=0.006)
    below = np.mean([threshold_from_normals(scores, 0.1).value < scores.max() for scores in draws])
    assert below > 0.05  # outliers alone must not drive the threshold


def test_scores_below_zero_are_taken_to_be_normally_distributed():
    draws = np.random.default_rng(0).normal(0, 1, (REPEATS, 8))
    thresholds = [threshold_from_normals(scores, 0.05) for scores in draws]
    assert (1 - ndtr([threshold.value for threshold in thresholds])).mean() == pytest.approx(0.05, abs=0.006)
    assert "if they are normally distributed" in thresholds[0].why


def test_a_normal_among_its_own_references_does_not_set_the_unit():
    scores = log_normal(8, seed=1)
    plain = threshold_from_normals(scores, 0.05).value
    assert threshold_from_normals([1e-9, *scores], 0.05).value < 3 * plain
    # Its logarithm would have put the bound far beyond everything.
    logs = np.log([1e-9, *scores])
    assert math.exp(logs.mean() + 1.86 * logs.std(ddof=1)) > 100 * plain


@pytest.mark.parametrize(
    ("count", "false_alarm_rate", "k"),
    [(19, 0.05, 19), (20, 0.05, 20), (99, 0.01, 99), (9, 0.1, 9), (200, 0.1, 181), (39, 0.3, 28)],
)
def test_order_statistic(count, false_alarm_rate, k):
    scores = np.random.default_rng(count).permutation(np.arange(1.0, count + 1))
    threshold = threshold_from_normals(scores, false_alarm_rate)
    assert (threshold.value, threshold.false_alarm_rate, threshold.count) == (k, false_alarm_rate, count)
    assert k == math.ceil(round((count + 1) * (1 - false_alarm_rate), 6))
    assert f"number {k} from below of {count} normal scores" in threshold.why


def test_bound_for_few_is_students_t():
    # Logarithms -1, 0, 1: mean 0, deviation 1; Student's t with 2 degrees of freedom is 2.92 at 95 % (tables).
    threshold = threshold_from_normals(np.exp([-1.0, 0.0, 1.0]), 0.05)
    assert threshold.value == pytest.approx(math.exp(2.91999 * math.sqrt(4 / 3)), rel=1e-4)
    assert "3 normal scores can promise 25 % false alarms at best" in threshold.why
    assert "5 % takes 19 of equal weight" in threshold.why
    assert threshold_from_normals([-1.0, 0.0, 1.0], 0.05).value == pytest.approx(2.91999 * math.sqrt(4 / 3), rel=1e-4)


def test_one_normal_and_normals_that_are_alike():
    one = threshold_from_normals([0.7], 0.05)
    assert (one.value, one.count) == (0.7, 1)
    assert "says nothing of the spread" in one.why
    for count, promised in ((8, "11.1 %"), (50, "1.96 %")):
        alike = threshold_from_normals([0.0] * count, 0.05)
        assert alike.value == 0
        assert f"{count} normal scores, all alike: up to {promised}" in alike.why
        assert not is_anomalous([0.0], alike.value).any()


def test_two_scores_far_apart_give_a_threshold_that_can_be_stored():
    value = threshold_from_normals([1.0, 900.0], 0.01).value
    assert value == np.finfo(np.float32).max and math.isfinite(np.float32(value))


@pytest.mark.parametrize(
    ("scores", "false_alarm_rate", "message"),
    [
        ([], 0.05, "0 normal scores give no threshold: give good images"),
        ([1.0, math.nan, math.inf], 0.05, "2 of 3 scores are NaN or infinite"),
        ([1.0, 2.0], 0.0, "rate of 0.0 cannot be kept"),
        ([1.0, 2.0], 5, "rate of 5 cannot be kept"),
    ],
)
def test_user_errors(scores, false_alarm_rate, message):
    with pytest.raises(UserError, match=message):
        threshold_from_normals(scores, false_alarm_rate)


def test_tensors_and_lists_decide_alike():
    scores = torch.tensor([0.1, 0.7, 0.3])
    threshold = threshold_from_normals(scores, 0.3)
    assert threshold == threshold_from_normals(scores.tolist(), 0.3)
    # 0.7 is above its float32, 0.1 below: compared as they are, the same number would be above itself or not.
    for same in (0.1, 0.7):
        for given in (torch.tensor([same]), np.array([same], dtype=np.float32), [same], same):
            assert not is_anomalous(given, same).any()
            assert is_anomalous(given, same - 1e-6).all()


def test_other_categories_keep_the_rate_in_this_ones_unit():
    rates = []
    for repeat in range(300):
        calibration = {
            str(number): log_normal(count, seed=repeat * 10 + number) for number, count in enumerate((15, 30, 60))
        }
        rates.append(false_alarm_rates([threshold_from_other_categories(4.0, calibration, 0.05).value], scale=4.0))
    assert 0.025 < np.mean(rates) < 0.053


def test_other_categories_have_equal_weight():
    # 95 % of 1020 scores lie below 20; but half of the weight is at 100 and above.
    calibration = {"many": np.arange(1000) / 50, "few": np.arange(100.0, 120.0)}
    threshold = threshold_from_other_categories(1.0, calibration, 0.051)
    # Each of the few weighs 0.025, and so does a further score: two of them are 0.05 of 1.025, three are too much.
    assert threshold.value == 118
    # Twice the scores of one category are no more evidence on what is usual elsewhere.
    assert threshold_from_other_categories(1.0, calibration, 0.4).value == 104
    double = {**calibration, "many": np.repeat(calibration["many"], 2)}
    assert threshold_from_other_categories(1.0, double, 0.4).value == 104
    assert threshold.count == 1020 and "from 2 training categories" in threshold.why


def test_other_categories_equal_own_normals_where_there_is_one_of_them():
    for count in (5, 8, 20, 57):
        scores = log_normal(count, seed=count)
        own = threshold_from_normals(scores, 0.1)
        other = threshold_from_other_categories(2.5, {"pill": scores}, 0.1)
        assert other.value == pytest.approx(2.5 * own.value, rel=1e-12)


@pytest.mark.parametrize(
    ("scale", "calibration", "message"),
    [
        (0.0, {"pill": [1.0]}, "a scale of 0.0 is no unit"),
        (math.nan, {"pill": [1.0]}, "a scale of nan is no unit"),
        (1.0, {}, "no calibration normals of the training categories"),
        (1.0, {"pill": [1.0], "wood": []}, "no calibration normals of wood"),
        (1.0, {"pill": [math.nan]}, "1 of 1 scores are NaN"),
    ],
)
def test_user_errors_with_other_categories(scale, calibration, message):
    with pytest.raises(UserError, match=message):
        threshold_from_other_categories(scale, calibration, 0.05)


def test_confidence_grows_on_both_sides_and_knows_no_unit():
    normals = log_normal(30, seed=3)
    threshold = threshold_from_normals(normals, 0.05).value
    assert confidence(threshold, threshold, normals) == 0.5
    distances = np.linspace(0, 5, 20)
    for side in (1, -1):
        sure = [confidence(threshold + side * distance, threshold, normals) for distance in distances]
        assert np.all(np.diff(sure) > 0) and min(sure) == 0.5 and 0.99 < max(sure) <= 1
    assert confidence(3.0, 2.0, normals) == pytest.approx(confidence(300.0, 200.0, normals * 100), rel=1e-9)


def test_confidence_is_careful_with_few_normals():
    few, many = np.array([1.0, 3.0]), np.tile([1.0, 3.0], 500)
    # Two normals: Student's t with one degree of freedom, whose distribution function is 1/2 + atan(t) / pi.
    assert confidence(5.0, 2.0, few) == pytest.approx(0.5 + math.atan(3 / math.sqrt(3)) / math.pi, rel=1e-9)
    assert confidence(5.0, 2.0, few) < 0.9 < 0.99 < confidence(5.0, 2.0, many)
    for unknown in ([], [2.0], [2.0, 2.0, 2.0]):
        assert confidence(5.0, 2.0, unknown) == 0.5
    with pytest.raises(UserError, match="NaN or infinite"):
        confidence(math.nan, 2.0, few)
