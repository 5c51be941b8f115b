"""The study on a terminal: what fits a hundred columns, best values marked."""

import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from baselines.contract.metrics import number
from downstream.report.finding import rows_sentence, start_sentence, start_table
from downstream.report.rows import best_figures, category_auroc, controls_last, signed, study_title
from downstream.study.cell import NO_ENCODER
from downstream.study.significance import ALPHA, is_clear
from downstream.study.warnings import failure_warnings

COLUMNS = {
    "auroc": "image\nAUROC",
    "interval": "95 %\ninterval",
    "balanced_accuracy": "bal.\nacc.",
    "pixel_aupro": "pixel\nAUPRO",
}
WIDTH = 100
MAX_CATEGORIES = 5  # so many columns fit beside the rows' names


def print_tables(summary: dict) -> None:
    """What SimCLR added to its start, the main table, the tables by category, restorers, and warnings."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    console.print(f"{start_sentence(summary)} {rows_sentence(summary)}".strip(), style="bold", markup=False)
    console.print(main_table(summary))
    console.print(
        "means over categories, ± standard deviation over seeds; interval: bootstrap over test images; vs start, "
        "vs random: AUROC minus that of what the SimCLR encoder started from, and of random weights, * where p < "
        f"{ALPHA} after Holm",
        style="dim",
        markup=False,
    )
    console.print(categories_table(summary))
    if summary["versus_start"]:
        console.print(differences_table(summary))
    if restoration := summary["restoration"]:
        console.print(restoration_table(restoration))
        console.print(f"{restoration['lead']} {restoration['note']}", style="dim", markup=False)
    for warning in [*summary["warnings"], *failure_warnings(summary["failures"])]:
        console.print(f"warning: {warning}", markup=False)


def main_table(summary: dict) -> Table:
    """Every row with its figures, controls and trivial answers dimmed below."""
    table = Table(title=escape(study_title(summary)), pad_edge=False)
    table.add_column("\nmethod")
    table.add_column("\nencoder", no_wrap=True)
    table.add_column("saw of the\ncategory", no_wrap=True)
    for header in COLUMNS.values():
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("vs\nstart", justify="right", no_wrap=True)
    table.add_column("vs\nrandom", justify="right", no_wrap=True)
    best = best_figures(summary["rows"], [name for name in COLUMNS if name != "interval"])
    for row in controls_last(summary["rows"]):
        texts = {name: _figure(row, name) for name in COLUMNS}
        marked = [f"[bold]{text}[/]" if (row["name"], name) in best else text for name, text in texts.items()]
        encoder = row["encoder"] if row["encoder"] != NO_ENCODER else "-"
        style = "dim" if row["is_control"] else None
        tests = (versus(row["versus_start"]), versus(row["versus_random"]))
        table.add_row(escape(row["title"]), encoder, row["saw"], *marked, *tests, style=style)
    for trivial in summary["trivial"]:
        figures = [_figure(trivial, name) for name in COLUMNS]
        table.add_row(trivial["title"], "-", "nothing", *figures, "", "", style="dim")
    return table


def categories_table(summary: dict) -> Table:
    """Image AUROC, a column for each of the first test categories."""
    shown, more = _first_categories(summary)
    table = Table(title=f"image AUROC by category{more}", pad_edge=False)
    table.add_column("row", no_wrap=True)
    for category in shown:
        table.add_column(escape(category), justify="right", no_wrap=True)
    for row in controls_last(summary["rows"]):
        values = (number(category_auroc(row, category)) for category in shown)
        table.add_row(escape(row["name"]), *values, style="dim" if row["is_control"] else None)
    return table


def differences_table(summary: dict) -> Table:
    """SimCLR minus its start, a column for each of the first test categories; intervals stand in the report."""
    shown, more = _first_categories(summary)
    table = Table(title=f"SimCLR minus its start, image AUROC by category{more}", pad_edge=False)
    table.add_column("row", no_wrap=True)
    for category in [*shown, "mean"]:
        table.add_column(escape(category), justify="right", no_wrap=True)
    for line in start_table(summary):
        table.add_row(escape(line["name"]), *(versus(line["tests"].get(name)) for name in [*shown, None]))
    return table


def restoration_table(restoration: dict) -> Table:
    """The restorers, a row each; the first column names them."""
    table = Table(title="restorers", padding=(0, 0, 0, 1))
    for number_of, heading in enumerate(restoration["columns"]):
        longest = max(map(len, heading.split()))  # headings break between words alone
        table.add_column(heading, justify="right" if number_of else "left", min_width=longest)
    for row in restoration["rows"]:
        table.add_row(*(text.replace(" ±", "\n±") for text in row))
    return table


def versus(test: dict | None) -> str:
    """AUROC minus that of the same row with a control's encoder, with a star where chance is unlikely."""
    if test is None:
        return ""
    return signed(test["difference"]) + ("*" if is_clear(test) else " ")


def _first_categories(summary: dict) -> tuple[list[str], str]:
    """Those that there is room for, and how many more there are, in words."""
    shown = summary["categories"][:MAX_CATEGORIES]
    more = len(summary["categories"]) - len(shown)
    return shown, f" ({more} more in the report)" if more else ""


def _figure(row: dict, name: str) -> str:
    if name == "interval":
        return " ".join(number(end, 2) for end in row["interval"]) if row.get("interval") else ""
    figure = row["figures"].get(name, {"mean": None, "std": None})
    deviation = f"±{number(figure['std'])}" if name == "auroc" and figure["std"] is not None else ""
    return number(figure["mean"]) + deviation
