"""Drift: against scipy and a naive loop, and how often nothing is called something."""

import numpy as np
import pytest
from scipy.stats import ks_2samp, norm, rankdata

from downstream.service.watch.drift import (
    CUSUM_ALLOWANCE,
    KS_FALSE_ALARM_RATE,
    KS_WINDOW,
    cusum,
    cusum_limit,
    kolmogorov_smirnov,
    normal_ranks,
)


@pytest.mark.parametrize(("first", "second"), [(7, 5), (30, 100), (100, 100), (400, 100)])
def test_the_statistic_is_that_of_scipy_and_the_p_value_near_the_exact_one(first, second):
    random = np.random.default_rng(first)
    for shift in (0, 0.4, 1.5):
        one, other = random.normal(size=first), random.normal(shift, size=second)
        got, exact = kolmogorov_smirnov(one, other), ks_2samp(one, other, method="exact")
        assert got.statistic == pytest.approx(exact.statistic, abs=1e-12)
        assert got.p_value == pytest.approx(exact.pvalue, abs=0.12 if first < 30 else 0.06)
        assert got.p_value >= exact.pvalue - 0.005  # on the safe side

    assert kolmogorov_smirnov([1, 1, 2], [1, 1, 2]).statistic == 0


@pytest.mark.parametrize("references", [50, 200])
def test_windows_without_drift_are_called_drifted_as_rarely_as_stated(references):
    random = np.random.default_rng(1)
    calls = [
        kolmogorov_smirnov(random.lognormal(size=references), random.lognormal(size=KS_WINDOW)).p_value
        for _ in range(3000)
    ]
    for rate in (0.05, 0.01, KS_FALSE_ALARM_RATE):
        margin = 3 * np.sqrt(rate / len(calls))
        assert np.mean(np.array(calls) < rate) <= rate + margin
    assert np.mean(np.array(calls) < 0.05) > 0.025  # and it is no test that never calls
    drifted = [
        kolmogorov_smirnov(random.normal(size=references), random.normal(1, size=KS_WINDOW)).p_value for _ in range(50)
    ]
    assert np.mean(np.array(drifted) < KS_FALSE_ALARM_RATE) > 0.8


def test_ranks_are_those_of_the_value_among_the_references():
    random = np.random.default_rng(2)
    references, values = random.integers(0, 9, 40).astype(float), random.integers(-2, 12, 30).astype(float)
    for value, got in zip(values, normal_ranks(values, references), strict=True):
        rank = rankdata([*references, value])[-1]  # among all, equal ones in their middle
        assert got == pytest.approx(norm.ppf((rank - 0.5) / (len(references) + 1)))
    assert np.isfinite(normal_ranks([-1e9, 1e9], references)).all()


def naive_cusum(values, limit: float, k: float) -> tuple[float, float, list[int]]:
    """By the definition: the largest sum of any run of values that ends here, less the allowance."""
    start, alarms = 0, []
    high = low = 0.0
    for end in range(len(values)):
        runs = [np.sum(values[begin : end + 1]) for begin in range(start, end + 1)]
        lengths = np.arange(len(runs), 0, -1)
        high = max(0.0, max(run - k * n for run, n in zip(runs, lengths, strict=True)))
        low = max(0.0, max(-run - k * n for run, n in zip(runs, lengths, strict=True)))
        if max(high, low) > limit:
            alarms.append(end)
            start, high, low = end + 1, 0.0, 0.0
    return high, low, alarms


def test_the_cusum_is_that_of_the_definition():
    values = np.random.default_rng(3).normal(0.8, 1, 200)
    got = cusum(values, 4.0)
    high, low, alarms = naive_cusum(values, 4.0, CUSUM_ALLOWANCE)
    assert got.alarms == alarms and len(alarms) > 2
    assert (got.high, got.low) == pytest.approx((high, low))


def test_its_limit_keeps_the_stated_number_of_images_between_false_alarms():
    """Montgomery's table: two-sided, allowance 1/2, limit 5 has 465 on average, limit 4 has 168."""
    assert cusum_limit(465, 0.5) == pytest.approx(5, abs=0.05) and cusum_limit(168, 0.5) == pytest.approx(4, abs=0.05)
    random = np.random.default_rng(4)
    run_length = 400
    count = len(cusum(random.normal(size=120_000), cusum_limit(run_length)).alarms)
    assert 120_000 / count == pytest.approx(run_length, rel=0.2)


def test_references_that_are_few_cost_no_more_false_alarms_than_are_stated():
    """On average over lines, each with SCORE_REFERENCES of its own; of a shorter run length, to see enough alarms."""
    random = np.random.default_rng(6)
    count = sum(
        len(cusum(normal_ranks(random.random(1000), random.random(200)), cusum_limit(2000)).alarms) for _ in range(150)
    )
    assert 150_000 / count > 1000


def test_a_creep_of_a_standard_deviation_is_found_within_thirty_images():
    random = np.random.default_rng(5)
    references = random.gamma(3, size=200)
    found = []
    for _ in range(100):
        crept = normal_ranks(random.gamma(3, size=100) + np.sqrt(3), references)
        found.append(cusum(crept, cusum_limit()).alarms[0])
    assert np.mean(found) < 30
