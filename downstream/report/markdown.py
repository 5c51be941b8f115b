"""The study as a section of Markdown, to be appended to a record such as RESULTS.md."""

import os
import platform
from collections.abc import Sequence
from datetime import date
from statistics import mean

from baselines.contract.metrics import number
from downstream.report.finding import difference_text, rows_sentence, start_sentence, start_table
from downstream.report.rows import category_auroc, controls_last, signed, study_title
from downstream.report.terminal import versus
from downstream.study.cell import NO_ENCODER, RANDOM

FIGURES = {
    "auroc": "image AUROC",
    "balanced_accuracy": "balanced accuracy",
    "oracle_balanced_accuracy": "oracle's",
    "false_alarm_rate": "false alarms",
    "pixel_auroc": "pixel AUROC",
    "pixel_average_precision": "pixel AP",
    "pixel_aupro": "AUPRO",
    "pixel_aupro_5": "AUPRO 5 %",
}


def as_markdown(summary: dict, heading: str) -> str:
    """Heading, what SimCLR added to its start, date, machine and command, a table of averages and those by category."""
    machine = f"{os.cpu_count()} cores, {platform.machine()}"
    seeds = f"seeds {','.join(map(str, summary['seeds']))}"
    rate = f"false-alarm rate {summary['false_alarm_rate']:g}"
    rows, categories = controls_last(summary["rows"]), summary["categories"]
    paragraphs = [
        f"## {heading}",
        f"{start_sentence(summary)} {rows_sentence(summary)}".strip(),
        f"{date.today()}, {machine}, {seeds}, commit {summary['commit']}; {study_title(summary)}; {rate}",
        f"    {summary['command']}",
        markdown_table(["row", *FIGURES.values(), "over its start", "over random"], [averages(row) for row in rows]),
        "Image AUROC by category:",
        markdown_table(["row", *categories], [by_category(row, categories, "auroc") for row in rows]),
        "Balanced accuracy by category:",
        markdown_table(["row", *categories], [by_category(row, categories, "balanced_accuracy") for row in rows]),
    ]
    if lines := start_table(summary):
        header = ["row", *categories, "mean"]
        body = [[line["name"], *(difference_text(line["tests"].get(name)) for name in [*categories, None])]
                for line in lines]  # fmt: skip
        starts = " or ".join(summary["versus_start"]["starts"])
        lead = f"SimCLR against its start, by category: image AUROC minus that of {starts} (95 % interval), * where "
        paragraphs += [lead + "p < .05 after Holm:", markdown_table(header, body)]
    if gains := pretraining_gains(rows):
        paragraphs.append("\n".join(gains))
    return "\n\n".join(paragraphs) + "\n"


def averages(row: dict) -> list[str]:
    """Means over categories, ± standard deviation over seeds; last the tests against the start and random weights."""
    tests = (versus(row["versus_start"]).strip() or row["start_note"] and "not tested", versus(row["versus_random"]))
    return [row["name"], *(_figure(row["figures"].get(name)) for name in FIGURES), *map(str.strip, tests)]


def by_category(row: dict, categories: Sequence[str], name: str) -> list[str]:
    """One figure of a row on each category."""
    figures = (row["categories"].get(category, {}).get("figures", {}) for category in categories)
    return [row["name"], *(_figure(in_category.get(name)) for in_category in figures)]


def pretraining_gains(rows: Sequence[dict]) -> list[str]:
    """What of the error of its start, and of its random control, each row takes away, and where it adds least."""
    lines = []
    for row in rows:
        if row["versus_start"]:
            tests = row["versus_start"]["categories"]
            gain = {category: test["difference"] for category, test in tests.items()}
            lines.append(_gain_line(row, "its start", gain))
        control = next((candidate for candidate in rows if _is_control_of(candidate, row)), None)
        if control is not None:
            common = [category for category in row["categories"] if category in control["categories"]]
            aurocs = {name: (category_auroc(row, name), category_auroc(control, name)) for name in common}
            gain = {name: ours - theirs for name, (ours, theirs) in aurocs.items() if ours is not None}
            lines += [_gain_line(row, "random weights", gain)] if gain else []
    return lines


def _gain_line(row: dict, control: str, gain: dict[str, float]) -> str:
    after = 1 - mean(category_auroc(row, category) for category in gain)
    before = after + mean(gain.values())
    least = min(gain, key=gain.get)
    cut = f", {1 - after / before:+.0%} cut" if before > 1e-9 else ""  # nothing is left to cut
    return (f"- {row['name']} against {control}: 1 - AUROC from {before:.3f} to {after:.3f}{cut}; "
            f"the least gain on {least}, {signed(gain[least])}")  # fmt: skip


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(texts)} |" for texts in (header, ["---"] * len(header), *rows))


def _is_control_of(candidate: dict, row: dict) -> bool:
    is_same = all(candidate[name] == row[name] for name in ("method", "shots"))
    return is_same and candidate["encoder"] == RANDOM and row["encoder"] not in (RANDOM, NO_ENCODER)


def _figure(figure: dict | None) -> str:
    if figure is None or figure["mean"] is None:
        return "n/a"
    return number(figure["mean"]) + (f" ± {number(figure['std'])}" if figure["std"] is not None else "")
