"""What the report shows of one test category: curves, score histograms, confusion matrices, defects, images."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from baselines.contract.metrics import image_figures
from downstream.report.charts import COLORS, Curve, histogram, roc_chart, roc_points
from downstream.report.gallery import MAX_IMAGES, OUTCOMES, SHOWN_EACH, gallery
from downstream.report.rows import category_auroc, key_of, without_controls
from downstream.report.tables import category_table
from downstream.study.cell import IMAGENET, RANDOM, START, CellResult
from downstream.study.record import Results

DASHES = {RANDOM: " dashed", IMAGENET: " long-dashed", START: " long-dashed"}


def category_section(category: str, summary: dict, results: Results) -> dict:
    """All that is known of one test category, for its template; `counts` is none where no cell is finished."""
    rows = [row for row in summary["rows"] if category in row["categories"]]
    counts = summary["images"].get(category)
    section = {"name": category, "counts": counts if rows else None}
    if not rows or counts is None:
        return section
    curves = _curves(category, rows, results) if counts["good"] and counts["defective"] else []
    first_results = {row["name"]: _first(results[key_of(row)][category]) for row in rows}
    section |= {
        "curves": curves,
        "chart": roc_chart(curves, f"{category}: found defects over false alarms") if curves else "",
        "cards": [_card(row, first_results[row["name"]]) for row in without_controls(rows)],
        "table": category_table(category, rows, _with_pixels(first_results.values())),
        "rows": rows,
        "defects": list(rows[0]["categories"][category]["defects"]),
    }
    return section | _galleries(category, rows, first_results, summary)


def _curves(category: str, rows: Sequence[dict], results: Results) -> list[Curve]:
    """Of each method with as many references as it was given at most; other encoders than SimCLR's dashed."""
    curves, colors = [], {}
    for row in rows:
        most_shots = [other["shots"] for other in rows if other["method"] == row["method"]][-1]
        if row["shots"] != most_shots or (row["is_control"] and row["method"] != "frame"):
            continue
        color = f"c{colors.setdefault(row['method'], len(colors) % COLORS)}"
        style = "dotted c7" if row["is_control"] else color + DASHES.get(row["encoder"], "")
        by_seed = results[key_of(row)][category]
        labels = next(iter(by_seed.values())).labels
        points = roc_points(labels, np.stack([result.scores for result in by_seed.values()]))
        curves.append(Curve(", ".join(words for words in (row["title"], row["encoder"]) if words), style, points))
    return curves


def _card(row: dict, result: CellResult) -> dict:
    """Scores and decisions of one row, of its first seed."""
    figures = image_figures(result.labels, result.scores, result.threshold.value)
    label = "scores of good images above, of defective ones below"
    return {
        "row": row,
        "figures": figures,
        "histogram": histogram(result.labels, result.scores, result.threshold.value, label),
    }


def _galleries(category: str, rows: Sequence[dict], first_results: dict[str, CellResult], summary: dict) -> dict:
    """The rows that there is room for, those with maps first, then by their image AUROC, and how many are left out."""
    ranked = sorted(
        without_controls(rows),
        key=lambda row: (first_results[row["name"]].maps is None, -(category_auroc(row, category) or 0)),
    )
    room = max(1, MAX_IMAGES // (len(summary["categories"]) * SHOWN_EACH * len(OUTCOMES)))
    folder, masks = Path(summary["folder"]), summary["masks"]
    return {
        "galleries": [(row, gallery(first_results[row["name"]], folder, masks)) for row in ranked[:room]],
        "left_out": max(0, len(ranked) - room),
    }


def _with_pixels(results: Iterable[CellResult]) -> CellResult:
    """One that has pixel figures, where one has."""
    return max(results, key=lambda result: bool(result.pixel))


def _first(by_seed: dict[int, CellResult]) -> CellResult:
    return by_seed[min(by_seed)]
