"""The figures of restorers as one table, wherever it is shown: means and deviations over seeds."""

import json
import math
from collections.abc import Sequence
from statistics import mean, stdev
from typing import TYPE_CHECKING, NamedTuple

import torch

from baselines.restoration.evaluation import DEGRADED, FIGURES
from pretrain.data.dataset import data_name
from pretrain.degrade import in_words
from pretrain.encoder import commit

if TYPE_CHECKING:
    from downstream.restore import Study

JUDGED_FILE = "judged.json"
COLUMNS = ("restored by", "PSNR", "SSIM", "PSNR in mask", "SSIM in mask", "inflated", "defects found",
           "s a megapixel", "steps", "minutes")  # fmt: skip


class RestorationTable(NamedTuple):
    """What was compared and how, a row of texts for each of `columns`, and how they are to be read."""

    lead: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str


def restoration_table(config: "Study", rows: Sequence[str], seeds: Sequence[int]) -> RestorationTable:
    """Of the cells in `config.out`, all of which are finished."""
    cells = {
        row: [json.loads((config.out / f"{row}-seed-{seed}" / JUDGED_FILE).read_text()) for seed in seeds]
        for row in rows
    }
    first = cells[rows[0]]
    lead = (
        f"Tested on {config.test} ({data_name(config.data)}), which nothing was trained on; "
        f"learned from {config.train} with synthetic anomalies. {config.input_size} px, "
        f"{torch.get_num_threads()} threads, seeds {', '.join(map(str, seeds))}, commit {(commit() or '')[:7]}. "
        f"Degradation, {in_words(config.level)}."
    )
    note = (
        "Defects found: image AUROC of PaDiM, which refers to clean good images; on the clean test images it is "
        f"{_spread([cell['found']['clean'] for cell in first], 3)}. Inflated: PSNR with what is outside the mask "
        "counted as restored, as the original publishes it."
    )
    shown = [_row("degraded input", first, DEGRADED), *(_row(row, cells[row], "restored") for row in rows)]
    return RestorationTable(lead, COLUMNS, shown, note)


def markdown_lines(table: RestorationTable) -> list[str]:
    """The table as lines of Markdown."""
    ruled = ["| " + " | ".join(row) + " |" for row in (table.columns, *table.rows)]
    return [table.lead, "", ruled[0], "| --- " * len(table.columns) + "|", *ruled[1:], "", table.note]


def _row(name: str, cells: Sequence[dict], who: str) -> list[str]:
    def figure(key: str) -> str:
        return _spread([cell["by"][who][key]["value"] for cell in cells], 2 if "psnr" in key else 3)

    shown = [name, *(figure(key) for key in FIGURES[:5]), _spread([cell["found"][who] for cell in cells], 3)]
    if who == DEGRADED:
        return [*shown, "", "", ""]
    shown.append(f"{mean(cell['seconds_per_megapixel'] for cell in cells):.2f}")
    return [*shown, f"{mean(cell['steps'] for cell in cells):.0f}", f"{mean(cell['minutes'] for cell in cells):.1f}"]


def _spread(values: Sequence[float | None], digits: int) -> str:
    known = [value for value in values if value is not None and math.isfinite(value)]
    spread = f" ± {stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{mean(known):.{digits}f}{spread}" if known else "n/a"
