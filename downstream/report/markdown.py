"""The study as a section of Markdown, to be appended to a record such as RESULTS.md."""

import os
import platform
from collections.abc import Sequence
from datetime import date

from baselines.contract.metrics import number
from downstream.report.terminal import title, versus
from downstream.study.cell import NONE, RANDOM

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
    metadata = (
        f"{date.today()}, {os.cpu_count()} cores, {platform.machine()}, seeds {','.join(map(str, summary['seeds']))}"
    )
    rows = sorted(summary["rows"], key=lambda row: row["is_control"])
    categories = summary["categories"]
    parts = [
        f"## {heading}",
        f"{metadata}, commit {summary['commit']}; {title(summary)}; rate {summary['false_alarm_rate']:g}",
        f"    {summary['command']}",
        table(["row", *FIGURES.values(), "over random"], [averages(row) for row in rows]),
        "Image AUROC by category:",
        table(["row", *categories], [by_category(row, categories, "auroc") for row in rows]),
        "Balanced accuracy by category:",
        table(["row", *categories], [by_category(row, categories, "balanced_accuracy") for row in rows]),
        *cut_lines(rows),
    ]
    return "\n\n".join(parts) + "\n"


def averages(row: dict) -> list[str]:
    """Means over categories, ± standard deviation over seeds; the last cell is the test against the random encoder."""
    return [row["name"], *(_figure(row["figures"].get(name)) for name in FIGURES), versus(row).strip()]


def by_category(row: dict, categories: Sequence[str], name: str) -> list[str]:
    found = (row["categories"].get(category) for category in categories)
    return [row["name"], *(_figure(one and one["figures"][name]) for one in found)]


def cut_lines(rows: Sequence[dict]) -> list[str]:
    """For each row that has a random control: what of the control's error pretraining takes away, and where it adds."""
    lines = []
    for row in rows:
        control = next((one for one in rows if _is_control_of(one, row)), None)
        if control is None:
            continue
        before, after = (1 - one["figures"]["auroc"]["mean"] for one in (control, row))
        change = {
            name: found["figures"]["auroc"]["mean"] - control["categories"][name]["figures"]["auroc"]["mean"]
            for name, found in row["categories"].items()
            if name in control["categories"]
        }
        worst = min(change, key=change.get)
        lines.append(
            f"- {row['name']}: 1 - AUROC from {before:.3f} to {after:.3f}, {1 - after / before:+.0%} cut; "
            f"the least gain on {worst}, {change[worst]:+.3f}"
        )
    return ["\n".join(lines)] if lines else []


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _is_control_of(one: dict, row: dict) -> bool:
    same = all(one[name] == row[name] for name in ("method", "shots"))
    return same and one["encoder"] == RANDOM and row["encoder"] not in (RANDOM, NONE)


def _figure(figure: dict | None) -> str:
    if figure is None or figure["mean"] is None:
        return "n/a"
    return number(figure["mean"]) + (f" ± {number(figure['std'])}" if figure["std"] is not None else "")
