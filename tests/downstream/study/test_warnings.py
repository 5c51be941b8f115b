"""What is warned of, and what is not."""

import shutil
from pathlib import Path

import pytest

from downstream.study.folds import Fold, FoldImages
from downstream.study.warnings import failure_warnings, figure_warnings, fold_warnings, shots_warnings
from pretrain.data.dataset import load

SIZE_PX = 32


@pytest.fixture
def folder(demo_folder, tmp_path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(demo_folder, tmp_path / "copy"))


def fold_images(folder: Path) -> FoldImages:
    return FoldImages(load(folder, SIZE_PX), Fold("bottle", ("hazelnut", "leather")))


@pytest.mark.parametrize(
    ("removed", "words"),
    [
        ("bottle/ground_truth", "no masks, so there are no pixel figures"),
        ("bottle/test/good", "all 12 test images are defective"),
        ("bottle/test", "no test images"),
        ("bottle/train", "no normals in train/good"),
    ],
)
def test_what_is_missing_is_warned_of(folder, removed, words):
    shutil.rmtree(folder / removed)
    assert any(words in line for line in fold_warnings(fold_images(folder)))


def test_nothing_is_warned_of_where_nothing_is_missing(demo_folder):
    assert fold_warnings(fold_images(demo_folder)) == []


def test_numbers_of_references_that_are_not_there_are_named(demo_folder):
    images = fold_images(demo_folder)
    assert shots_warnings(images, [1, 4]) == []
    assert shots_warnings(images, [4, 16, 32]) == ["bottle: 12 normals, so there are no rows with 16, 32"]


@pytest.mark.parametrize(("auroc", "low", "is_told"), [(0.9, 0.8, True), (0.9, 0.4, False), (0.6, 0.55, False)])
def test_a_frame_that_tells_much_is_warned_of(summarized, auroc, low, is_told):
    summary, _ = summarized
    row = {"method": "frame", "shots": "", "categories": {
        "bottle": {"figures": {"auroc": {"mean": auroc}}, "interval": [low, 1.0], "thresholds": {}, "by_seed": {}}
    }}  # fmt: skip
    lines = figure_warnings({**summary, "rows": [row]})
    assert any("outermost tenth" in line for line in lines) == is_told


def test_failures_with_one_reason_are_one_line():
    row = {"method": "padim", "encoder": "", "shots": "all"}
    failures = [{"row": row, "category": name, "seed": 0, "reason": "no light"} for name in ("nut", "tire")]
    assert failure_warnings(failures) == ["2 cells failed (padim-all-normals on nut, tire): no light"]


def test_an_unfinished_study_and_few_images_are_warned_of(summarized):
    summary, _ = summarized
    lines = figure_warnings({**summary, "cells": {"finished": 3, "planned": 16}, "quick": True})
    for words in ("3 of 16 cells are finished", "made with --quick", "fewer than 20 good or defective", "it takes 19"):
        assert sum(words in line for line in lines) == 1, words
