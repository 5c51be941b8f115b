"""Figures of the report against the kept predictions."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from downstream.study.cell import RANDOM, SIMCLR, Row
from downstream.study.summary import (
    RESTORATION_FILE,
    compare_with_random,
    failure_lines,
    more_warnings,
    read_restoration,
    row_summary,
    summarize,
)


@pytest.fixture(scope="module")
def study(study_folder) -> dict:
    return json.loads((study_folder / "study.json").read_text())


@pytest.fixture(scope="module")
def summarized(study_folder, study):
    return summarize(study_folder, study)


def test_figures_are_those_of_the_predictions(summarized):
    summary, results = summarized
    for row in summary["rows"]:
        by_seed = results[Row(row["method"], row["encoder"], row["shots"])]["bottle"]
        aurocs = [roc_auc_score(one.labels, one.scores) for one in by_seed.values()]
        balanced = [
            balanced_accuracy_score(one.labels, one.scores > np.float32(one.threshold.value))
            for one in by_seed.values()
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
        assert row["control"]["difference"] == pytest.approx(expected)
        assert row["control"]["p"] <= row["control"]["p_holm"] <= 1
    assert all(row["control"] is None for row in summary["rows"] if row["encoder"] != SIMCLR)


def test_a_method_that_reads_the_labels_beats_its_control(summarized, study):
    _, results = summarized
    ours, control = Row("padim", SIMCLR, "all"), Row("padim", RANDOM, "all")
    changed = {row: {"bottle": dict(results[row]["bottle"])} for row in (ours, control)}
    for seed, result in changed[ours]["bottle"].items():
        changed[ours]["bottle"][seed] = replace(result, scores=result.labels.astype(np.float32))
        shuffled = np.random.default_rng(seed).permutation(result.scores)
        changed[control]["bottle"][seed] = replace(result, scores=shuffled)
    rows = [row_summary(row, by_category, {}, study) for row, by_category in changed.items()]
    compare_with_random(rows, changed)
    assert rows[0]["figures"]["auroc"]["mean"] == 1
    assert rows[0]["control"]["p_holm"] < 0.01 and rows[1]["control"] is None


def test_trivial_rows_are_chance(summarized):
    summary, _ = summarized
    good, anomalous = summary["trivial"]
    assert (good["title"], anomalous["title"]) == ("always good", "always anomalous")
    assert good["figures"]["recall"]["mean"] == 0 and anomalous["figures"]["recall"]["mean"] == 1
    for row in (good, anomalous):
        assert row["figures"]["auroc"]["mean"] == 0.5 == row["figures"]["balanced_accuracy"]["mean"]


@pytest.mark.parametrize(("auroc", "low", "is_told"), [(0.9, 0.8, True), (0.9, 0.4, False), (0.6, 0.55, False)])
def test_a_frame_that_tells_much_is_warned_of(summarized, auroc, low, is_told):
    summary, _ = summarized
    row = {"method": "frame", "shots": "", "categories": {
        "bottle": {"figures": {"auroc": {"mean": auroc}}, "interval": [low, 1.0], "thresholds": {}}
    }}  # fmt: skip
    lines = more_warnings({**summary, "rows": [row]})
    assert any("outermost tenth" in line for line in lines) == is_told


def test_failures_with_one_reason_are_one_line():
    row = {"method": "padim", "encoder": "", "shots": "all"}
    failures = [{"row": row, "category": name, "seed": 0, "reason": "no light"} for name in ("nut", "tire")]
    assert failure_lines(failures) == ["2 parts failed (padim-all-normals on nut, tire): no light"]


def test_restorers_are_told_where_they_were_compared(summarized, tmp_path):
    assert summarized[0]["restoration"] is None
    table = {"lead": "l", "columns": ["restored by", "PSNR"], "rows": [["sadnet", "31.00"]], "note": "n"}
    (tmp_path / RESTORATION_FILE).write_text(json.dumps(table))
    assert read_restoration(tmp_path) == table
