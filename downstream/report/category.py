"""The report's part on one test category: curves, score histograms, confusion matrices, kinds of defect, images."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from baselines.contract.metrics import image_figures, number
from downstream.report.charts import COLORS, Line, confusion, histogram, roc_chart, roc_points
from downstream.report.gallery import EACH, MAX_IMAGES, OUTCOMES, gallery
from downstream.report.html import auroc_in, figure, full_name, line, table, which
from downstream.study.cell import RANDOM, Result, Row
from downstream.study.summary import Results


def category_section(category: str, summary: dict, results: Results) -> str:
    """All that is known of one test category."""
    rows = [row for row in summary["rows"] if category in row["categories"]]
    count = summary["images"].get(category)
    place = summary["categories"].index(category)
    head = f'<h2 id="c{place}">{escape(category)}</h2>'
    if not rows or count is None:
        return head + '<p class="note">No part of this category is finished.</p>'
    demo = "Demo data: " if summary["is_demo"] else ""
    lines = _curves(category, rows, results) if count["good"] and count["defective"] else []
    chart = roc_chart(lines, f"{category}: found defects over false alarms") if lines else ""
    cards = "".join(_card(row, category, results) for row in rows if not row["is_control"])
    return (
        f'{head}<p class="faint">{demo}{count["good"]} good and {count["defective"]} defective test images. Curves '
        "are means over seeds; histograms, matrices and images are of the first seed.</p>"
        f'<div class="charts"><div>{chart}</div><div class="rows">{cards}</div></div>'
        f"{_kinds(category, rows)}{_galleries(category, summary, results)}"
    )


def _curves(category: str, rows: Sequence[dict], results: Results) -> list[Line]:
    """Of each method with as many references as it was given at most; its random-encoder control dashed."""
    lines, colors = [], {}
    for row in rows:
        widest = [other["shots"] for other in rows if other["method"] == row["method"]][-1]
        if row["shots"] != widest or (row["is_control"] and row["method"] != "frame"):
            continue
        color = f"c{colors.setdefault(row['method'], len(colors) % COLORS)}"
        style = "dotted c7" if row["is_control"] else color + " dashed" * (row["encoder"] == RANDOM)
        by_seed = results[_key(row)][category]
        labels = next(iter(by_seed.values())).labels
        points = roc_points(labels, np.stack([result.scores for result in by_seed.values()]))
        lines.append(Line(", ".join(part for part in (row["title"], row["encoder"]) if part), style, points))
    return lines


def _card(row: dict, category: str, results: Results) -> str:
    """Scores and decisions of one row."""
    result = _first(results[_key(row)][category])
    found = image_figures(result.labels, result.scores, result.threshold.value)
    label = "scores of good images above, of defective ones below"
    chart = histogram(result.labels, result.scores, result.threshold.value, label)
    matrix = confusion(found.true_good, found.false_alarms, found.missed, found.found)
    details = ", ".join(part for part in (which(row), f"AUROC {number(found.auroc)}") if part)
    return f'<div class="card"><h5>{escape(row["title"])} <span>{escape(details)}</span></h5>{chart}{matrix}</div>'


def _kinds(category: str, rows: Sequence[dict]) -> str:
    kinds = list(rows[0]["categories"][category]["kinds"])
    if not kinds:
        return ""
    lines = [
        line(
            full_name(row),
            (figure(row["categories"][category]["kinds"][kind]["mean"]) for kind in kinds),
            row["is_control"],
        )
        for row in rows
    ]
    headings = ("image AUROC of one kind against all good", *map(escape, kinds))
    summary = f"{escape(category)}: by kind of defect <span>{escape(', '.join(kinds))}</span>"
    return f"<details><summary>{summary}</summary>{table(headings, lines)}</details>"


def _galleries(category: str, summary: dict, results: Results) -> str:
    """The rows that there is room for, those with maps first, then by their image AUROC; the first is open."""
    rows = [row for row in summary["rows"] if category in row["categories"] and not row["is_control"]]
    firsts = {row["name"]: _first(results[_key(row)][category]) for row in rows}
    rows.sort(key=lambda row: (firsts[row["name"]].maps is None, -(auroc_in(row, category) or 0)))
    room = max(1, MAX_IMAGES // (len(summary["categories"]) * EACH * len(OUTCOMES)))
    parts = []
    for row in rows[:room]:
        inside = gallery(firsts[row["name"]], Path(summary["folder"]), summary["masks"])
        name = f"{escape(row['title'])} <span>{escape(which(row))}</span>"
        is_open = " open" if row is rows[0] else ""
        parts.append(f"<details{is_open}><summary>{name}</summary><div>{inside}</div></details>")
    more = f" {len(rows) - room} further rows are left out to keep the page small." if len(rows) > room else ""
    return (
        f"<h4>{escape(category)}: right and wrong, image by image</h4>"
        '<p class="note">Left the image, with a blue line around the true defect where it is known; right its heat. '
        "The scale is the threshold, the same for all images of a row: nothing is colored below half of it, orange "
        "begins at it, twice the threshold is brightest; white contours and red boxes mark what lies above it."
        f"{more}</p>{''.join(parts)}"
    )


def _key(row: dict) -> Row:
    return Row(row["method"], row["encoder"], row["shots"])


def _first(by_seed: dict[int, Result]) -> Result:
    return by_seed[min(by_seed)]
