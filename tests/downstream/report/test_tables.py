"""What the tables of the page show."""

import pytest

from downstream.report.tables import MAX_NAMES, category_table, decisions_table, results_table, thresholds_table
from downstream.study.cell import SIMCLR, RowKey


def test_rows_stand_by_family_with_the_controls_last(summarized):
    summary, _ = summarized
    families = results_table(summary)["families"]
    assert families[-1][0] == "controls"
    assert sum(len(rows) for _, rows in families) == len(summary["rows"])


def test_the_highest_are_marked_in_the_table_and_by_category(summarized):
    summary, _ = summarized
    table = results_table(summary)
    aurocs = {
        row["name"]: round(row["figures"]["auroc"]["mean"], 3) for row in summary["rows"] if not row["is_control"]
    }
    best = {name for name, value in aurocs.items() if value == max(aurocs.values())}
    assert {row for row, figure in table["best"] if figure == "auroc"} == best
    assert table["best_in_category"] == {(name, "bottle") for name in best}  # it is the one category
    for row in summary["rows"]:
        ((bottle),) = table["by_category"][row["name"]]
        assert bottle["auroc"] == row["categories"]["bottle"]["figures"]["auroc"]["mean"]


def test_a_categorys_figures_stand_beside_the_trivial_answer(summarized):
    summary, results = summarized
    result = results[RowKey("padim", SIMCLR, "all")]["bottle"][0]
    table = category_table("bottle", summary["rows"], result)
    headings = [column.heading for column in table["columns"]]
    assert headings[5:7] == ["AUPRO 30 %", "AUPRO 5 %"] and headings[-1] == "oracle pixel F1"
    assert "AUPIMO" not in headings  # six good images of 32 px: too few pixels, so no row has it
    for row, values in table["rows"]:
        figures = row["categories"]["bottle"]["figures"]
        assert values[0] == figures["auroc"]["mean"] and values[6] == figures["pixel_aupro_5"]["mean"]
    share, of_images = result.pixel["defective_share"], 12 / 18
    one = [0.5, of_images, 2 * of_images / (1 + of_images), 0.5, share, 0.15, 0.025]
    assert table["trivial"] == pytest.approx([*one, *[2 * share / (1 + share)] * 2])
    assert {name for _, name in table["best"]} == {
        column.figure for column in table["columns"] if "oracle" not in column.heading
    }
    # Without masks nothing is said of pixels.
    result = results[RowKey("knn", SIMCLR, "")]["bottle"][0]
    rows = [row for row in summary["rows"] if row["method"] == "knn"]
    assert len(category_table("bottle", rows, result)["trivial"]) == 3


def test_many_categories_that_an_encoder_saw_are_counted(summarized):
    summary, _ = summarized
    row, few = ({**row, "encoder_started_from": ""} for row in summary["rows"][:2])
    row["encoder_saw"], few["encoder_saw"] = ", ".join("abcdef"), ", ".join("abcdef"[:MAX_NAMES])
    words = results_table({**summary, "rows": [row, few]})["encoder_saw"]
    assert words[row["name"]] == "6 other categories" and words[few["name"]] == "a, b, c, d"
    words = results_table({**summary, "rows": [{**few, "encoder_started_from": "imagenet"}]})["encoder_saw"]
    assert words[few["name"]] == "a, b, c, d (from imagenet)"


def test_decisions_stand_beside_the_trivial_and_the_published_ones(summarized):
    summary, _ = summarized
    rows = decisions_table(summary)
    assert len(rows) == len(summary["rows"]) + 2 + 1
    assert "as published" in rows[-1]["title"] and all(row["is_control"] for row in rows[-3:])
    assert [reading["positive"] for reading in rows[0]["readings"]] == ["anomaly", "good"]


def test_each_threshold_says_where_it_comes_from(summarized):
    summary, _ = summarized
    lines = thresholds_table(summary)
    assert len(lines) == len(summary["rows"])
    assert all(line["why"] and line["category"] == "bottle" for line in lines)
