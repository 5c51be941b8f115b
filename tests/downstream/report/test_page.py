"""The page: self-contained, complete, and safe whatever a folder is called."""

import copy
import re
import shutil

import pytest

from downstream.compare import main as compare
from downstream.report.finding import main_finding, start_sentence
from downstream.report.markdown import as_markdown
from downstream.report.page import write_report
from downstream.report.rows import signed_interval
from downstream.report.terminal import print_tables
from downstream.study.cell import read_cell, write_cell
from downstream.study.config import Compare
from downstream.study.record import read_study
from downstream.study.summary import summarize

OLD_FIGURES = ("auroc", "average_precision", "aupro", "iou", "defective_share")


@pytest.fixture(scope="module")
def page(study_folder) -> str:
    return (study_folder / "report.html").read_text()


def test_page_needs_nothing_from_elsewhere(page):
    assert "<script" not in page and "<link" not in page and "@import" not in page
    sources = re.findall(r'(?:src|href)="([^"]{1,40})', page)
    assert sources and all(source.startswith(("data:image/jpeg;base64,", "#")) for source in sources)
    assert "url(" not in page and "http" not in page.replace("http://www.w3.org", "")


def test_page_says_what_a_reader_must_know(page, summarized):
    summary, _ = summarized
    assert "demo data" in page and "prefers-color-scheme: dark" in page
    for words in (summary["command"].split()[1], "AUPRO 5 %", "oracle pixel F1", "SegF1",
                  "everything called anomalous", "VGG16-CAM as published", "always anomalous", "saw 2 normals",
                  "random encoder", summary["encoders"][0]["fingerprint"], "Holm"):  # fmt: skip
        assert words in page, words
    for row in summary["rows"]:
        assert row["title"] in page


def test_restorers_have_a_table_of_their_own(page, summarized, tmp_path):
    summary, results = summarized
    assert 'id="restoration"' not in page
    table = {"lead": "<i>", "columns": ["restored by", "PSNR"], "rows": [["sadnet", "31.00"]], "note": "how to read it"}
    write_report({**summary, "restoration": table}, results, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert 'href="#restoration"' in text and "31.00" in text and "how to read it" in text and "<i>" not in text


def test_every_test_category_has_curves_decisions_and_images(page, summarized):
    summary, results = summarized
    rows = [row for row in summary["rows"] if not row["is_control"]]
    assert page.count('class="roc"') == len(summary["categories"]) == 1
    assert page.count('class="histogram"') == page.count('class="confusion"') == len(rows)
    assert page.count('class="gallery"') == len(rows)
    assert page.count("data:image/jpeg") >= 3 * len(rows)


HOSTILE = '"><script>alert(1)</script>'


def test_whatever_comes_from_outside_is_escaped(summarized, tmp_path):
    """Names of data, categories, defects, files, methods and encoders, warnings, and the command."""
    summary, results = copy.deepcopy(summarized)
    summary |= {"data": HOSTILE, "warnings": [HOSTILE], "command": HOSTILE, "machine": HOSTILE, "commit": HOSTILE,
                "categories": [HOSTILE], "images": {HOSTILE: summary["images"]["bottle"]}}  # fmt: skip
    summary["encoders"][0] |= {"file": HOSTILE, "data": HOSTILE, "saw": [HOSTILE]}
    summary["folds"] = [{"test": HOSTILE, "train": [HOSTILE]}]
    for row in summary["rows"]:
        in_category = row["categories"].pop("bottle")
        in_category["defects"] = dict.fromkeys([HOSTILE], in_category["defects"]["scratch"])
        in_category["thresholds"]["0"]["why"] = HOSTILE
        row["categories"][HOSTILE] = in_category
        row |= {"title": HOSTILE, "family": HOSTILE, "encoder_saw": HOSTILE}
    for by_category in results.values():
        by_category[HOSTILE] = by_category.pop("bottle")
        for result in by_category[HOSTILE].values():
            result.paths, result.defects = ([HOSTILE] * len(result.paths) for _ in range(2))
    write_report(summary, results, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "<script" not in text and HOSTILE not in text
    assert text.count("&lt;script&gt;") > 50


def test_a_name_that_is_not_utf8_is_shown_with_question_marks(summarized, tmp_path):
    summary, results = summarized
    write_report({**summary, "data": "caf\udce9"}, results, tmp_path / "report.html")
    assert "caf?" in (tmp_path / "report.html").read_text()


def test_the_page_begins_with_what_simclr_added_and_then_names_the_highest_row(page, summarized):
    summary, _ = summarized
    first, second = re.findall(r'<p class="lead">\s*(.*?)\s*</p>', page, re.DOTALL)
    assert first.startswith(f"<b>{start_sentence(summary)}</b>")
    best = main_finding(summary)["best"]
    for words in (
        best["title"],
        f"{best['figures']['auroc']['mean']:.3f}",
        best["saw"],
        "The same with random weights",
    ):
        assert words in second
    assert page.index('<p class="lead">') < page.index("<table")


def test_simclr_stands_against_its_start_by_category(page, summarized, tmp_path):
    summary, results = summarized
    table = page[page.index('<h3 id="start">') :]
    table = table[: table.index("</table>")]
    assert 'href="#start"' in page and "image AUROC minus that of random weights" in table
    assert table.count('scope="row"') == 4 and "mean of 3 rows" in table
    tested = [row["versus_start"] for row in summary["rows"] if row["versus_start"]]
    for test in [*tested, summary["versus_start"]]:
        assert f"[{signed_interval(test['categories']['bottle']['interval'])}]" in table
    rows = [{**row, "versus_start": None, "start_note": "gone.pth is gone" if row["versus_start"] else ""}
            for row in summary["rows"]]  # fmt: skip
    write_report({**summary, "rows": rows, "versus_start": None}, results, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert 'id="start"' not in text and text.count('title="gone.pth is gone"') == 3


def test_a_study_from_before_aupro_to_5_percent_is_reported_and_compared(study_folder, tmp_path, capsys):
    folder = shutil.copytree(study_folder, tmp_path / "study")
    for file in folder.glob("cells/bottle/*"):
        result = read_cell(file)
        result.pixel = {name: value for name, value in result.pixel.items() if name in OLD_FIGURES}
        write_cell(result, file)
    summary, results = summarize(folder, read_study(folder))
    write_report(summary, results, tmp_path / "report.html")
    print_tables(summary)
    texts = (tmp_path / "report.html").read_text(), capsys.readouterr().out
    assert all("some cells were computed by an earlier version" in " ".join(text.split()) for text in texts)
    assert "AUPRO 30 %" in texts[0] and "SegF1</th>" not in texts[0]
    lines = as_markdown(summary, "Old").splitlines()
    (header,) = (line for line in lines if line.startswith("| row | image AUROC"))
    (row,) = (line for line in lines if line.startswith("| padim-SimCLR-all-normals |") and line.count("|") > 9)
    by_name = dict(zip(header.split(" | "), row.split(" | "), strict=True))
    assert by_name["AUPRO 5 %"] == "n/a" != by_name["AUPRO"]
    compare(Compare(study_folder, folder))
    assert capsys.readouterr().out.count("+0.000") == len(summary["rows"])


def test_a_study_from_before_starts_were_recorded_is_still_reported(study, study_folder, tmp_path, capsys):
    old = copy.deepcopy(study)
    for encoder in old["encoders"]:
        del encoder["start"], encoder["started_from"]
    summary, results = summarize(study_folder, old)
    write_report(summary, results, tmp_path / "report.html")
    print_tables(summary)
    texts = ((tmp_path / "report.html").read_text(), as_markdown(summary, "Old"), capsys.readouterr().out)
    for text in texts:
        assert "the study was planned when starts were not recorded" in " ".join(text.split())
