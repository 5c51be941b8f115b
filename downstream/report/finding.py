"""What a study found, in words: first what SimCLR added to what it started from, then the highest row."""

from baselines.contract.metrics import number
from downstream.report.rows import mean_figure, p_value, signed, signed_interval, without_controls
from downstream.study.cell import RANDOM, SIMCLR
from downstream.study.significance import is_clear

CANNOT_BE_SAID = "What SimCLR adds to its start cannot be said here: "


def start_sentence(summary: dict) -> str:
    """The report's first sentence: the mean difference of image AUROC between SimCLR's rows and their start, with its
    interval and p; or why there is none."""
    test = summary["versus_start"]
    if test is None:
        return CANNOT_BE_SAID + _why_untested(summary)
    start = " or ".join(test["starts"])
    where = _averaged_over(test)
    if test["p"] is None:
        return (f"{CANNOT_BE_SAID}it differs from {start} by {signed(test['difference'])} AUROC{where}, and a category "
                "with a single good or defective image allows no test.")  # fmt: skip
    value = round(test["difference"], 3)
    verb = f"took {number(-value)} AUROC from" if value < 0 else f"added {signed(value)} AUROC to"
    corrected = " after Holm" if test["rows"] > 1 else ""  # one row is one test
    evidence = f"95 % interval {signed_interval(test['interval'])}, {p_value(test['p_holm'])}{corrected}"
    verdict = "not shown" if not is_clear(test) else "a loss" if value < 0 else "shown"
    return f"SimCLR {verb} its start, {start},{where} ({evidence}): {verdict}."


def rows_sentence(summary: dict) -> str:
    """How many rows SimCLR makes better or worse, each by itself; nothing where one row is all there is."""
    test = summary["versus_start"]
    if test is None or test["rows"] < 2:
        return ""
    undecided = test["rows"] - test["better"] - test["worse"]
    return (f"Row by row, {test['better']} of {test['rows']} gained beyond chance, {test['worse']} lost, and "
            f"{undecided} cannot be told from their start.")  # fmt: skip


def main_finding(summary: dict) -> dict | None:
    """The highest image AUROC among rows that are no controls, and those of the same row with random weights and, if it
    is SimCLR's, with its start. None where no AUROC is defined."""
    rows = [row for row in without_controls(summary["rows"]) if mean_figure(row, "auroc") is not None]
    if not rows:
        return None
    best = max(rows, key=lambda row: mean_figure(row, "auroc"))
    random = [row for row in rows if (row["method"], row["shots"], row["encoder"]) ==
              (best["method"], best["shots"], RANDOM) and row is not best]  # fmt: skip
    test = best["versus_start"]
    has_start = test is not None and test["categories"].keys() == best["categories"].keys()
    return {
        "best": best,
        "start_auroc": mean_figure(best, "auroc") - test["difference"] if has_start else None,
        "rows": len(rows),
        "random_auroc": mean_figure(random[0], "auroc") if random else None,
    }


def start_table(summary: dict) -> list[dict]:
    """SimCLR against its start, by category: a line for each row, and one for their mean where there are several. Each
    has its name, its row, and the tests by category; the one over all categories has the name None."""
    overall = summary["versus_start"]
    if overall is None:
        return []
    rows = [row for row in summary["rows"] if row["versus_start"]]
    lines = [(row["name"], row, row["versus_start"]) for row in rows]
    if len(rows) > 1:
        lines.append((f"mean of {len(rows)} rows", None, overall))
    return [{"name": name, "row": row, "tests": {**test["categories"], None: test}} for name, row, test in lines]


def difference_text(test: dict | None) -> str:
    """'+.012 (-.004 to +.027)*', the star where chance is unlikely; nothing where there is no such difference."""
    if test is None:
        return ""
    star = "*" if is_clear(test) else ""
    return signed(test["difference"]) + (f" ({signed_interval(test['interval'])})" if test["interval"] else "") + star


def _averaged_over(test: dict) -> str:
    """' on average over 6 rows and 3 categories', ' on bottle'."""
    names = list(test["categories"])
    counts = ((test["rows"], "rows"), (len(names), "categories"))
    over = " and ".join(f"{count} {what}" for count, what in counts if count > 1)
    return (f" on average over {over}" if over else "") + (f" on {names[0]}" if len(names) == 1 else "")


def _why_untested(summary: dict) -> str:
    """Why no row with the SimCLR encoder has a start beside it."""
    if not summary["encoders"]:
        return "no SimCLR encoder was given."
    unsaid = [file for file in summary["encoders"] if "start" not in file]
    if unsaid:
        return "the study was planned when starts were not recorded; run its command again, finished cells are kept."
    if notes := [file["start"]["note"] for file in summary["encoders"] if file["start"]["row"] is None]:
        return "; ".join(notes) + "."
    if not any(row["encoder"] for row in summary["rows"]):
        return "none of the finished rows uses an encoder."
    if not any(row["encoder"] == SIMCLR for row in summary["rows"]):
        return "no row with the SimCLR encoder is finished."
    return "no category with good and defective test images is finished both with SimCLR and with its start."
