"""Shares and their intervals: against the definition, and how often the truth is inside."""

import numpy as np
import pytest
from scipy.stats import binomtest

from downstream.service.watch.rates import error_rates, wilson


@pytest.mark.parametrize(("count", "total"), [(0, 1), (1, 1), (0, 10), (3, 10), (10, 10), (7, 300), (299, 300)])
def test_the_interval_is_wilsons(count, total):
    rate, wanted = wilson(count, total), binomtest(count, total).proportion_ci(method="wilson")
    assert (rate.low, rate.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert rate.low <= rate.share <= rate.high and 0 <= rate.low < rate.high <= 1


def test_of_none_everything_is_possible():
    assert wilson(0, 0) == (0, 0, None, 0.0, 1.0)


def test_the_truth_is_inside_in_95_of_100_cases():
    random = np.random.default_rng(0)
    for truth in (0.03, 0.2, 0.5):
        rates = [wilson(int(count), 60) for count in random.binomial(60, truth, 4000)]
        assert np.mean([rate.low <= truth <= rate.high for rate in rates]) == pytest.approx(0.95, abs=0.025)


def test_errors_are_counted_among_what_people_called_so():
    said = [("agree", False)] * 6 + [("false_alarm", True)] * 2 + [("agree", True)] * 3 + [("missed_defect", False)]
    alarms, misses = error_rates([*said, ("unsure", True), ("unsure", False)])
    assert (alarms.count, alarms.total, misses.count, misses.total) == (2, 8, 1, 4)
    assert error_rates([]) == (wilson(0, 0), wilson(0, 0))
