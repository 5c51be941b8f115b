"""The record of a study: what stands in it is what was computed."""

import shutil

import pytest

from baselines.contract.metrics import number
from downstream.evaluate import main
from downstream.report.finding import start_sentence
from downstream.report.markdown import as_markdown, pretraining_gains
from downstream.study.config import Evaluate


@pytest.fixture(scope="module")
def summary(summarized) -> dict:
    return summarized[0]


def texts(line: str) -> list[str]:
    return [text.strip() for text in line.strip("|").split("|")]


def test_every_row_stands_in_all_tables_with_its_figures(summary):
    text = as_markdown(summary, "A study")
    assert text.startswith("## A study\n")
    assert f"    {summary['command']}\n" in text and summary["commit"] in text and "demo data" in text
    lines = [texts(line) for line in text.splitlines() if line.startswith("|")]
    for row in summary["rows"]:
        averages, auroc, balanced, *_ = (line for line in lines if line[0] == row["name"])
        assert averages[1].split(" ")[0] == number(row["figures"]["auroc"]["mean"])
        figures = row["categories"]["bottle"]["figures"]
        assert auroc[1].split(" ")[0] == number(figures["auroc"]["mean"])
        assert balanced[1].split(" ")[0] == number(figures["balanced_accuracy"]["mean"])


def test_what_pretraining_cuts_is_told_beside_its_least_gain():
    def row(encoder: str, a: float, b: float) -> dict:
        categories = {name: {"figures": {"auroc": {"mean": value}}} for name, value in (("a", a), ("b", b))}
        return {"name": encoder, "method": "padim", "shots": "all", "encoder": encoder, "categories": categories,
                "versus_start": None}  # fmt: skip

    (line,) = pretraining_gains([row("SimCLR", 0.9, 0.7), row("random", 0.6, 0.8)])
    assert "against random weights: 1 - AUROC from 0.300 to 0.200, +33% cut" in line
    assert "the least gain on b, -.100" in line
    assert pretraining_gains([row("random", 0.6, 0.8)]) == []
    started = row("SimCLR", 0.9, 0.7) | {
        "versus_start": {"categories": {"a": {"difference": 0.06}, "b": {"difference": 0}}}
    }
    (line,) = pretraining_gains([started])
    assert "against its start: 1 - AUROC from 0.230 to 0.200, +13% cut; the least gain on b, +.000" in line
    assert "cut" not in pretraining_gains([row("SimCLR", 1, 1), row("random", 1, 1)])[0]


def test_the_first_sentence_is_what_simclr_added_and_a_table_shows_it_by_category(summary):
    text = as_markdown(summary, "A study")
    assert text.split("\n\n")[1].startswith(start_sentence(summary))
    lines = text[text.index("SimCLR against its start, by category") :].splitlines()[2:]
    assert texts(lines[0]) == ["row", "bottle", "mean"]
    names = [row["name"] for row in summary["rows"] if row["versus_start"]]
    assert [texts(line)[0] for line in lines[2:6]] == [*names, "mean of 3 rows"]
    assert all(texts(line)[1].startswith(("+", "-")) and " to " in line for line in lines[2:6])


def test_a_report_drawn_again_is_recorded_where_that_is_asked(study_folder, tmp_path, capsys):
    out, record = shutil.copytree(study_folder, tmp_path / "study"), tmp_path / "RESULTS.md"
    record.write_text("# Results\n")
    main(Evaluate(out=out, only_report=True, record=record, heading="Once more"))
    assert record.read_text().startswith("# Results\n\n## Once more\n")
    assert f"recorded: {record}" in capsys.readouterr().out
