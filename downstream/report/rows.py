"""Rows of a study's summary in words and numbers: what the page, the terminal and Markdown share."""

from collections.abc import Callable, Iterable, Sequence

from baselines.contract.metrics import number
from downstream.study.cell import RowKey


def study_title(summary: dict) -> str:
    """'demo data (data/demo), held-out: 3 test categories, 1 seed, --quick'."""
    count, seeds = len(summary["categories"]), len(summary["seeds"])
    quick = ", --quick" if summary["quick"] else ""
    return (f"{summary['data']}, {summary['protocol']}: {count} test categor{'y' if count == 1 else 'ies'}, "
            f"{seeds} seed{'' if seeds == 1 else 's'}{quick}")  # fmt: skip


def row_variant(row: dict) -> str:
    """What tells rows of one method apart: 'SimCLR, 4 normals'."""
    return ", ".join(words for words in (row["encoder"], row["saw"] if row["shots"] else "") if words)


def row_title(row: dict) -> str:
    """'PaDiM, SimCLR, 4 normals'."""
    return ", ".join(words for words in (row["title"], row_variant(row)) if words)


def key_of(row: dict) -> RowKey:
    """What the row's cells are found by."""
    return RowKey(row["method"], row["encoder"], row["shots"])


def mean_figure(row: dict, name: str) -> float | None:
    """A figure's mean over categories and seeds."""
    return row["figures"].get(name, {"mean": None})["mean"]


def category_auroc(row: dict, category: str) -> float | None:
    """A row's image AUROC on one category; none where it has none."""
    return mean_figure(row["categories"][category], "auroc") if category in row["categories"] else None


def signed(value: float) -> str:
    """A difference as tables show it: +.012, -.300."""
    rounded = round(value, 3)
    return ("-" if rounded < 0 else "+") + number(abs(rounded))


def signed_interval(interval: Sequence[float]) -> str:
    """'-.004 to +.027'."""
    return " to ".join(map(signed, interval))


def p_value(p: float) -> str:
    """'p = .210', 'p < .001'."""
    return "p < .001" if p < 0.001 else f"p = {number(p)}"


def without_controls(rows: Iterable[dict]) -> list[dict]:
    """Without the controls, which only show what little it takes."""
    return [row for row in rows if not row["is_control"]]


def controls_last(rows: Iterable[dict]) -> list[dict]:
    """The rows in their order, those of controls behind the others."""
    return sorted(rows, key=lambda row: row["is_control"])


def best_figures(
    rows: Iterable[dict], names: Iterable[str], figure_of: Callable[[dict, str], float | None] = mean_figure
) -> set[tuple[str, str]]:
    """(row, name) of the highest values, as three digits show them, among rows that are no controls. Names are those
    of figures, or with `category_auroc` of categories."""
    best = set()
    for name in names:
        figures = {row["name"]: figure_of(row, name) for row in without_controls(rows)}
        values = {row: round(value, 3) for row, value in figures.items() if value is not None}
        best |= {(row, name) for row, value in values.items() if value == max(values.values())}
    return best
