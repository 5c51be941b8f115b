"""Cells: their names, and that their files keep all of them."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from baselines.contract.threshold import Threshold
from downstream.study.cell import FORMAT, Cell, CellResult, RowKey, read_cell, write_cell
from downstream.study.record import is_finished
from pretrain.command import UserError
from pretrain.files import read_tensors, write_tensors

CELL = Cell(RowKey("padim", "SimCLR", "4"), "nut", 0, ("tire",), {"dimensions": 50}, "ab", "cd", 64, 0.05)


@pytest.fixture
def result() -> CellResult:
    maps = np.arange(2 * 4, dtype=np.float16).reshape(2, 2, 2)
    return CellResult(
        cell=asdict(CELL),
        paths=["nut/test/good/0.png", "nut/test/crack/1.png"],
        defects=["good", "crack"],
        labels=np.array([False, True]),
        scores=np.array([0.1, 0.9], np.float32),
        normal_scores=np.array([0.2, 0.3, 0.1], np.float32),
        maps=maps,
        threshold=Threshold(0.5, 0.05, 3, "of three normals"),
        map_threshold=None,
        pixel={"auroc": 0.7},
        metadata={"map_scale": 2.0, "references": 4},
    )


def test_names_tell_what_a_row_is_of():
    assert CELL.row.name == "padim-SimCLR-4-normals"
    assert RowKey("frame", "", "all").name == "frame-all-normals" and RowKey("knn", "random", "").name == "knn-random"


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"train": ()}, {"arguments": {}}, {"encoder_id": "x"}, {"images_id": "x"}, {"size_px": 32},
     {"false_alarm_rate": 0.1}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_whatever_differs_is_another_file(change, tmp_path):
    other = replace(CELL, **change)
    assert other.file(tmp_path) != CELL.file(tmp_path) == replace(CELL).file(tmp_path)
    assert other.digest != CELL.digest


def test_what_is_written_is_read(result, tmp_path):
    write_cell(result, CELL.file(tmp_path))
    read = read_cell(CELL.file(tmp_path))
    for name, value in vars(result).items():
        same = (
            np.array_equal(value, getattr(read, name))
            if isinstance(value, np.ndarray)
            else value == getattr(read, name)
        )
        assert same or name == "cell", name
    assert RowKey(**read.cell["row"]) == CELL.row
    assert read.map_at(1).tolist() == [[8, 10], [12, 14]]


@pytest.mark.parametrize("change", [{"format": FORMAT - 1}, {"format": None}, {"threshold": {}}])
def test_a_cell_of_another_format_or_without_its_parts_is_a_mistake(change, result, tmp_path):
    file = CELL.file(tmp_path)
    write_cell(result, file)
    tensors, header = read_tensors(file)
    write_tensors(file, tensors, header | change)
    with pytest.raises(UserError, match="is no finished cell"):
        read_cell(file)


def test_a_cell_in_the_place_of_another_is_computed_again(result, tmp_path):
    there = replace(CELL, seed=1).file(tmp_path)
    write_cell(result, there)
    assert is_finished(there) is False
    with pytest.raises(UserError, match="holds another cell, padim-SimCLR-4-normals-seed-0"):
        read_cell(there)
