"""The study as a section of Markdown, to be appended to a record such as RESULTS.md."""

import os
import platform
from collections.abc import Sequence
from datetime import date

from baselines.contract.metrics import number
from downstream.report.rows import category_auroc, controls_last, mean_figure, study_title
from downstream.report.terminal import versus_random
from downstream.study.cell import NO_ENCODER, RANDOM

FIGURES = {
    "auroc": "image AUROC",
    "balanced_accuracy": "balanced accuracy",
    "oracle_balanced_accuracy": "oracle's",
    "false_alarm_rate": "false alarms",
    "pixel_auroc": "pixel AUROC",
    "pixel_aupro": "AUPRO",
}


def as_markdown(summary: dict, heading: str) -> str:
    """Heading, date, machine and command, then a table of averages and two by category."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}"
    seeds = f"seeds {','.join(map(str, summary['seeds']))}"
    rate = f"false-alarm rate {summary['false_alarm_rate']:g}"
    rows, categories = controls_last(summary["rows"]), summary["categories"]
    paragraphs = [
        f"## {heading}",
        f"{date.today()}, {machine}, {seeds}, commit {summary['commit']}; {study_title(summary)}; {rate}",
        f"    {summary['command']}",
        markdown_table(["row", *FIGURES.values(), "over random"], [averages(row) for row in rows]),
        "Image AUROC by category:",
        markdown_table(["row", *categories], [by_category(row, categories, "auroc") for row in rows]),
        "Balanced accuracy by category:",
        markdown_table(["row", *categories], [by_category(row, categories, "balanced_accuracy") for row in rows]),
    ]
    if gains := pretraining_gains(rows):
        paragraphs.append("\n".join(gains))
    return "\n\n".join(paragraphs) + "\n"


def averages(row: dict) -> list[str]:
    """Means over categories, ± standard deviation over seeds; last the test against the random encoder."""
    return [row["name"], *(_figure(row["figures"].get(name)) for name in FIGURES), versus_random(row).strip()]


def by_category(row: dict, categories: Sequence[str], name: str) -> list[str]:
    """One figure of a row on each category."""
    figures = (row["categories"].get(category, {}).get("figures", {}) for category in categories)
    return [row["name"], *(_figure(in_category.get(name)) for in_category in figures)]


def pretraining_gains(rows: Sequence[dict]) -> list[str]:
    """For each row that has a random control: what of the control's error pretraining takes away, and where it adds."""
    lines = []
    for row in rows:
        control = next((candidate for candidate in rows if _is_control_of(candidate, row)), None)
        if control is None:
            continue
        before, after = (1 - mean_figure(side, "auroc") for side in (control, row))
        gain = {
            category: category_auroc(row, category) - category_auroc(control, category)
            for category in row["categories"]
            if category in control["categories"]
        }
        least = min(gain, key=gain.get)
        lines.append(
            f"- {row['name']}: 1 - AUROC from {before:.3f} to {after:.3f}, {1 - after / before:+.0%} cut; "
            f"the least gain on {least}, {gain[least]:+.3f}"
        )
    return lines


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(texts)} |" for texts in (header, ["---"] * len(header), *rows))


def _is_control_of(candidate: dict, row: dict) -> bool:
    is_same = all(candidate[name] == row[name] for name in ("method", "shots"))
    return is_same and candidate["encoder"] == RANDOM and row["encoder"] not in (RANDOM, NO_ENCODER)


def _figure(figure: dict | None) -> str:
    if figure is None or figure["mean"] is None:
        return "n/a"
    return number(figure["mean"]) + (f" ± {number(figure['std'])}" if figure["std"] is not None else "")
