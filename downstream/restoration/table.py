"""The figures of restorers as one table for terminal, report and Markdown: means and deviations over seeds."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import torch

from baselines.restoration.evaluation import DEGRADED, FIGURES
from downstream.restoration.config import RestorationStudy
from pretrain.command import UserError
from pretrain.data.dataset import data_name
from pretrain.degrade import describe
from pretrain.encoder import commit
from pretrain.files import stored_json

CELL_FILE = "evaluation.json"
FORMAT = 2  # of CELL_FILE. 2: `figures` and `detection_auroc`
COLUMNS = ("restored by", "PSNR", "SSIM", "PSNR in mask", "SSIM in mask", "inflated", "detection AUROC",
           "s a megapixel", "steps", "minutes")  # fmt: skip


class RestorationTable(NamedTuple):
    """What was compared and how, rows of texts under `columns`, and how to read them."""

    lead: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str


def restoration_table(config: RestorationStudy, rows: Sequence[str], seeds: Sequence[int]) -> RestorationTable:
    """The table of the cells in `config.out`, all of which are finished."""
    cells = {row: [read_cell(cell_file(config.out, row, seed)) for seed in seeds] for row in rows}
    first = cells[rows[0]]
    at_most = f"at most {config.images} test images each of " if config.images else ""
    lead = (
        f"Tested on {at_most}{config.test} ({data_name(config.data)}), which nothing was trained on; "
        f"learned from {config.train} with synthetic anomalies. {config.input_size} px, "
        f"{torch.get_num_threads()} threads, seeds {', '.join(map(str, seeds))}, commit {(commit() or '')[:7]}. "
        f"Degradation, {describe(config.severity)}."
    )
    note = (
        "Detection AUROC: image AUROC of PaDiM, whose references are clean good images; on the clean test images it is "
        f"{_spread([cell['detection_auroc']['clean'] for cell in first], 3)}. Inflated: PSNR with all outside the mask "
        "counted as restored, as the original publishes it."
    )
    texts = [_row(DEGRADED, first, DEGRADED), *(_row(row, cells[row], "restored") for row in rows)]
    return RestorationTable(lead, COLUMNS, texts, note)


def markdown_lines(table: RestorationTable) -> list[str]:
    """The table as lines of Markdown."""
    ruled = ["| " + " | ".join(row) + " |" for row in (table.columns, *table.rows)]
    return [table.lead, "", ruled[0], "| --- " * len(table.columns) + "|", *ruled[1:], "", table.note]


def cell_file(out: Path, row: str, seed: int) -> Path:
    """Where a row's evaluation with a seed lies, in the run folder of its training."""
    return out / f"{row}-seed-{seed}" / CELL_FILE


def read_cell(file: Path) -> dict:
    """An evaluation. Raises UserError for one of another format, or of another cell."""
    cell = stored_json(file, "remove it, and it is computed again")
    if (written := cell.get("format", 1)) != FORMAT:
        raise UserError(f"{file} has format {written}, and this heldout reads format {FORMAT}: choose another --out.")
    if (of := cell.get("cell", file.parent.name)) != file.parent.name:
        raise UserError(f"{file} has the figures of {of}: remove it, and it is computed again.")
    return cell


def _row(name: str, cells: Sequence[dict], version: str) -> list[str]:
    """A row of texts; `version` of the images is DEGRADED or restored."""

    def figure(key: str) -> str:
        return _spread([cell["figures"][version][key]["value"] for cell in cells], 2 if "psnr" in key else 3)

    texts = [name, *(figure(key) for key in FIGURES[:5])]
    texts.append(_spread([cell["detection_auroc"][version] for cell in cells], 3))
    if version == DEGRADED:
        return [*texts, "", "", ""]
    texts.append(f"{mean(cell['seconds_per_megapixel'] for cell in cells):.2f}")
    return [*texts, f"{mean(cell['steps'] for cell in cells):.0f}", f"{mean(cell['minutes'] for cell in cells):.1f}"]


def _spread(values: Sequence[float | None], digits: int) -> str:
    known = [value for value in values if value is not None and math.isfinite(value)]
    spread = f" ± {stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{mean(known):.{digits}f}{spread}" if known else "n/a"
