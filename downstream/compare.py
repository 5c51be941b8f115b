"""Two studies side by side: what changed, and whether it can be told from chance.

    python downstream/compare.py --first runs/study --second runs/study-longer

Rows that both have are compared on the categories and seeds that both have. Where both tested the very same images,
the difference is tested in pairs.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from downstream.study.config import Compare
    from pretrain.command import start

    start("downstream.compare:main", Compare)

import sys
from collections.abc import Mapping

import numpy as np
from rich.console import Console
from rich.table import Table

from baselines.contract.metrics import number
from downstream.report.terminal import WIDTH
from downstream.study.cell import CellResult, RowKey
from downstream.study.config import Compare
from downstream.study.figures import won_by
from downstream.study.record import Results, read_results, read_study
from downstream.study.significance import difference, holm
from pretrain.command import UserError
from pretrain.files import write_json

# What a reader must know before taking a difference for that of the methods.
SETTINGS = (
    "data",
    "protocol",
    "folds",
    "seeds",
    "size_px",
    "false_alarm_rate",
    "quick",
    "commit",
    "versions",
    "machine",
)


def main(config: Compare) -> None:
    """Print the rows that both have, and the settings that differ."""
    folders = (config.first, config.second)
    studies = [read_study(folder) for folder in folders]
    results = [read_results(folder, study["cells"])[0] for folder, study in zip(folders, studies, strict=True)]
    rows = compare_rows(*results)
    if not rows:
        raise UserError(f"{config.first} and {config.second} have no row, category and seed in common.")
    settings = differing_settings(*studies)
    print_table(rows, config)
    for name, (first, second) in settings.items():
        print(f"differs: {name}: {first} | {second}")
    if config.json:
        write_json(config.json, {"rows": rows, "differs": settings})
        print(f"comparison: {config.json}")


def compare_rows(first: Results, second: Results) -> list[dict]:
    """For each row that both have: mean image AUROC of both over common categories and seeds, the difference, its p
    where the same images were tested, and p after Holm's correction."""
    common = [_compare_row(row, first[row], second[row]) for row in first if row in second]
    rows = [row for row in common if row is not None]
    tested = [row for row in rows if row["p"] is not None]
    for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p_holm"] = p
    return rows


def differing_settings(first: dict, second: dict) -> dict[str, tuple]:
    """The settings in which two studies differ, and the encoders by their fingerprints."""
    described = [
        {name: study[name] for name in SETTINGS}
        | {"encoders": sorted(encoder["fingerprint"] for encoder in study["encoders"])}
        for study in (first, second)
    ]
    pairs = {name: (described[0][name], described[1][name]) for name in described[0]}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def print_table(rows: list[dict], config: Compare) -> None:
    """The comparison on a terminal, 100 columns where the output is piped."""
    table = Table(title="image AUROC on what both have", pad_edge=False)
    for header in ("row", "categories", "first", "second", "second - first", "p (Holm)"):
        table.add_column(header, justify="left" if header == "row" else "right", no_wrap=True)
    for row in rows:
        p = number(row["p_holm"]) if row["p"] is not None else "other images"
        figures = (number(row["first"]), number(row["second"]), f"{row['difference']:+.3f}", p)
        table.add_row(row["row"], str(len(row["categories"])), *figures)
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)
    print(f"first: {config.first}\nsecond: {config.second}")


def _compare_row(
    row: RowKey, first: Mapping[str, Mapping[int, CellResult]], second: Mapping[str, Mapping[int, CellResult]]
) -> dict | None:
    """One row of both studies; none where they have no category and seed in common."""
    pairs, names, is_same = [], [], True
    for category in sorted(first.keys() & second.keys()):
        seeds = sorted(first[category].keys() & second[category].keys())
        if not seeds:
            continue
        pair = [won_by({seed: study[category][seed] for seed in seeds}) for study in (first, second)]
        if any(matrix is None for matrix in pair):
            continue
        pairs.append(pair)
        names.append(category)
        # The test is of pairs: both must have scored the very same images, in the same order.
        is_same &= first[category][seeds[0]].paths == second[category][seeds[0]].paths
    if not pairs:
        return None
    means = [float(np.mean([pair[side].mean() for pair in pairs])) for side in (0, 1)]
    tested = difference([pair[1] for pair in pairs], [pair[0] for pair in pairs]) if is_same else None
    return {
        "row": row.name,
        "categories": sorted(names),
        "first": means[0],
        "second": means[1],
        "difference": means[1] - means[0],
        "p": tested and tested.p,
    }
