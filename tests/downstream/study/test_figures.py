"""Figures of rows against the kept predictions."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from downstream.study.cell import IMAGENET, NO_ENCODER, RANDOM, SIMCLR, START, RowKey
from downstream.study.figures import (
    PIXEL,
    category_figures,
    cell_figures,
    defect_auroc,
    encoder_saw,
    encoder_started_from,
    mean_of_defined,
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
    study["encoders"][0]["start"], study["encoders"][1]["start"] = ({"row": START, "saw": saw} for saw in ("web", "x"))
    assert encoder_saw(START, study) == "web; x"
    assert encoder_saw(SIMCLR, study) == "all categories but the tested one"
    assert encoder_saw(SIMCLR, study | {"allow_seen": True}) == "see the list of encoders"
    assert [encoder_saw(name, study) for name in (RANDOM, IMAGENET, NO_ENCODER)] == [
        "nothing, random weights", "ImageNet-1k", "no encoder",
    ]  # fmt: skip


def test_cells_from_before_a_figure_was_computed_are_read_without_it(summarized):
    _, results = summarized
    result = results[RowKey("padim", SIMCLR, "all")]["bottle"][0]
    figures, old_names = cell_figures(result), ("auroc", "average_precision", "aupro", "iou", "defective_share")
    assert all(figures[f"pixel_{name}"] is not None for name in PIXEL if name not in ("aupimo", "spro"))
    # Six good images of 32 px are fewer than 10 000 pixels, and the demo data has no saturations.
    assert figures["pixel_aupimo"] is figures["pixel_spro"] is None
    before = replace(result, pixel={name: result.pixel[name] for name in old_names})
    missing = {"pixel_aupro_5": None, "pixel_f1": None, "pixel_oracle_f1": None}
    assert cell_figures(before) == figures | missing
    assert category_figures({0: before})["figures"]["pixel_aupro_5"] == {"mean": None, "std": None, "count": 0}
