"""All figures of a study in one JSON document, report.json, computed from the kept predictions alone."""

from pathlib import Path

import numpy as np

from baselines.contract.published import PUBLISHED_NAME, PUBLISHED_ON, published_readings
from downstream.study.cell import FORMAT
from downstream.study.comparisons import compare_with_random, compare_with_start
from downstream.study.figures import row_figures, trivial_rows
from downstream.study.record import Results, read_restoration, read_results
from downstream.study.warnings import figure_warnings
from pretrain.command import UserError


def summarize(folder: Path, study: dict) -> tuple[dict, Results]:
    """All figures of a study's finished cells, and the cells by row, category and seed. `study` is its study.json.

    Raises UserError where no cell is finished.
    """
    results, missing = read_results(folder, study["cells"])
    if not results:
        reasons = {failure["reason"] for failure in study["failures"]}
        raise UserError(f"no cell of the study in {folder} is finished{': ' if reasons else '.'}{' '.join(reasons)}")
    rows = [row_figures(row, by_category, study) for row, by_category in results.items()]
    compare_with_random(rows, results)
    truth = _truth(results)
    summary = {
        **study,
        "format": FORMAT,
        "categories": list(dict.fromkeys(fold["test"] for fold in study["folds"])),
        "images": {category: {"good": int((~labels).sum()), "defective": int(labels.sum())}
                   for category, labels in truth.items()},
        "cells": {"finished": len(study["cells"]) - missing, "planned": len(study["cells"])},
        "rows": rows,
        "versus_start": compare_with_start(rows, results, study["encoders"]),
        "trivial": trivial_rows(truth),
        "restoration": read_restoration(folder),
        "published": {"name": PUBLISHED_NAME, "on": PUBLISHED_ON,
                      "readings": [reading._asdict() for reading in published_readings()]},
    }  # fmt: skip
    summary["warnings"] = study["warnings"] + figure_warnings(summary)
    return summary, results


def _truth(results: Results) -> dict[str, np.ndarray]:
    """Labels bool (n,) of the test images by category."""
    return {
        category: next(iter(by_seed.values())).labels
        for by_category in results.values()
        for category, by_seed in by_category.items()
    }
