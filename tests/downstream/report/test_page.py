"""The page: self-contained, complete, and safe whatever a folder is called."""

import copy
import json
import re

import pytest

from downstream.report.page import answer, write_report
from downstream.study.summary import summarize


@pytest.fixture(scope="module")
def page(study_folder) -> str:
    return (study_folder / "report.html").read_text()


@pytest.fixture(scope="module")
def summarized(study_folder):
    return summarize(study_folder, json.loads((study_folder / "study.json").read_text()))


def test_page_needs_nothing_from_elsewhere(page):
    assert "<script" not in page and "<link" not in page and "@import" not in page
    sources = re.findall(r'(?:src|href)="([^"]{1,40})', page)
    assert sources and all(source.startswith(("data:image/jpeg;base64,", "#")) for source in sources)
    assert "url(" not in page and "http" not in page.replace("http://www.w3.org", "")


def test_page_says_what_a_reader_must_know(page, summarized):
    summary, _ = summarized
    assert "demo data" in page and "prefers-color-scheme: dark" in page
    for words in (summary["command"].split()[1], "VGG16-CAM as published", "always anomalous", "saw 2 normals",
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
    judged = [row for row in summary["rows"] if not row["is_control"]]
    assert page.count('class="roc"') == len(summary["categories"]) == 1
    assert page.count('class="histogram"') == page.count('class="confusion"') == len(judged)
    assert page.count('class="gallery"') == len(judged)
    assert page.count("data:image/jpeg") >= 3 * len(judged)


def test_names_are_escaped(summarized, tmp_path):
    summary, results = summarized
    spoilt = copy.deepcopy(summary)
    spoilt["data"], spoilt["warnings"] = "<b>data</b>", ["<script>alert(1)</script>"]
    write_report(spoilt, results, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "<script>" not in text and "<b>data</b>" not in text
    assert "&lt;script&gt;" in text


def test_answer_names_the_highest_row_and_its_control(summarized):
    summary, _ = summarized
    rows = [row for row in summary["rows"] if not row["is_control"]]
    best = max(rows, key=lambda row: row["figures"]["auroc"]["mean"])
    words = answer(summary)
    assert best["title"] in words and f"{best['figures']['auroc']['mean']:.3f}" in words and best["saw"] in words
