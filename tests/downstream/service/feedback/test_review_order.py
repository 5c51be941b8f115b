"""What a person should look at first."""

import numpy as np
import pytest

from baselines.contract.threshold import confidence
from downstream.service.feedback.review_order import review_order, spread


def test_the_nearest_to_the_threshold_the_least_alike_and_the_most_disputed_come_by_turns():
    scores, distances = [5.0, 1.05, 0.2, 0.9, 30.0], [0.1, 0.2, 0.9, None, 0.3]
    disputed = review_order(scores, [1.0] * len(scores), 0.5, distances, [None, 4.0, 0.1, 2.0, 3.0])
    assert [doubt.position for doubt in disputed] == [1, 2, 3, 4, 0]
    assert [doubt.reason[:4] for doubt in disputed] == ["near", "unli", "near", "unli", "near"]
    disputed = review_order(scores, [1.0] * len(scores), 0.5, distances, [5.0, 4.0, 0.1, 2.0, None])
    assert [(doubt.position, doubt.reason[:4], doubt.disagreement) for doubt in disputed[:3]] == [
        (1, "near", 4.0), (2, "unli", 0.1), (0, "stat", 5.0),
    ]  # fmt: skip
    order = review_order(scores, [1.0] * len(scores), 0.5, distances, [None] * len(scores))
    assert [doubt.position for doubt in order] == [1, 2, 3, 4, 0]
    assert [doubt.reason[:4] for doubt in order] == ["near", "unli", "near", "unli", "near"]
    assert [doubt.spreads for doubt in order] == pytest.approx([0.1, 1.6, 0.2, 58.0, 8.0])
    assert [doubt.distance for doubt in order] == [0.2, 0.9, None, 0.3, 0.1]


def test_each_comes_once_whatever_is_known():
    random = np.random.default_rng(0)
    for count in (0, 1, 7, 40):
        for known in (0, 0.5, 1):
            distances = [float(random.random()) if random.random() < known else None for _ in range(count)]
            disputed = [float(random.random()) if random.random() < known else None for _ in range(count)]
            order = review_order(random.normal(size=count).tolist(), [0.3] * count, None, distances, disputed)
            assert sorted(doubt.position for doubt in order) == list(range(count))
            if known == 0:  # then by the threshold alone
                assert {doubt.reason for doubt in order} <= {"near the threshold"}


def test_the_spread_is_the_unit_of_confidence():
    normals = [1.0, 2.0, 4.0, 4.5, 6.0]
    assert spread(normals) == pytest.approx(np.std(normals, ddof=1) * np.sqrt(1 + 1 / 5))
    for far in (0.1, 1.0, 3.0):  # so far from the threshold, in spreads, confidence is Student's at just that
        from scipy.stats import t

        assert confidence(10 + far * spread(normals), 10, normals) == pytest.approx(t(4).cdf(far))
    assert spread([1.0]) is spread([]) is spread([2.0, 2.0]) is None
