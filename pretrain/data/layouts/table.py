"""A table: FOLDER/NAME.csv or NAME.parquet with columns path and label and, where wanted, category, split and mask.

Paths are relative to the folder. A label is good (or ok, normal, 0) or the name of a defect. Where no split is given,
defective images are tested on, and so is the last fifth, by name, of a category's good ones.
"""

import csv
import os
from collections.abc import Collection, Iterator
from functools import lru_cache
from io import BytesIO, StringIO
from pathlib import Path

from pretrain.command import UserError, installed_by
from pretrain.data.images import GOOD, SPLITS, Problem, Record
from pretrain.data.layouts.folders import GOOD_NAMES, later_fifth, named
from pretrain.reading import read_regular

EXPECTED = "NAME.csv with columns path and label"
COLUMNS = ("path", "label")
CSV, PARQUET = ".csv", ".parquet"
# A million images with long names.
MAX_BYTES = 2**28
# Normals that others hold out to find a threshold by; here a method holds its own ones out.
TRAIN_NAMES = frozenset({"train", "val", "valid", "validation"})


def categories(folder: Path) -> dict[str, Path]:
    """Those that the table names, each with the table. Raises UserError where there are several tables."""
    files = [folder / name for name in os.listdir(folder) if name.lower().endswith((CSV, PARQUET))]
    tables = sorted(path for path in files if {*COLUMNS} <= {*_columns(path)})
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise UserError(f"{folder} holds several tables of images ({names}): join them, or leave one.")
    return {_category(row, table): table for table in tables for row in rows(table, COLUMNS)}


def read(category: str, where: Path, normals_only: bool) -> Iterator[Record | Problem]:
    """The images of one category, in the table's order."""
    folder = where.parent
    of_category = [row for row in rows(where, COLUMNS) if _category(row, where) == category]
    splits = _splits(of_category)
    known = set()
    for row, split in zip(of_category, splits, strict=True):
        defect = _defect(row)
        if normals_only and (split, defect) != ("train", GOOD):
            continue
        path = named(folder, row["path"], where)
        if isinstance(path, Problem):
            yield path._replace(is_untested=split != "train")
        elif path in known:
            yield Problem(path, f"is named in {where.name} a second time", False)
        elif not defect:
            yield Problem(
                path, f"has no label in {where.name}: write good, or the name of its defect", split != "train"
            )
        elif split not in SPLITS:
            yield Problem(path, f"is of the split {split!r} in {where.name}: write train or test")
        else:
            known.add(path)
            mask = named(folder, row["mask"], where) if row.get("mask") and defect != GOOD else None
            if isinstance(mask, Problem):
                yield mask._replace(is_untested=False)
                mask = None
            yield Record(path, category, split, defect, mask)


def rows(path: Path, columns: Collection[str]) -> tuple[dict[str, str], ...]:
    """A table's rows, all cells as stripped text. Raises UserError for one that cannot be read or lacks a column."""
    status = path.stat()
    if missing := sorted({*columns} - {*_columns(path)}):
        raise UserError(f"{path} has no column {missing[0]}: it needs {', '.join(columns)}.")
    return _rows(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=32)  # each category asks again
def _rows(path: Path, changed_ns: int, size_bytes: int) -> tuple[dict[str, str], ...]:
    try:
        content = read_regular(path, MAX_BYTES)
        if path.suffix.lower() == PARQUET:
            listed = _parquet().read_table(BytesIO(content)).to_pylist()
        else:
            lines = StringIO(content.decode("utf-8-sig"), newline="")
            listed = list(csv.DictReader(lines, delimiter=_delimiter(path), restkey="", restval=""))
    except (csv.Error, OSError, ValueError) as error:  # pyarrow's errors and wrong letters are of the last two
        raise UserError(f"{path} cannot be read as a table ({error}): save it as CSV in UTF-8.") from None
    return tuple(
        {name.strip().lower(): "" if cell is None else str(cell).strip() for name, cell in row.items() if name}
        for row in listed
    )


def _columns(path: Path) -> list[str]:
    """The names of a table's columns; none of a file that is no table."""
    if path.suffix.lower() == PARQUET and path.is_file():
        try:
            names = _parquet().read_schema(path).names
        except (OSError, ValueError):  # pyarrow's errors are of these two
            return []
    elif path.suffix.lower() == CSV and path.is_file():
        names = _first_line(path).split(_delimiter(path))
    else:
        return []
    return [name.strip().strip('"').lower() for name in names]


def _delimiter(path: Path) -> str:
    """A semicolon where spreadsheets write it, since their decimals have commas."""
    line = _first_line(path)
    return ";" if line.count(";") > line.count(",") else ","


def _first_line(path: Path) -> str:
    with path.open("rb") as file:
        return file.readline(1 << 16).decode("utf-8-sig", errors="replace").rstrip("\r\n")


def _parquet():
    """pyarrow's module. Raises UserError where it is not installed."""
    try:
        import pyarrow.parquet  # optional, and 0.2 s
    except ImportError:
        advice = f"{installed_by('table')}, or save the table as CSV"
        raise UserError(f"a table in Parquet can be read only where pyarrow is installed: {advice}.") from None
    return pyarrow.parquet


def _category(row: dict[str, str], table: Path) -> str:
    return row.get("category") or table.parent.resolve().name


def _defect(row: dict[str, str]) -> str:
    return GOOD if row["label"].lower() in GOOD_NAMES else row["label"]


def _splits(of_category: list[dict[str, str]]) -> list[str]:
    """The split of each row of a category: the one it names, else the one that the rule gives."""
    open_ones = later_fifth({Path(row["path"]) for row in of_category if not row.get("split") and _defect(row) == GOOD})
    splits = []
    for row in of_category:
        split = row.get("split", "").lower()
        if not split:
            is_tested = _defect(row) != GOOD or Path(row["path"]) in open_ones
            split = "test" if is_tested else "train"
        splits.append("train" if split in TRAIN_NAMES else split)
    return splits
