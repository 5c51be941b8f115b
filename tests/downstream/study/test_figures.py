"""Figures of rows against the kept predictions."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from downstream.study.cell import IMAGENET, NO_ENCODER, RANDOM, SIMCLR, RowKey
from downstream.study.figures import (
    category_figures,
    compare_with_random,
    defect_auroc,
    encoder_saw,
    encoder_started_from,
    mean_of_defined,
    row_figures,
    spread,
)
from pretrain.data.images import GOOD


def test_figures_are_those_of_the_predictions(summarized):
    summary, results = summarized
    for row in summary["rows"]:
        by_seed = results[RowKey(row["method"], row["encoder"], row["shots"])]["bottle"]
        aurocs = [roc_auc_score(result.labels, result.scores) for result in by_seed.values()]
        balanced = [
            balanced_accuracy_score(result.labels, result.scores > np.float32(result.threshold.value))
            for result in by_seed.values()
        ]
        assert row["seeds"] == [0, 1]
        assert row["figures"]["auroc"]["mean"] == pytest.approx(np.mean(aurocs))
        assert row["figures"]["auroc"]["std"] == pytest.approx(np.std(aurocs, ddof=1), abs=1e-9)
        assert row["figures"]["balanced_accuracy"]["mean"] == pytest.approx(np.mean(balanced))
        assert row["interval"][0] <= np.mean(aurocs) <= row["interval"][1]


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
    assert all(row["versus_random"] is None for row in summary["rows"] if row["encoder"] != SIMCLR)


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


def test_trivial_rows_are_chance(summarized):
    summary, _ = summarized
    good, anomalous = summary["trivial"]
    assert (good["title"], anomalous["title"]) == ("always good", "always anomalous")
    assert good["figures"]["recall"]["mean"] == 0 and anomalous["figures"]["recall"]["mean"] == 1
    for row in (good, anomalous):
        assert row["figures"]["auroc"]["mean"] == 0.5 == row["figures"]["balanced_accuracy"]["mean"]


def test_a_defect_is_judged_against_all_good_images(summarized):
    _, results = summarized
    result = results[RowKey("knn", SIMCLR, "")]["bottle"][0]
    defects = np.array(result.defects)
    scratch = (defects == "scratch") | (defects == GOOD)
    assert defect_auroc(result, "scratch") == pytest.approx(
        roc_auc_score(result.labels[scratch], result.scores[scratch])
    )
    assert {*category_figures({0: result})["defects"]} == {*result.defects} - {GOOD}


def test_counts_are_sums_over_seeds_and_readings_share_them(summarized):
    summary, _ = summarized
    for row in summary["rows"]:
        counts = row["counts"]
        assert (counts["good"], counts["defective"]) == (2 * 6, 2 * 12)
        assert counts["true_good"] + counts["false_alarms"] == counts["good"]
        assert row["readings"][0]["accuracy"] == row["readings"][1]["accuracy"]


def test_what_is_not_defined_does_not_count():
    assert spread([None, 0.5]) == {"mean": 0.5, "std": None, "count": 1}
    assert spread([None]) == {"mean": None, "std": None, "count": 0}
    assert spread([0.0, 1.0])["std"] == pytest.approx(0.5**0.5)
    assert mean_of_defined([]) is None


def test_what_pretrained_encoders_started_from_is_named():
    start = {"name": "imagenet", "fingerprint": "ab"}
    encoders = [{"tested_on": ["wood"], "started_from": start}, {"tested_on": ["pill"]}, {"tested_on": []}]
    assert encoder_started_from(SIMCLR, {"encoders": encoders}) == "imagenet, not known"
    assert encoder_started_from(RANDOM, {"encoders": encoders}) == ""


def test_what_an_encoder_saw_is_told_in_words():
    study = {"encoders": [{"saw": ["nut", "tire"], "tested_on": ["wood"]}, {"saw": ["x"], "tested_on": []}],
             "allow_seen": False}  # fmt: skip
    assert encoder_saw(SIMCLR, study) == "nut, tire"
    study["encoders"][1]["tested_on"] = ["pill"]
    assert encoder_saw(SIMCLR, study) == "all categories but the tested one"
    assert encoder_saw(SIMCLR, study | {"allow_seen": True}) == "see the list of encoders"
    assert [encoder_saw(name, study) for name in (RANDOM, IMAGENET, NO_ENCODER)] == [
        "nothing, random weights", "ImageNet-1k", "no encoder",
    ]  # fmt: skip
