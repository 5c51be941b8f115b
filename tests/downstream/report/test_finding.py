"""The report's first sentence, in every case; and the highest row."""

import pytest

from downstream.report.finding import difference_text, main_finding, rows_sentence, start_sentence, start_table
from downstream.study.cell import RANDOM, SIMCLR


def test(difference: float, low: float, high: float, p: float | None) -> dict:
    interval = None if p is None else [low, high]
    return {"difference": difference, "interval": interval, "p": p, "p_holm": p}


test.__test__ = False  # it is no test, but the outcome of one


def summary(overall: dict, rows: int = 1, categories: str = "nut", starts: str = "ImageNet", **counts: int) -> dict:
    in_categories = dict.fromkeys(categories.split(","), overall)
    counts = {"rows": rows, "better": 0, "worse": 0, **counts}
    return {"versus_start": {**overall, "categories": in_categories, "starts": starts.split(","), **counts}}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (summary(test(0.012, -0.004, 0.027, 0.21)),
         ("added +.012 AUROC to its start, ImageNet, on nut (95 % interval -.004 to +.027, p = .210): not shown.",)),
        (summary(test(0.07, 0.05, 0.09, 1e-5), rows=6, categories="nut,pill,tire", starts="random weights"),
         ("added +.070 AUROC to its start, random weights, on average over 6 rows and 3 categories",
          " (95 % interval +.050 to +.090, p < .001 after Holm): shown.")),
        (summary(test(-0.02, -0.035, -0.005, 0.01), rows=2),
         ("took .020 AUROC from its start, ImageNet, on average over 2 rows on nut",
          " (95 % interval -.035 to -.005, p = .010 after Holm): a loss.")),
        (summary(test(-0.004, -0.02, 0.01, 0.6), categories="nut,pill"),
         ("took .004 AUROC from its start, ImageNet, on average over 2 categories",
          " (95 % interval -.020 to +.010, p = .600): not shown.")),
        (summary(test(-0.0001, -0.001, 0.001, 0.9)),
         ("added +.000 AUROC to its start, ImageNet, on nut (95 % interval -.001 to +.001, p = .900): not shown.",)),
    ],
    ids=["gain", "clear-gain", "clear-loss", "loss", "nothing"],
)  # fmt: skip
def test_the_sentence_says_what_was_added_and_whether_it_is_shown(found, words):
    assert start_sentence(found) == "SimCLR " + "".join(words)


def test_a_single_defective_image_is_said_to_allow_no_test():
    sentence = start_sentence(summary(test(0.1, 0, 0, None), starts="ImageNet,a.pth"))
    assert sentence.startswith(
        "What SimCLR adds to its start cannot be said here: it differs from ImageNet or a.pth by "
    )
    assert "+.100 AUROC on nut" in sentence and sentence.endswith("image allows no test.")


FILE = {"file": "e.safetensors", "start": {"name": "ImageNet", "row": "ImageNet", "note": ""}}
GONE = {
    **FILE,
    "start": {"name": "a.pth", "row": None, "note": "e.safetensors started from a.pth, which is not at hand"},
}


@pytest.mark.parametrize(
    ("encoders", "rows", "reason"),
    [
        ([], [{"encoder": "random"}], "no SimCLR encoder was given."),
        ([{"file": "e.safetensors"}], [{"encoder": SIMCLR}], "planned when starts were not recorded"),
        ([GONE], [{"encoder": SIMCLR}], "e.safetensors started from a.pth, which is not at hand."),
        ([FILE], [{"encoder": ""}], "none of the finished rows uses an encoder."),
        ([FILE], [{"encoder": "random"}], "no row with the SimCLR encoder is finished."),
        ([FILE], [{"encoder": SIMCLR}], "no category with good and defective test images"),
    ],
)
def test_without_a_comparison_the_sentence_says_why(encoders, rows, reason):
    sentence = start_sentence({"versus_start": None, "encoders": encoders, "rows": rows})
    assert sentence.startswith("What SimCLR adds to its start cannot be said here: ") and reason in sentence
    assert rows_sentence({"versus_start": None}) == ""


def test_several_rows_are_counted():
    found = summary(test(0.02, 0.01, 0.03, 0.001), rows=5, better=2, worse=1)
    assert rows_sentence(found) == (
        "Row by row, 2 of 5 gained beyond chance, 1 lost, and 2 cannot be told from their start."
    )
    assert rows_sentence(summary(test(0.02, 0.01, 0.03, 0.001))) == ""


def test_the_sentence_is_of_the_studys_figures(summarized):
    found, _ = summarized
    mean = sum(row["versus_start"]["difference"] for row in found["rows"] if row["versus_start"]) / 3
    assert found["versus_start"]["difference"] == pytest.approx(mean)
    assert "its start, random weights, on average over 3 rows on bottle" in start_sentence(found)


def test_the_table_has_a_line_for_each_row_and_one_for_their_mean(summarized):
    found, _ = summarized
    lines = start_table(found)
    assert [line["name"] for line in lines[:-1]] == [row["name"] for row in found["rows"] if row["versus_start"]]
    assert lines[-1]["name"] == "mean of 3 rows" and lines[-1]["tests"][None] is found["versus_start"]
    assert all(list(line["tests"]) == ["bottle", None] for line in lines)
    assert start_table({"versus_start": None}) == []


def test_a_difference_has_its_interval_and_a_star_where_it_is_clear():
    assert difference_text(test(0.1, 0.05, 0.15, 0.001)) == "+.100 (+.050 to +.150)*"
    assert difference_text(test(0.1, -0.05, 0.15, 0.3)) == "+.100 (-.050 to +.150)"
    assert difference_text(test(0.1, 0, 0, None)) == "+.100" and difference_text(None) == ""


def test_the_highest_row_stands_beside_its_random_control(summarized):
    found, _ = summarized
    rows = [row for row in found["rows"] if not row["is_control"]]
    finding = main_finding(found)
    assert finding["best"] is max(rows, key=lambda row: row["figures"]["auroc"]["mean"])
    assert finding["rows"] == len(rows)
    simclr = [row for row in rows if row["encoder"] == SIMCLR]
    best = main_finding({**found, "rows": simclr})
    assert best["start_auroc"] == pytest.approx(
        next(
            row["figures"]["auroc"]["mean"]
            for row in rows
            if row["name"] == best["best"]["name"].replace(SIMCLR, RANDOM)
        )
    )
    assert main_finding({**found, "rows": []}) is None
