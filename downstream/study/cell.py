"""One cell of the study: a method with an encoder and a seed on one test category, run once and kept whole.

A cell's file holds the predictions, so that any figure can be computed again: scores, labels, kinds, scores of normals,
thresholds and reduced maps. What it was computed from is in its name as a digest: with other options, other images or
another encoder it is another cell.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from baselines.contract.method import Images, Method, Samples
from baselines.contract.metrics import pixel_figures
from baselines.contract.threshold import MIN_OWN_NORMALS, Threshold, threshold_from_normals
from downstream.methods.catalogue import ConfiguredMethod
from downstream.methods.references import draw, own_threshold, shots_of
from downstream.study.folds import Material
from downstream.study.memory import peak_megabytes, reset_peak
from pretrain.command import UserError
from pretrain.data.dataset import ImageSet
from pretrain.encoder import Encoder
from pretrain.files import read_tensors, write_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = 1
SIMCLR, RANDOM, IMAGENET, NONE = "SimCLR", "random", "ImageNet", ""
# Maps are kept at this size for the report; pixel figures are computed before, at the size of the images.
KEPT_MAP_PX = 64


@dataclass(frozen=True)
class Row:
    """A line of the tables: a method with a kind of encoder and a number of references ('' where it takes none)."""

    method: str
    encoder: str
    shots: str

    @property
    def name(self) -> str:
        return "-".join(part for part in (self.method, self.encoder, self.shots and f"{self.shots}-normals") if part)


@dataclass(frozen=True)
class Cell:
    """What is to be computed. `encoder_id` is the fingerprint of the encoder; `material` the digest of the images."""

    row: Row
    category: str
    seed: int
    train: tuple[str, ...]
    arguments: dict
    encoder_id: str
    material: str
    size_px: int
    false_alarm_rate: float

    @property
    def digest(self) -> str:
        metadata = json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True)
        return blake2b(metadata.encode(), digest_size=4).hexdigest()

    def file(self, folder: Path) -> Path:
        """Where in the study's folder the finished cell lies."""
        return folder / "cells" / self.category / f"{self.row.name}-seed-{self.seed}-{self.digest}.safetensors"


class Work(NamedTuple):
    """A cell with what is needed to compute it."""

    cell: Cell
    method: ConfiguredMethod
    encoder: Encoder | None
    material: Material


@dataclass
class Fitted:
    """The method that was fitted last: cells that differ only in category or references share it."""

    key: str = ""
    method: Method | None = None
    fit_s: float = 0.0

    def of(self, work: Work, training: ImageSet, device: torch.device) -> Method:
        cell = work.cell
        metadata = (cell.row.method, cell.encoder_id, cell.arguments, cell.train, cell.seed, cell.size_px)
        key = json.dumps([*metadata, [str(record.path) for record in training.records]])
        if key != self.key:
            self.key, self.method = "", None  # one at a time in memory
            arguments = {}
            if work.method.takes_seed:
                arguments["seed"] = cell.seed
            if work.method.takes_encoder:
                arguments["encoder"] = work.encoder.to(device)
            start_s = time.perf_counter()
            self.method = work.method.make(**arguments).fit(Samples(training))
            self.fit_s, self.key = time.perf_counter() - start_s, key
        return self.method


@dataclass
class Result:
    """A finished cell. `labels` bool (n,), `scores` float32 (n,), `maps` float16 (n, KEPT_MAP_PX, KEPT_MAP_PX) in units
    of `map_scale` or none, `normal_scores` (m,); `pixel` are the pixel figures; `metadata` the rest, plain JSON."""

    cell: dict
    paths: list[str]
    kinds: list[str]
    labels: np.ndarray
    scores: np.ndarray
    normal_scores: np.ndarray
    maps: np.ndarray | None
    threshold: Threshold
    map_threshold: Threshold | None
    pixel: dict
    metadata: dict = field(default_factory=dict)

    def map_at(self, position: int) -> np.ndarray:
        """A kept map, float32, in the units of its threshold."""
        return self.maps[position].astype(np.float32) * self.metadata["map_scale"]


def run(work: Work, fitted: Fitted, device: torch.device) -> Result:
    """Compute a cell. Raises UserError where the images do not suffice."""
    cell, material = work.cell, work.material
    if not len(material.tests):
        raise UserError(f"{cell.category} has no test images: put some into {cell.category}/test/.")
    reset_peak(device)
    training, calibration = material.training(cell.seed)
    method = fitted.of(work, training, device)
    start_s = time.perf_counter()
    normals: Sequence[Tensor] = []
    if method.sees_normals:
        if not len(material.normals):
            raise UserError(f"{cell.category} has no normals to refer to: put some into {cell.category}/train/good/.")
        shots = shots_of(cell.row.shots, len(material.normals))
        chosen = draw(len(material.normals), shots, cell.seed)
        normals = Images(material.normals.subset(chosen), device)
        method.refer(normals)
    refer_s = time.perf_counter() - start_s
    placed = {category: Images(images, device) for category, images in calibration.items()}
    threshold, map_threshold, normal_scores = thresholds(method, normals, placed, cell)
    start_s = time.perf_counter()
    parts = list(method.predict(Images(material.tests, device)))
    predict_s = time.perf_counter() - start_s
    scores = torch.cat([part.scores for part in parts]).cpu().numpy()
    maps = torch.cat([part.maps for part in parts]).cpu() if parts[0].maps is not None else None
    metadata = {
        "references": len(normals),
        "fit_s": fitted.fit_s,
        "refer_s": refer_s,
        "predict_ms": 1e3 * predict_s / len(scores),
        "peak_mb": peak_megabytes(device),
        "map_scale": float(maps.abs().max().clamp(min=1e-12)) if maps is not None else None,
    }
    kept = None
    if maps is not None:
        kept = (adaptive_avg_pool2d(maps[:, None], KEPT_MAP_PX)[:, 0] / metadata["map_scale"]).half().numpy()
    records = material.tests.records
    return Result(
        cell=asdict(cell),
        paths=[str(record.path.relative_to(material.tests.folder)) for record in records],
        kinds=[record.defect for record in records],
        labels=np.array([record.is_anomaly for record in records]),
        scores=scores,
        normal_scores=np.asarray(normal_scores, np.float32),
        maps=kept,
        threshold=threshold,
        map_threshold=map_threshold,
        pixel=_pixel_figures(maps, material.tests, map_threshold),
        metadata=metadata,
    )


def thresholds(
    method: Method, normals: Sequence[Tensor], calibration: "Mapping[str, Images]", cell: Cell
) -> tuple[Threshold, Threshold | None, np.ndarray]:
    """Of scores, of maps where they can have one, and the scores of normals that both come from.

    A method that refers to normals has its own; of one that sees nothing of the test category, calibration normals of
    the training categories are scored.
    """
    if method.sees_normals:
        threshold = own_threshold(method, normals, cell.false_alarm_rate, calibration, cell.seed)
        scores = method.normal_scores_.cpu().numpy()
        peaks = getattr(method, "normal_peaks_", torch.empty(0)).cpu().numpy()
        if len(peaks) == len(scores) and np.array_equal(peaks, scores):
            return threshold, threshold, scores  # a score is its map's highest value
        enough = len(peaks) >= MIN_OWN_NORMALS
        return threshold, threshold_from_normals(peaks, cell.false_alarm_rate) if enough else None, scores
    parts = [part for images in calibration.values() for part in method.predict(images)]
    if not parts:
        raise UserError("the training categories have no calibration normals: give more good images of them.")
    scores = torch.cat([part.scores for part in parts]).cpu().numpy()
    map_threshold = None
    if parts[0].maps is not None:
        peaks = torch.cat([part.maps.flatten(1).amax(1) for part in parts]).cpu().numpy()
        map_threshold = threshold_from_normals(peaks, cell.false_alarm_rate)
    return threshold_from_normals(scores, cell.false_alarm_rate), map_threshold, scores


def write(result: Result, file: Path) -> None:
    """Keep a finished cell, whole."""
    metadata = {
        "format": FORMAT,
        "cell": result.cell,
        "paths": result.paths,
        "kinds": result.kinds,
        "threshold": result.threshold._asdict(),
        "map_threshold": result.map_threshold and result.map_threshold._asdict(),
        "pixel": result.pixel,
        "metadata": result.metadata,
    }
    arrays = {"labels": result.labels, "scores": result.scores, "normal_scores": result.normal_scores}
    if result.maps is not None:
        arrays["maps"] = result.maps
    write_tensors(file, {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}, metadata)


def read(file: Path) -> Result:
    """A kept cell. Raises UserError where it is damaged; then it is to be computed again."""
    tensors, metadata = read_tensors(file)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    try:
        return Result(
            cell=metadata["cell"],
            paths=metadata["paths"],
            kinds=metadata["kinds"],
            labels=arrays["labels"],
            scores=arrays["scores"],
            normal_scores=arrays["normal_scores"],
            maps=arrays.get("maps"),
            threshold=Threshold(**metadata["threshold"]),
            map_threshold=metadata["map_threshold"] and Threshold(**metadata["map_threshold"]),
            pixel=metadata["pixel"],
            metadata=metadata["metadata"],
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{file} is no finished cell ({error}): delete it, and it is computed again.") from None


def _pixel_figures(maps: Tensor | None, tests: ImageSet, threshold: Threshold | None) -> dict:
    """Over good images and those with masks; empty where there are no maps or no masks."""
    has_truth = [i for i, record in enumerate(tests.records) if record.mask or not record.is_anomaly]
    if maps is None or not any(tests.records[i].mask for i in has_truth):
        return {}
    samples = Samples(tests)
    masks = np.zeros((len(has_truth), *maps.shape[1:]), bool)
    for number, i in enumerate(has_truth):
        if tests.records[i].mask:
            masks[number] = samples[i].mask.numpy()
    figures = pixel_figures(maps[has_truth].numpy(), masks, threshold.value if threshold else 0.0)._asdict()
    return figures | ({} if threshold else {"iou": None})
