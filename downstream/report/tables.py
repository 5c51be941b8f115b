"""What the report's tables show: results, decisions read both ways, and where thresholds come from."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from baselines.contract.metrics import always_anomalous
from baselines.contract.pixel_metrics import STRICT_AUPRO_LIMIT, trivial_pixels
from downstream.report.rows import best_figures, category_auroc, mean_figure, row_title
from downstream.study.cell import CellResult


class Column(NamedTuple):
    """A column of the main table; its highest value is marked where high is good."""

    heading: str
    figure: str
    is_marked: bool


MAIN_COLUMNS = (
    Column("image AP", "average_precision", True),
    Column("balanced accuracy", "balanced_accuracy", True),
    Column("oracle bal. acc.", "oracle_balanced_accuracy", False),
    Column("precision", "precision", True),
    Column("recall", "recall", False),
    Column("F1", "f1", True),
    Column("false alarms", "false_alarm_rate", False),
    Column("pixel AUROC", "pixel_auroc", True),
    Column("pixel AP", "pixel_average_precision", True),
    Column("AUPRO", "pixel_aupro", True),
    Column("AUPRO 5 %", "pixel_aupro_5", True),
    Column("IoU", "pixel_iou", True),
)
# Of one category: what papers and data sets compare by. Only figures at a threshold that was set before are decisions;
# F1-max is the best that any threshold does on these very images.
CATEGORY_COLUMNS = (
    Column("image AUROC", "auroc", True),
    Column("image AP", "average_precision", True),
    Column("oracle image F1", "oracle_f1", False),
    Column("pixel AUROC", "pixel_auroc", True),
    Column("pixel AP", "pixel_average_precision", True),
    Column("AUPRO 30 %", "pixel_aupro", True),
    Column("AUPRO 5 %", "pixel_aupro_5", True),
    Column("sPRO 5 %", "pixel_spro", True),
    Column("AUPIMO", "pixel_aupimo", True),
    Column("SegF1", "pixel_f1", True),
    Column("oracle pixel F1", "pixel_oracle_f1", False),
)
# More categories than these are told by their number.
MAX_NAMES = 4


def results_table(summary: dict) -> dict:
    """The main table: its columns, the rows by family, controls last, and which values are the highest."""
    rows = summary["rows"]
    marked = ["auroc", *(column.figure for column in MAIN_COLUMNS if column.is_marked)]
    return {
        "columns": MAIN_COLUMNS,
        "families": _by_family(rows),
        "best": best_figures(rows, marked),
        "encoder_saw": {row["name"]: _in_short(row["encoder_saw"]) + _start(row) for row in rows},
        "by_category": {row["name"]: _by_category(row, summary["categories"]) for row in rows},
        "best_in_category": best_figures(rows, summary["categories"], category_auroc),
    }


def category_table(category: str, rows: Sequence[dict], result: CellResult) -> dict:
    """The rows on one category, and the trivial answer: everything called anomalous alike. `result` is of one of them
    that has maps, where one has."""

    def figure_of(row: dict, name: str) -> float | None:
        return mean_figure(row["categories"][category], name)

    trivial = always_anomalous(result.labels)._asdict()
    if share := result.pixel.get("defective_share"):
        pixels = trivial_pixels(share)._asdict() | {"aupimo": 0.0, "spro": STRICT_AUPRO_LIMIT / 2}
        trivial |= {f"pixel_{name}": value for name, value in pixels.items()}
    columns = [
        column
        for column in CATEGORY_COLUMNS
        if not column.figure.startswith("pixel_") or any(figure_of(row, column.figure) is not None for row in rows)
    ]
    names = [column.figure for column in columns]
    return {
        "columns": columns,
        "rows": [(row, [figure_of(row, name) for name in names]) for row in rows],
        "trivial": [trivial.get(name) for name in names],
        "best": best_figures(rows, [column.figure for column in columns if column.is_marked], figure_of),
    }


def decisions_table(summary: dict) -> list[dict]:
    """Precision and recall in both readings, beside the trivial answers and what was published."""
    published = summary["published"]
    named = [(row_title(row), row) for row in summary["rows"]]
    named += [(row["title"], {**row, "is_control": True}) for row in summary["trivial"]]
    named.append((f"{published['name']} (on {published['on']})", {**published, "is_control": True}))
    return [{"title": title, "readings": row["readings"], "is_control": row["is_control"]} for title, row in named]


def thresholds_table(summary: dict) -> list[dict]:
    """The first seed's threshold of every row and category, with the rule that set it."""
    lines = []
    for row in summary["rows"]:
        for category, of_category in row["categories"].items():
            threshold = next(iter(of_category["thresholds"].values()))
            lines.append({
                "title": row_title(row),
                "is_control": row["is_control"],
                "category": category,
                "value": threshold["value"],
                "why": threshold["why"],
                "false_alarm_rate": of_category["figures"]["false_alarm_rate"]["mean"],
            })  # fmt: skip
    return lines


def _start(row: dict) -> str:
    start = row.get("encoder_started_from")  # studies from before encoder files said so have none
    return f" (from {start})" if start else ""


def _by_category(row: dict, categories: Iterable[str]) -> list[dict]:
    return [
        {
            "category": category,
            "auroc": category_auroc(row, category),
            "interval": row["categories"].get(category, {}).get("interval"),
        }
        for category in categories
    ]


def _by_family(rows: Iterable[dict]) -> list[tuple[str, list[dict]]]:
    """The controls last."""
    families: dict[str, list[dict]] = {}
    for row in rows:
        families.setdefault(row["family"], []).append(row)
    return sorted(families.items(), key=lambda family: family[1][0]["is_control"])


def _in_short(names: str) -> str:
    """A few categories by name, more by number; all are told under 'How it was made'."""
    count = names.count(", ") + 1
    return f"{count} other categories" if count > MAX_NAMES else names
