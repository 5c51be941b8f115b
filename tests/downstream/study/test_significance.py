"""Paired differences of AUROC, their intervals and their correction, against definitions and simulations."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from downstream.study.significance import (
    delong_interval,
    difference,
    holm,
    is_clear,
    mean_interval,
    wilson_interval,
    won_pairs,
)


def drawn(seed: int, count: int = 60, shift: float = 1.0, seeds: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Labels, half of them defective, and scores (seeds, n) with equal scores among them."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 2 == 0
    return labels, (generator.normal(size=(seeds, count)) + shift * labels).round(1)


def test_mean_of_won_pairs_is_the_mean_auroc_over_seeds():
    labels, scores = drawn(0, seeds=3)
    expected = np.mean([roc_auc_score(labels, one) for one in scores])
    assert won_pairs(labels, scores).mean() == pytest.approx(expected, abs=1e-12)


def test_won_pairs_count_ties_half():
    matrix = won_pairs([False, True, True], [[2.0, 2.0, 3.0]])
    assert matrix.tolist() == [[0.5], [1.0]]


def test_one_kind_alone_gives_no_pairs():
    assert won_pairs([True, True], [[1.0, 2.0]]) is None
    assert won_pairs([False, False], [[1.0, 2.0]]) is None
    assert mean_interval([]) is None
    assert difference([], []) is None


def test_difference_is_delongs_by_the_definition():
    labels, first = drawn(1)
    _, second = drawn(2, shift=0.4)
    components = []
    for scores in (first[0], second[0]):
        wins = [[float(d > g) + 0.5 * (d == g) for g in scores[~labels]] for d in scores[labels]]
        components.append((np.mean(wins, axis=1), np.mean(wins, axis=0)))
    (d1, g1), (d2, g2) = components
    covariance = np.cov([d1, d2]) / len(d1) + np.cov([g1, g2]) / len(g1)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    z = (d1.mean() - d2.mean()) / np.sqrt(variance)
    from scipy.stats import norm

    found = difference([won_pairs(labels, first)], [won_pairs(labels, second)])
    assert found.value == pytest.approx(d1.mean() - d2.mean(), abs=1e-12)
    assert found.p == pytest.approx(2 * norm.sf(abs(z)), rel=1e-9)
    expected = norm.interval(0.95, found.value, np.sqrt(variance))
    assert found.interval == pytest.approx(expected, abs=1e-6)


def test_equal_methods_do_not_differ():
    labels, scores = drawn(3)
    matrix = won_pairs(labels, scores)
    assert difference([matrix, matrix], [matrix, matrix]) == (0.0, 1.0, (0.0, 0.0))


def test_methods_that_are_equally_good_are_called_different_as_often_as_promised():
    found = []
    for seed in range(400):
        generator = np.random.default_rng(seed)
        matrices: tuple[list, list] = ([], [])
        for _ in range(2):  # categories
            labels = np.arange(50) % 2 == 0
            common = generator.normal(size=50) + labels
            for side in matrices:
                side.append(won_pairs(labels, common + 0.7 * generator.normal(size=50)))
        tested = difference(*matrices)
        found.append(tested.p < 0.05)
        assert found[-1] != (tested.interval.low <= 0 <= tested.interval.high)
    assert 0.02 < np.mean(found) < 0.09


def test_a_clear_difference_is_found():
    labels, good = drawn(4, shift=2.0)
    _, poor = drawn(5, shift=0.0)
    assert difference([won_pairs(labels, good)], [won_pairs(labels, poor)]).p < 1e-3


def test_a_single_defective_image_allows_no_test():
    matrix = won_pairs([True, False, False], [[1.0, 0.0, 2.0]])
    assert difference([matrix], [matrix]) is None


def test_interval_holds_the_mean_and_narrows_with_more_images():
    few, many = (won_pairs(*drawn(6, count)) for count in (30, 300))
    wide, narrow = mean_interval([few]), mean_interval([many])
    assert wide.low < few.mean() < wide.high
    assert narrow.high - narrow.low < 0.6 * (wide.high - wide.low)


def test_interval_of_two_categories_is_narrower_than_of_one():
    matrices = [won_pairs(*drawn(seed)) for seed in (7, 8)]
    both, alone = mean_interval(matrices), mean_interval(matrices[:1])
    assert both.high - both.low < 0.85 * (alone.high - alone.low)


def test_interval_covers_the_truth_as_often_as_promised():
    from scipy.stats import norm

    truth, covered = norm.cdf(1 / np.sqrt(2)), 0
    for seed in range(150):
        generator = np.random.default_rng(seed)
        labels = np.arange(80) % 2 == 0
        low, high = mean_interval([won_pairs(labels, generator.normal(size=80) + labels)], seed)
        covered += low < truth < high
    assert 0.88 < covered / 150 < 0.99


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_a_comparison_is_clear_below_alpha_and_never_untested():
    assert is_clear({"p_holm": 0.049})
    assert not is_clear({"p_holm": 0.05})
    assert not is_clear({"p_holm": None})


def test_wilsons_interval_is_that_of_the_book():
    assert wilson_interval(0, 0) is None
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20.
    for count, of, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        assert wilson_interval(count, of) == pytest.approx((low, high), abs=1e-4)


def test_delongs_interval_holds_the_auroc_and_stays_inside():
    held, truth = 0, 0.7602  # of two normal distributions one deviation apart
    for seed in range(200):
        labels, scores = drawn(seed)
        low, high = delong_interval(won_pairs(labels, scores))
        assert 0 < low < high < 1
        held += low < truth < high
    assert 180 <= held <= 199
    assert delong_interval(won_pairs([False] * 9 + [True] * 9, [[*range(18)]])) == pytest.approx((0.7009, 1), abs=1e-4)
    assert delong_interval(won_pairs([False, True, True], [[1, 2, 3]])) is None
