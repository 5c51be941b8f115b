"""Compute a cell of the study: fit, refer, set the thresholds, predict, and measure all of it."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from baselines.contract.method import Images, Method, Samples
from baselines.contract.threshold import MIN_OWN_NORMALS, Threshold, threshold_from_normals
from downstream.methods.catalogue import ConfiguredMethod
from downstream.methods.references import draw, own_threshold, shots_of
from downstream.study.cell import Cell, CellResult
from downstream.study.folds import FoldImages
from downstream.study.memory import peak_megabytes, reset_peak
from downstream.study.pixels import cell_pixels
from pretrain.command import UserError
from pretrain.data.dataset import ImageSet
from pretrain.encoder import Encoder
from pretrain.remembered_maps import seconds

# Maps are kept at this size for the report; pixel figures are computed before, at the size of the images.
KEPT_MAP_PX = 64


class CellTask(NamedTuple):
    """A cell with what is needed to compute it."""

    cell: Cell
    method: ConfiguredMethod
    encoder: Encoder | None
    images: FoldImages

    @property
    def name(self) -> str:
        """The cell's file in a study's folder."""
        return str(self.cell.file(Path()))

    @property
    def title(self) -> str:
        """For a person."""
        return f"{self.cell.row.name} on {self.cell.category}, seed {self.cell.seed}"


@dataclass
class LastFitted:
    """The method that was fitted last: cells that differ only in category or references share it."""

    key: str = ""
    method: Method | None = None
    fit_s: float = 0.0  # as if no map had been remembered
    took_s: float = 0.0
    is_new: bool = False  # whether the last call of `fit` had to fit

    def fit(self, task: CellTask, training: ImageSet, device: torch.device) -> Method:
        """The task's method, fitted to `training`, or as it stands where it already is."""
        cell = task.cell
        key = json.dumps([*fit_settings(cell), [str(record.path) for record in training.records]])
        self.is_new = key != self.key
        if self.is_new:
            self.key, self.method = "", None  # one at a time in memory
            arguments = {}
            if task.method.takes_seed:
                arguments["seed"] = cell.seed
            if task.method.takes_encoder:
                arguments["encoder"] = task.encoder
            start_s, began_s = seconds(), time.perf_counter()
            self.method = task.method.make(**arguments).to(device).fit(Samples(training))
            self.fit_s, self.took_s, self.key = seconds() - start_s, time.perf_counter() - began_s, key
        return self.method


def fit_settings(cell: Cell) -> tuple:
    """Cells for which these are equal share a fitted method."""
    return cell.row.method, cell.encoder_id, cell.arguments, cell.train, cell.seed, cell.size_px


def compute_cell(task: CellTask, fitted: LastFitted, device: torch.device) -> CellResult:
    """Fit, refer, threshold and predict. Raises UserError where the images do not suffice."""
    cell, images = task.cell, task.images
    if not len(images.tests):
        raise UserError(f"{cell.category} has no test images: put them into {cell.category}/test/.")
    reset_peak(device)
    training, calibration = images.training(cell.seed)
    method = fitted.fit(task, training, device)
    start_s = seconds()
    references = _refer(method, task)
    refer_s = seconds() - start_s
    calibration_images = {category: Images(normals) for category, normals in calibration.items()}
    threshold, map_threshold, normal_scores = cell_thresholds(method, references, calibration_images, cell)
    start_s = seconds()
    batches = [batch.cpu() for batch in method.predict(Images(images.tests))]
    predict_s = seconds() - start_s
    scores = torch.cat([batch.scores for batch in batches]).numpy()
    maps = torch.cat([batch.maps for batch in batches]) if batches[0].maps is not None else None
    kept_maps, map_scale = _reduced(maps) if maps is not None else (None, None)
    records = images.tests.records
    return CellResult(
        cell=asdict(cell),
        paths=[str(record.path.relative_to(images.tests.folder)) for record in records],
        defects=[record.defect for record in records],
        labels=np.array([record.is_anomaly for record in records]),
        scores=scores,
        normal_scores=np.asarray(normal_scores, np.float32),
        maps=kept_maps,
        threshold=threshold,
        map_threshold=map_threshold,
        pixel=cell_pixels(maps, images.tests, map_threshold),
        metadata={
            "references": len(references),
            "fit_s": fitted.fit_s,
            "fit_took_s": fitted.took_s,
            "refer_s": refer_s,
            "predict_ms": 1e3 * predict_s / len(scores),
            "is_new_fit": fitted.is_new,
            "peak_mb": peak_megabytes(device),
            "map_scale": map_scale,
        },
    )


def cell_thresholds(
    method: Method, references: Sequence[Tensor], calibration: Mapping[str, Images], cell: Cell
) -> tuple[Threshold, Threshold | None, np.ndarray]:
    """The threshold of scores, that of maps where they can have one, and the scores of normals that both come from.

    A method that refers to normals has its own; of one that sees nothing of the test category, calibration normals of
    the training categories are scored.
    """
    if method.sees_normals:
        threshold = own_threshold(method, references, cell.false_alarm_rate, calibration, cell.seed)
        scores = method.normal_scores_.cpu().numpy()
        peaks = getattr(method, "normal_peaks_", torch.empty(0)).cpu().numpy()
        if len(peaks) == len(scores) and np.array_equal(peaks, scores):
            return threshold, threshold, scores  # a score is its map's highest value
        has_enough = len(peaks) >= MIN_OWN_NORMALS
        return threshold, threshold_from_normals(peaks, cell.false_alarm_rate) if has_enough else None, scores
    batches = [batch for images in calibration.values() for batch in method.predict(images)]
    if not batches:
        raise UserError("the training categories have no calibration normals: give more good images of them.")
    scores = torch.cat([batch.scores for batch in batches]).cpu().numpy()
    map_threshold = None
    if batches[0].maps is not None:
        peaks = torch.cat([batch.maps.flatten(1).amax(1) for batch in batches]).cpu().numpy()
        map_threshold = threshold_from_normals(peaks, cell.false_alarm_rate)
    return threshold_from_normals(scores, cell.false_alarm_rate), map_threshold, scores


def _refer(method: Method, task: CellTask) -> Sequence[Tensor]:
    """Give the method the normals that it declares to see. Returns them, none for a method that sees none."""
    if not method.sees_normals:
        return []
    cell, normals = task.cell, task.images.normals
    if not len(normals):
        raise UserError(f"{cell.category} has no normals to refer to: put some into {cell.category}/train/good/.")
    chosen = draw(len(normals), shots_of(cell.row.shots, len(normals)), cell.seed)
    references = Images(normals.subset(chosen))
    method.refer(references)
    return references


def _reduced(maps: Tensor) -> tuple[np.ndarray, float]:
    """Maps (n, h, w) -> float16 (n, KEPT_MAP_PX, KEPT_MAP_PX) in [-1, 1], and their scale: float16 ends at 65504."""
    scale = float(maps.abs().max().clamp(min=1e-12))
    return (adaptive_avg_pool2d(maps[:, None], KEPT_MAP_PX)[:, 0] / scale).half().numpy(), scale
