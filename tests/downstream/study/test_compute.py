"""Computing a cell: what is fitted once, what is refused, and where thresholds come from."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from baselines.contract.method import Images
from downstream.study.compute import KEPT_MAP_PX, LastFitted, cell_thresholds, compute_cell
from downstream.study.config import Evaluate
from downstream.study.plan import plan_study
from pretrain.command import Names, UserError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tasks(demo_folder) -> dict:
    """Cells of seed 0 by the names of their rows."""
    config = Evaluate(
        data=demo_folder, train=Names("hazelnut,leather"), test=Names("bottle"), encoder=Names("none"),
        methods=Names("knn,padim"), shots=Names("2,all"), seeds=Names("0"), size_px=32,
    )  # fmt: skip
    return {task.cell.row.name: task for task in plan_study(config).tasks}


def test_cells_that_differ_in_references_share_a_fitted_method(tasks):
    fitted = LastFitted()
    few, every, other = (tasks[name] for name in ("padim-random-2-normals", "padim-random-all-normals", "knn-random"))
    training, _ = few.images.training(0)
    method = fitted.fit(few, training, CPU)
    assert fitted.fit(every, training, CPU) is method
    assert fitted.fit(other, training, CPU) is not method


def test_a_cell_has_scores_maps_and_what_it_took(tasks):
    result = compute_cell(tasks["padim-random-2-normals"], LastFitted(), CPU)
    assert result.labels.sum() == 12 and result.scores.shape == (18,) and result.scores.dtype == np.float32
    assert result.maps.shape == (18, KEPT_MAP_PX, KEPT_MAP_PX) and np.abs(result.maps).max() <= 1
    assert result.metadata["references"] == 2 and result.pixel["auroc"] is not None
    assert result.pixel["aupro_5"] < result.pixel["aupro"] and 0 < result.pixel["oracle_f1"] < 1
    assert (result.map_threshold, result.pixel["iou"], result.pixel["f1"]) == (None, None, None)  # of two normals
    assert set(result.defects) == {"good", "scratch", "contamination", "broken_large", "broken_small"}


@pytest.mark.parametrize(
    ("missing", "words"), [("tests", "has no test images: put them into"), ("normals", "has no normals to refer to")]
)
def test_a_cell_without_the_images_it_needs_is_a_sentence(tasks, missing, words):
    task = tasks["mean-all-normals"]
    images = type("WithoutImages", (), {**vars(task.images), "training": task.images.training})()
    setattr(images, missing, getattr(images, missing).subset([]))
    with pytest.raises(UserError, match=words):
        compute_cell(task._replace(images=images), LastFitted(), CPU)


def test_a_method_that_sees_nothing_is_calibrated_on_the_training_categories(tasks):
    task = tasks["knn-random"]
    training, calibration = task.images.training(0)
    method = LastFitted().fit(task, training, CPU)
    normals = {category: Images(images) for category, images in calibration.items()}
    threshold, map_threshold, scores = cell_thresholds(method, [], normals, task.cell)
    assert len(scores) == threshold.count == sum(map(len, calibration.values())) and map_threshold is None
    strict, _, _ = cell_thresholds(method, [], normals, replace(task.cell, false_alarm_rate=0.5))
    assert strict.value < threshold.value
    with pytest.raises(UserError, match="no calibration normals"):
        cell_thresholds(method, [], {}, task.cell)
