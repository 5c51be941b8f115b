"""A study's folder: study.json, what was planned and with what, and the finished cells under cells/."""

import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from downstream.study.cell import FORMAT, CellResult, RowKey, read_cell
from pretrain.command import UserError
from pretrain.files import sealed, stored_json, write_json

STUDY_FILE = "study.json"
RESTORATION_FILE = "restoration.json"

# By row, category and seed.
Results = dict[RowKey, dict[str, dict[int, CellResult]]]


def write_study(folder: Path, metadata: dict) -> None:
    """Keep what the report needs beside the cells, so that it can be drawn again without the images."""
    write_json(folder / STUDY_FILE, sealed({"format": FORMAT, **metadata}))


def read_study(folder: Path) -> dict:
    """What `write_study` kept. Raises UserError where there is no study, or one of another version's format."""
    file = folder / STUDY_FILE
    if not file.is_file():
        raise UserError(f"there is no study in {folder}: name another folder, or make one there by "
                        f"python downstream/evaluate.py --out {folder}")  # fmt: skip
    study = stored_json(file, "call the study's command again")
    if study.get("format") != FORMAT:
        raise UserError(
            f"{file} was written in format {study.get('format', 1)}, and this version reads format {FORMAT}: compute "
            "the study again into another --out, or read it with the version that made it."
        )
    return study


def read_results(folder: Path, files: Iterable[str]) -> tuple[Results, int]:
    """The cells that are finished, and how many are not. Says which of those are there but damaged."""
    results: Results = defaultdict(lambda: defaultdict(dict))
    missing = 0
    for file in files:
        try:
            result = read_cell(folder / file)
        except UserError as error:
            missing += 1
            if (folder / file).exists():
                print(f"warning: {error} Left out; the study's command computes it again.", file=sys.stderr)
            continue
        results[RowKey(**result.cell["row"])][result.cell["category"]][result.cell["seed"]] = result
    return {row: dict(by_category) for row, by_category in results.items()}, missing


def is_finished(file: Path) -> bool:
    """Whether a cell is there and whole; a damaged one is computed again."""
    if not file.is_file():
        return False
    try:
        read_cell(file)
    except UserError as error:
        print(f"{error} It is computed again.", file=sys.stderr)
        return False
    return True


def read_restoration(folder: Path) -> dict | None:
    """The table of restorers, where they were compared."""
    file = folder / RESTORATION_FILE
    return stored_json(file, "remove it, and restorers are compared again") if file.is_file() else None
