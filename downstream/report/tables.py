"""The report's tables: results, decisions in both readings, where thresholds come from, time and memory."""

from collections.abc import Iterable, Sequence
from html import escape

from baselines.contract.metrics import number
from downstream.report.html import auroc_in, figure, full_name, line, table, value_of, words

# Heading, figure, and whether the highest one is marked.
MAIN_COLUMNS = (
    ("image AP", "average_precision", True),
    ("balanced accuracy", "balanced_accuracy", True),
    ("oracle bal. acc.", "oracle_balanced_accuracy", False),
    ("precision", "precision", True),
    ("recall", "recall", False),
    ("F1", "f1", True),
    ("false alarms", "false_alarm_rate", False),
    ("pixel AUROC", "pixel_auroc", True),
    ("pixel AP", "pixel_average_precision", True),
    ("AUPRO", "pixel_aupro", True),
    ("IoU", "pixel_iou", True),
)
FIRST_COLUMNS = ("method, encoder, what it saw of the tested product", "image AUROC", "95 % interval",
                 "minus random encoder")  # fmt: skip
# More categories than these are told by their number.
MAX_NAMES = 4


def results_section(summary: dict) -> str:
    """The main table, and image AUROC by category."""
    best = best_values(summary["rows"], ["auroc", *(name for _, name, is_marked in MAIN_COLUMNS if is_marked)])
    headings = (*FIRST_COLUMNS, *(heading for heading, _, _ in MAIN_COLUMNS), "its encoder saw")
    lines = []
    for family, rows in _by_family(summary["rows"]):
        lines.append(f'<tr class="family"><th colspan="{len(headings)}">{escape(family)}</th></tr>')
        lines += [_main_line(row, best) for row in rows]
    for row in summary["trivial"]:
        figures = [figure(value_of(row, name)) for _, name, _ in MAIN_COLUMNS]
        cells = [figure(value_of(row, "auroc")), "<td></td><td></td>", *figures, words("no encoder")]
        lines.append(line(row["title"], cells, is_control=True, more="saw nothing"))
    return (
        f'<h2 id="results">Results</h2>{table(headings, lines)}<p class="note">Means over test categories, ± standard '
        "deviation over seeds; ● marks the highest of a column among rows that are no controls. Intervals: 95 % of "
        "test sets drawn again from these images. Minus random encoder: the difference to the same row with an "
        "untrained encoder of the same architecture and seeds, with p of DeLong's paired test after Holm's correction "
        "over all such rows; it says whether further images of these products would show it, not whether other "
        f"products would. Decisions are taken at a threshold that was set for "
        f"{summary['false_alarm_rate']:.0%} false alarms from "
        "normals alone; 'oracle' is the best that any threshold could do on these very test images. On test sets "
        "with mostly defective images calling everything anomalous has a high F1: look at AUROC and balanced "
        "accuracy first.</p>"
        f"<h3>By category</h3>{_category_table(summary)}"
    )


def restoration_section(summary: dict) -> str:
    """The restorers' own table; nothing where there is none."""
    restored = summary["restoration"]
    if not restored:
        return ""
    lines = [line(row[0], [f"<td>{escape(cell)}</td>" for cell in row[1:]]) for row in restored["rows"]]
    return (
        f'<h2 id="restoration">Restoration</h2><p class="note">{escape(restored["lead"])}</p>'
        f"{table(restored['columns'], lines)}"
        f'<p class="note">{escape(restored["note"])}</p>'
    )


def decisions_section(summary: dict) -> str:
    """Precision and recall in both readings, beside what was published."""
    rows = [(full_name(row), row["readings"], row["is_control"]) for row in summary["rows"]]
    rows += [(row["title"], row["readings"], True) for row in summary["trivial"]]
    published = summary["published"]
    rows.append((f"{published['name']} (on {published['on']})", published["readings"], True))
    lines = []
    for name, readings, is_control in rows:
        for reading in readings:
            names = ("accuracy", "balanced_accuracy", "precision", "recall", "f1")
            cells = [words(reading["positive"]), *(figure(reading[key]) for key in names)]
            lines.append(line(name if reading is readings[0] else "", cells, is_control))
    headings = ("row", "positive class", "accuracy", "balanced accuracy", "precision", "recall", "F1")
    return (
        '<h2 id="decisions">Decisions, read both ways</h2><p>All decisions of all categories and seeds in one matrix. '
        "Which kind of image is called positive changes precision, recall and F1: a figure from elsewhere compares "
        "only with the same reading. The last row is published, not measured here, and on the images that it names."
        f"</p>{table(headings, lines)}"
    )


def thresholds_section(summary: dict) -> str:
    """Where each threshold comes from, in the words of the rule that set it."""
    lines = []
    for row in summary["rows"]:
        for category, found in row["categories"].items():
            one = next(iter(found["thresholds"].values()))
            false_alarm_rate = figure(found["figures"]["false_alarm_rate"]["mean"])
            cells = [words(category), f"<td>{one['value']:.4g}</td>", false_alarm_rate, words(one["why"])]
            lines.append(line(full_name(row), cells, row["is_control"]))
    headings = ("row", "category", "threshold", "false alarms on test", "where it comes from (first seed)")
    return (
        '<h2 id="thresholds">Where thresholds come from</h2><p>From normals that are no test images, for '
        f"{summary['false_alarm_rate']:.0%} false alarms: of the product's own, each left out in turn, "
        "where a method has eight or "
        "more; else of the training categories.</p>"
        f"<details><summary>{len(lines)} thresholds</summary>{table(headings, lines)}</details>"
    )


def cost_section(summary: dict) -> str:
    """Time and memory of each row."""
    lines = []
    for row in summary["rows"]:
        cost = row["cost"]
        memory = f"{cost['peak_mb']:.0f}" if cost["peak_mb"] is not None else "n/a"
        texts = (f"{cost['fit_s']:.2f}", f"{cost['refer_s']:.2f}", f"{cost['predict_ms']:.1f}", memory)
        lines.append(line(full_name(row), (f"<td>{text}</td>" for text in texts), row["is_control"]))
    headings = ("row", "learning, s", "taking in normals, s", "one image, ms", "peak memory, MB")
    return (
        '<h2 id="cost">Time and memory</h2><p class="note">Means over parts, wall-clock, on '
        f"{escape(summary['machine'])}; other work on the machine counts in. Memory is the highest of the whole "
        f"process, with torch and the images, while a part was computed.</p>{table(headings, lines)}"
    )


def best_values(rows: Iterable[dict], names: Sequence[str]) -> set[tuple[str, str]]:
    """(row, figure) of the highest values, as three digits show them, among rows that are no controls."""
    best = set()
    for name in names:
        shown = {row["name"]: value_of(row, name) for row in rows if not row["is_control"]}
        values = {row: round(value, 3) for row, value in shown.items() if value is not None}
        best |= {(row, name) for row, value in values.items() if value == max(values.values())}
    return best


def _main_line(row: dict, best: set[tuple[str, str]]) -> str:
    auroc, interval, control = row["figures"]["auroc"], row["interval"], row["control"]
    deviation = f" <small>±{number(auroc['std'])}</small>" if auroc["std"] is not None else ""
    apart = ""
    if control:
        style = ("better" if control["difference"] > 0 else "worse") if control["p_holm"] < 0.05 else ""
        p = "&lt; .001" if control["p_holm"] < 0.001 else number(control["p_holm"])
        apart = f'<span class="{style}">{control["difference"]:+.3f}</span> <small>p {p}</small>'
    cells = [
        figure(auroc["mean"], (row["name"], "auroc") in best, deviation),
        f"<td><small>{' to '.join(map(number, interval)) if interval else 'n/a'}</small></td>",
        f"<td>{apart}</td>",
        *(figure(value_of(row, name), (row["name"], name) in best) for _, name, _ in MAIN_COLUMNS),
        words(_in_short(row["encoder_saw"]), row["encoder_saw"]),
    ]
    encoder = f"{row['encoder']} encoder, " if row["encoder"] else ""
    return line(row["title"], cells, row["is_control"], f"{encoder}saw {row['saw']}")


def _category_table(summary: dict) -> str:
    lines, highest = [], {}
    for category in summary["categories"]:
        values = [auroc_in(row, category) for row in summary["rows"] if not row["is_control"]]
        highest[category] = max((round(value, 3) for value in values if value is not None), default=None)
    for row in summary["rows"]:
        cells = []
        for category in summary["categories"]:
            value = auroc_in(row, category)
            is_best = value is not None and not row["is_control"] and round(value, 3) == highest[category]
            interval = row["categories"].get(category, {}).get("interval")
            spread = f" <small>[{' '.join(map(number, interval))}]</small>" if interval else ""
            cells.append(figure(value, is_best, spread))
        lines.append(line(full_name(row), [*cells, figure(value_of(row, "auroc"))], row["is_control"]))
    return table(("image AUROC", *map(escape, summary["categories"]), "mean"), lines)


def _by_family(rows: Iterable[dict]) -> list[tuple[str, list[dict]]]:
    """The controls last."""
    families: dict[str, list[dict]] = {}
    for row in rows:
        families.setdefault(row["family"], []).append(row)
    return sorted(families.items(), key=lambda item: item[1][0]["is_control"])


def _in_short(names: str) -> str:
    """A few categories by name, more by number; all are told under 'How it was made'."""
    count = names.count(", ") + 1
    return f"{count} other categories" if count > MAX_NAMES else names
