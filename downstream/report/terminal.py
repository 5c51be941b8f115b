"""The study on a terminal: what fits a hundred columns, best values marked."""

import sys

from baselines.contract.metrics import number
from downstream.study.cell import NONE
from downstream.study.summary import failure_lines

COLUMNS = {
    "auroc": "image\nAUROC",
    "interval": "95 %\ninterval",
    "balanced_accuracy": "bal.\nacc.",
    "f1": "\nF1",
    "pixel_aupro": "pixel\nAUPRO",
}
WIDTH = 100


def print_tables(summary: dict) -> None:
    """The main table, what the rows are tested against, restorers, and warnings."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    console.print(main_table(summary))
    console.print(
        "means over categories, ± standard deviation over seeds; interval: bootstrap over test images; vs random: "
        "AUROC minus that of the random encoder, * where p < 0.05 after Holm",
        style="dim",
        markup=False,
    )
    console.print(categories_table(summary))
    if restored := summary["restoration"]:
        console.print(restoration_table(restored))
        console.print(f"{restored['lead']} {restored['note']}", style="dim", markup=False)
    for warning in summary["warnings"]:
        console.print(f"warning: {warning}", markup=False)
    for line in failure_lines(summary["failures"]):
        console.print(f"warning: {line}", markup=False)


def restoration_table(restored: dict):
    from rich.table import Table

    table = Table(title="restorers", pad_edge=False)
    for place, heading in enumerate(restored["columns"]):
        table.add_column(heading, justify="right" if place else "left", overflow="fold")
    for row in restored["rows"]:
        table.add_row(*row)
    return table


def main_table(summary: dict):
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title(summary)), pad_edge=False)
    table.add_column("\nmethod")
    table.add_column("\nencoder", no_wrap=True)
    table.add_column("saw of the\ncategory", no_wrap=True)
    for header in COLUMNS.values():
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("vs\nrandom", justify="right", no_wrap=True)
    best = best_values(summary)
    for row in sorted(summary["rows"], key=lambda row: row["is_control"]):
        cells = [f"[bold]{cell}[/]" if (row["name"], name) in best else cell for name, cell in _cells(row)]
        table.add_row(escape(row["title"]), row["encoder"] if row["encoder"] != NONE else "-", row["saw"], *cells,
                      versus(row), style="dim" if row["is_control"] else None)  # fmt: skip
    for trivial in summary["trivial"]:
        table.add_row(trivial["title"], "-", "nothing", *(cell for _, cell in _cells(trivial)), "", style="dim")
    return table


def categories_table(summary: dict):
    """Image AUROC, a column for each test category; of many, below each other is not needed: terminals wrap."""
    from rich.markup import escape
    from rich.table import Table

    shown = summary["categories"][:5]
    more = len(summary["categories"]) - len(shown)
    table = Table(title="image AUROC by category" + (f" ({more} more in the report)" if more else ""), pad_edge=False)
    table.add_column("row", no_wrap=True)
    for category in shown:
        table.add_column(escape(category), justify="right", no_wrap=True)
    for row in sorted(summary["rows"], key=lambda row: row["is_control"]):
        found = [row["categories"].get(category) for category in shown]
        values = [number(one["figures"]["auroc"]["mean"]) if one else "n/a" for one in found]
        table.add_row(escape(row["name"]), *values, style="dim" if row["is_control"] else None)
    return table


def title(summary: dict) -> str:
    count = len(summary["categories"])
    seeds = len(summary["seeds"])
    quick = ", --quick" if summary["quick"] else ""
    return (f"{summary['data']}, {summary['protocol']}: {count} test categor{'y' if count == 1 else 'ies'}, "
            f"{seeds} seed{'' if seeds == 1 else 's'}{quick}")  # fmt: skip


def best_values(summary: dict) -> set[tuple[str, str]]:
    """(row, figure) of the highest values, as far as two digits show, among rows that are no controls."""
    best = set()
    rows = [row for row in summary["rows"] if not row["is_control"]]
    for name in COLUMNS:
        if name == "interval":
            continue
        values = {row["name"]: row["figures"][name]["mean"] for row in rows if row["figures"][name]["mean"] is not None}
        if values:
            highest = round(max(values.values()), 3)
            best |= {(row, name) for row, value in values.items() if round(value, 3) == highest}
    return best


def versus(row: dict) -> str:
    control = row["control"]
    if control is None:
        return ""
    return f"{control['difference']:+.3f}{'*' if control['p_holm'] < 0.05 else ' '}"


def _cells(row: dict) -> list[tuple[str, str]]:
    cells = []
    for name in COLUMNS:
        figure = row["figures"].get(name, {"mean": None, "std": None})
        text = number(figure["mean"])
        if name == "auroc" and figure["std"] is not None:
            text += f"±{number(figure['std'])}"
        if name == "interval":
            text = " ".join(number(end, 2) for end in row["interval"]) if row.get("interval") else ""
        cells.append((name, text))
    return cells
