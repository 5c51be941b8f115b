"""The page: self-contained, complete, and safe whatever a folder is called."""

import copy
import re

import pytest

from downstream.report.page import main_finding, write_report


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


def test_the_finding_is_the_highest_row_and_its_control(page, summarized):
    summary, _ = summarized
    rows = [row for row in summary["rows"] if not row["is_control"]]
    best = max(rows, key=lambda row: row["figures"]["auroc"]["mean"])
    finding = main_finding(summary)
    assert finding["best"] is best and finding["rows"] == len(rows)
    assert finding["better"] + finding["worse"] + finding["undecided"] == finding["tested"] == 3
    lead = page[page.index('<p class="lead">') : page.index("Guessing has 0.5.")]
    for words in (
        best["title"],
        f"{best['figures']['auroc']['mean']:.3f}",
        best["saw"],
        "The same with random weights",
    ):
        assert words in lead
    assert main_finding({**summary, "rows": []}) is None
