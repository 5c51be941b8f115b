"""One matrix, read with either class as the positive one."""

import pytest

from baselines.contract.published import both_readings, published_readings


def test_published_row_in_both_readings():
    anomaly, good = published_readings()
    assert (good.positive, anomaly.positive) == ("good", "anomaly")
    for reading in (anomaly, good):
        assert reading.accuracy == pytest.approx(0.667, abs=1e-3)
        assert reading.balanced_accuracy == pytest.approx(0.7015, abs=1e-3)
    assert (good.precision, good.recall, good.f1) == pytest.approx((0.893, 0.634, 0.741), abs=1e-3)
    assert (anomaly.precision, anomaly.recall, anomaly.f1) == pytest.approx((0.409, 0.769, 0.534), abs=1e-3)


def test_what_is_not_defined_is_none():
    anomaly, good = both_readings(true_good=5, false_alarms=0, missed=0, found=0)
    assert anomaly.precision is None and anomaly.recall is None and anomaly.balanced_accuracy is None
    assert (good.precision, good.recall, good.f1, good.accuracy) == (1, 1, 1, 1)
