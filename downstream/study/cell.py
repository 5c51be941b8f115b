"""One cell of the study: a method with an encoder and a seed on one test category, and the file that keeps it.

The file holds the predictions, so that any figure can be computed again: scores, labels, defects, scores of normals,
thresholds and reduced maps. Its name ends in a digest of everything it was computed from: with other options, other
images or another encoder it is another cell.
"""

import json
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch

from baselines.contract.threshold import Threshold
from pretrain.command import UserError
from pretrain.files import read_tensors, write_tensors

# Of cells, study.json and report.json alike. 2 has `defects` (1: kinds), `cells` (parts), `versus_random` (control).
FORMAT = 2
SIMCLR, RANDOM, IMAGENET, NO_ENCODER = "SimCLR", "random", "ImageNet", ""
# What the SimCLR encoder started from, where that is neither ImageNet's weights nor random ones.
START = "start"


@dataclass(frozen=True)
class RowKey:
    """What a row of the tables is of: a method, the encoder it reads and its number of references, '' for none."""

    method: str
    encoder: str
    shots: str

    @property
    def name(self) -> str:
        words = (self.method, self.encoder, self.shots and f"{self.shots}-normals")
        return "-".join(word for word in words if word)


@dataclass(frozen=True)
class Cell:
    """Everything that a cell's figures depend on. `encoder_id` is the fingerprint of the encoder's weights,
    `images_id` the digest of the fold's images."""

    row: RowKey
    category: str
    seed: int
    train: tuple[str, ...]
    arguments: dict
    encoder_id: str
    images_id: str
    size_px: int
    false_alarm_rate: float

    @property
    def digest(self) -> str:
        text = json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True)
        return blake2b(text.encode(), digest_size=4).hexdigest()

    def file(self, folder: Path) -> Path:
        """The file of the finished cell in the study's folder."""
        return folder / "cells" / self.category / f"{self.row.name}-seed-{self.seed}-{self.digest}.safetensors"


@dataclass
class CellResult:
    """A finished cell. `labels` bool (n,), `scores` float32 (n,), `maps` float16 (n, h, w) in units of `map_scale` or
    none, `normal_scores` float32 (m,); `pixel` are the pixel figures, `metadata` times and memory, plain JSON."""

    cell: dict
    paths: list[str]
    defects: list[str]
    labels: np.ndarray
    scores: np.ndarray
    normal_scores: np.ndarray
    maps: np.ndarray | None
    threshold: Threshold
    map_threshold: Threshold | None
    pixel: dict
    metadata: dict = field(default_factory=dict)

    def map_at(self, position: int) -> np.ndarray:
        """A kept map, float32 (h, w), in the units of its threshold."""
        return self.maps[position].astype(np.float32) * self.metadata["map_scale"]


def write_cell(result: CellResult, file: Path) -> None:
    """Keep a finished cell, whole."""
    header = {
        "format": FORMAT,
        "cell": result.cell,
        "paths": result.paths,
        "defects": result.defects,
        "threshold": result.threshold._asdict(),
        "map_threshold": result.map_threshold and result.map_threshold._asdict(),
        "pixel": result.pixel,
        "metadata": result.metadata,
    }
    arrays = {"labels": result.labels, "scores": result.scores, "normal_scores": result.normal_scores}
    if result.maps is not None:
        arrays["maps"] = result.maps
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    write_tensors(file, tensors, header)


def read_cell(file: Path) -> CellResult:
    """A kept cell. Raises UserError where it is damaged or of another format; then it is to be computed again."""
    tensors, header = read_tensors(file)
    if header.get("format") != FORMAT:
        raise UserError(
            f"{file} is no finished cell of format {FORMAT} (it has {header.get('format')}): delete it, and it is "
            "computed again."
        )
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    try:
        held = Cell(**{**header["cell"], "row": RowKey(**header["cell"]["row"])})
        if held.file(Path()).name != file.name:
            raise UserError(
                f"{file} holds another cell, {held.file(Path()).stem}: delete it, and it is computed again."
            )
        return CellResult(
            cell=header["cell"],
            paths=header["paths"],
            defects=header["defects"],
            labels=arrays["labels"],
            scores=arrays["scores"],
            normal_scores=arrays["normal_scores"],
            maps=arrays.get("maps"),
            threshold=Threshold(**header["threshold"]),
            map_threshold=header["map_threshold"] and Threshold(**header["map_threshold"]),
            pixel=header["pixel"],
            metadata=header["metadata"],
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{file} is no finished cell ({error}): delete it, and it is computed again.") from None
