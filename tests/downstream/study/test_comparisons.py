"""Rows against their controls: which cells are paired, and the figures against naive ones."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from downstream.study.cell import IMAGENET, RANDOM, SIMCLR, START, RowKey
from downstream.study.comparisons import compare_with_random, compare_with_start, mean_pairs, paired
from downstream.study.figures import row_figures
from downstream.study.significance import difference, holm, won_pairs

ENCODERS = [{"fingerprint": "abc", "start": {"name": "ImageNet", "row": IMAGENET, "note": ""}}]


def drawn(result, seed: int, shift: float, encoder_id: str = "abc", count: int = 40):
    """A real cell with other scores: half of `count` images defective, told from good ones by `shift` deviations."""
    labels = np.arange(count) % 2 == 0
    scores = (np.random.default_rng(seed).normal(size=count) + shift * labels).astype(np.float32)
    defects = ["crack" if is_defective else "good" for is_defective in labels]
    made_with = {**result.cell, "encoder_id": encoder_id}
    return replace(result, labels=labels, scores=scores, defects=defects, cell=made_with)


@pytest.fixture(scope="module")
def cell(summarized):
    return summarized[1][RowKey("padim", SIMCLR, "all")]["bottle"][0]


@pytest.fixture(scope="module")
def results(cell):
    """PaDiM and k-NN on three encoders, two categories and two seeds: SimCLR finds more than ImageNet, that more than
    random."""
    found, seed = {}, 0
    for method, shots in (("padim", "all"), ("knn", "")):
        for encoder, shift in ((SIMCLR, 1.5), (RANDOM, 0.2), (IMAGENET, 0.7)):
            found[RowKey(method, encoder, shots)] = {}
            for category in ("nut", "pill"):
                seed += 2
                by_seed = {number: drawn(cell, seed + number, shift) for number in (0, 1)}
                found[RowKey(method, encoder, shots)][category] = by_seed
    return found


@pytest.fixture
def rows(results, study):
    return [row_figures(row, by_category, study) for row, by_category in results.items()]


def auroc(results, encoder: str, category: str, method: str = "padim", shots: str = "all") -> float:
    by_seed = results[RowKey(method, encoder, shots)][category]
    return np.mean([roc_auc_score(result.labels, result.scores) for result in by_seed.values()])


def test_every_trained_row_is_tested_against_its_own_random_control(summarized):
    summary, _ = summarized
    by_name = {row["name"]: row for row in summary["rows"]}
    trained = [row for row in summary["rows"] if row["encoder"] == SIMCLR]
    assert len(trained) == 3
    for row in trained:
        control = by_name[row["name"].replace(SIMCLR, RANDOM)]
        expected = row["figures"]["auroc"]["mean"] - control["figures"]["auroc"]["mean"]
        assert row["versus_random"]["difference"] == pytest.approx(expected)
        assert row["versus_random"]["p"] <= row["versus_random"]["p_holm"] <= 1
        # Its file names no start, so random weights are what it is compared with there too.
        assert row["versus_start"]["difference"] == pytest.approx(expected)
    assert all(row["versus_random"] is None for row in summary["rows"] if row["encoder"] != SIMCLR)
    assert summary["versus_start"]["starts"] == ["random weights"] and summary["versus_start"]["rows"] == 3


def test_a_method_that_reads_the_labels_beats_its_control(summarized, study):
    _, results = summarized
    ours, control = RowKey("padim", SIMCLR, "all"), RowKey("padim", RANDOM, "all")
    changed = {row: {"bottle": dict(results[row]["bottle"])} for row in (ours, control)}
    for seed, result in changed[ours]["bottle"].items():
        changed[ours]["bottle"][seed] = replace(result, scores=result.labels.astype(np.float32))
        shuffled = np.random.default_rng(seed).permutation(result.scores)
        changed[control]["bottle"][seed] = replace(result, scores=shuffled)
    rows = [row_figures(row, by_category, study) for row, by_category in changed.items()]
    compare_with_random(rows, changed)
    assert rows[0]["figures"]["auroc"]["mean"] == 1
    assert rows[0]["versus_random"]["p_holm"] < 0.01 and rows[1]["versus_random"] is None


def test_simclr_is_compared_with_its_start_and_not_with_random(rows, results):
    overall = compare_with_start(rows, results, ENCODERS)
    compared = {row["name"]: row["versus_start"] for row in rows if row["versus_start"]}
    assert list(compared) == ["padim-SimCLR-all-normals", "knn-SimCLR"]
    of_category = {name: auroc(results, SIMCLR, name) - auroc(results, IMAGENET, name) for name in ("nut", "pill")}
    padim = compared["padim-SimCLR-all-normals"]
    assert padim["difference"] == pytest.approx(np.mean(list(of_category.values())))
    for name, expected in of_category.items():
        assert padim["categories"][name]["difference"] == pytest.approx(expected)
    mean = np.mean([row["difference"] for row in compared.values()])
    assert overall["difference"] == pytest.approx(mean) and overall["starts"] == ["ImageNet"]
    assert overall["rows"] == 2 and list(overall["categories"]) == ["nut", "pill"]


def test_p_values_are_corrected_over_the_rows_and_their_mean_and_over_the_table(rows, results):
    overall = compare_with_start(rows, results, ENCODERS)
    shown = [*(row["versus_start"] for row in rows if row["versus_start"]), overall]
    assert [test["p_holm"] for test in shown] == pytest.approx(holm([test["p"] for test in shown]))
    table = [test for comparison in shown for test in comparison["categories"].values()]
    assert len(table) == 6
    assert [test["p_holm"] for test in table] == pytest.approx(holm([test["p"] for test in table]))
    assert all(low <= test["difference"] <= high for test in shown for low, high in [test["interval"]])


def test_a_single_row_is_its_own_mean(rows, results):
    (row,) = (row for row in rows if row["name"] == "padim-SimCLR-all-normals")
    overall = compare_with_start([row], results, ENCODERS)
    assert overall["p_holm"] == overall["p"] == row["versus_start"]["p_holm"]
    assert (overall["rows"], overall["better"] + overall["worse"] <= 1) == (1, True)


def test_each_cell_is_compared_with_the_start_of_its_own_encoder(results, rows, cell):
    """nut was judged by an encoder that started from ImageNet, pill by one that started from a file."""
    mixed = {row: {category: dict(by_seed) for category, by_seed in of.items()} for row, of in results.items()}
    for seed, result in mixed[RowKey("padim", SIMCLR, "all")]["pill"].items():
        result = replace(result, cell={**result.cell, "encoder_id": "def"})
        mixed[RowKey("padim", SIMCLR, "all")]["pill"][seed] = result
    mixed[RowKey("padim", START, "all")] = {"pill": {seed: drawn(cell, 90 + seed, 3.0) for seed in (0, 1)}}
    encoders = [*ENCODERS, {"fingerprint": "def", "start": {"name": "a.pth", "row": START, "note": ""}}]
    (row,) = (row for row in rows if row["name"] == "padim-SimCLR-all-normals")
    overall = compare_with_start([row], mixed, encoders)
    expected = auroc(mixed, SIMCLR, "pill") - auroc(mixed, START, "pill")
    assert overall["categories"]["pill"]["difference"] == pytest.approx(expected)
    expected = auroc(mixed, SIMCLR, "nut") - auroc(mixed, IMAGENET, "nut")
    assert overall["categories"]["nut"]["difference"] == pytest.approx(expected)
    assert overall["starts"] == ["ImageNet", "a.pth"]


@pytest.mark.parametrize("start", [None, {"name": "gone.pth", "row": None, "note": "gone"}])
def test_nothing_else_is_taken_where_the_start_is_not_at_hand(start, rows, results):
    encoders = [{"fingerprint": "abc"} | ({"start": start} if start else {})]
    assert compare_with_start(rows, results, encoders) is None
    assert all(row["versus_start"] is None for row in rows)


def test_a_category_with_one_defective_image_has_a_difference_and_no_test(results, rows, cell):
    few = {row: {"nut": {0: replace(of["nut"][0], labels=np.arange(40) == 0)}} for row, of in results.items()}
    overall = compare_with_start(rows, few, ENCODERS)
    assert overall["p"] is None is overall["p_holm"] is overall["interval"]
    means = [
        auroc(few, SIMCLR, "nut", *of) - auroc(few, IMAGENET, "nut", *of) for of in (("padim", "all"), ("knn", ""))
    ]
    assert overall["difference"] == pytest.approx(np.mean(means))
    assert overall["better"] == overall["worse"] == 0


def test_only_seeds_and_categories_that_both_have_are_paired(results, rows):
    half = {row: dict(of) for row, of in results.items()}
    half[RowKey("padim", IMAGENET, "all")] = {"nut": {1: results[RowKey("padim", IMAGENET, "all")]["nut"][1]}}
    (row,) = (row for row in rows if row["name"] == "padim-SimCLR-all-normals")
    pairs = paired(half, row, lambda _: IMAGENET)
    assert list(pairs) == ["nut"]
    result = results[RowKey("padim", SIMCLR, "all")]["nut"][1]
    assert pairs["nut"][0].mean() == pytest.approx(roc_auc_score(result.labels, result.scores))


def test_the_mean_over_rows_is_called_different_as_often_as_promised():
    """Three rows that judge the same images, so that their errors go together: a simulation of no difference."""
    found = []
    for seed in range(300):
        generator = np.random.default_rng(seed)
        labels = np.arange(60) % 2 == 0
        common, rows = generator.normal(size=60) + labels, []
        for _ in range(3):
            sides = [won_pairs(labels, common + 0.7 * generator.normal(size=60)) for _ in range(2)]
            rows.append({"nut": tuple(sides)})
        mean = mean_pairs(rows)
        found.append(difference([mean["nut"][0]], [mean["nut"][1]]).p < 0.05)
    assert 0.02 < np.mean(found) < 0.09


def test_the_interval_of_the_mean_is_delongs_by_the_definition():
    """The variance of a mean of AUROC differences from the covariance of all of DeLong's components."""
    generator, labels = np.random.default_rng(0), np.arange(50) % 2 == 0
    scores = generator.normal(size=(4, 50)) + np.array([1.2, 0.8, 1.0, 0.9])[:, None] * labels
    matrices = [won_pairs(labels, one) for one in scores]
    rows = [{"nut": pair} for pair in list(pairwise(matrices))[::2]]
    weights = np.array([0.5, -0.5, 0.5, -0.5])
    covariance = np.cov([m.mean(1) for m in matrices]) / 25 + np.cov([m.mean(0) for m in matrices]) / 25
    deviation = np.sqrt(weights @ covariance @ weights)
    first, second = mean_pairs(rows)["nut"]
    expected = norm.interval(0.95, weights @ [m.mean() for m in matrices], deviation)
    assert difference([first], [second]).interval == pytest.approx(expected, abs=1e-6)
