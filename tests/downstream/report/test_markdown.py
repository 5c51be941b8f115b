"""The record of a study: what stands in it is what was computed."""

import pytest

from baselines.contract.metrics import number
from downstream.evaluate import main
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
        averages, auroc, balanced = (line for line in lines if line[0] == row["name"])
        assert averages[1].split(" ")[0] == number(row["figures"]["auroc"]["mean"])
        figures = row["categories"]["bottle"]["figures"]
        assert auroc[1].split(" ")[0] == number(figures["auroc"]["mean"])
        assert balanced[1].split(" ")[0] == number(figures["balanced_accuracy"]["mean"])


def test_what_pretraining_cuts_is_told_beside_its_least_gain():
    def row(encoder: str, a: float, b: float) -> dict:
        categories = {name: {"figures": {"auroc": {"mean": value}}} for name, value in (("a", a), ("b", b))}
        return {"name": encoder, "method": "padim", "shots": "all", "encoder": encoder, "categories": categories,
                "figures": {"auroc": {"mean": (a + b) / 2}}}  # fmt: skip

    (line,) = pretraining_gains([row("SimCLR", 0.9, 0.7), row("random", 0.6, 0.8)])
    assert "1 - AUROC from 0.300 to 0.200, +33% cut" in line
    assert "the least gain on b, -0.100" in line
    assert pretraining_gains([row("random", 0.6, 0.8)]) == []


def test_a_report_drawn_again_is_recorded_where_that_is_asked(study_folder, tmp_path, capsys):
    record = tmp_path / "RESULTS.md"
    record.write_text("# Results\n")
    main(Evaluate(out=study_folder, only_report=True, record=record, heading="Once more"))
    assert record.read_text().startswith("# Results\n\n## Once more\n")
    assert f"recorded: {record}" in capsys.readouterr().out
