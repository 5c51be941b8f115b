"""What a test by area leaves behind: a line of JSON, a mask and an image each, and figures beside trivial answers."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image

from baselines.contract.metrics import ImageFigures, always_anomalous, always_good, image_figures, number
from baselines.contract.regions import region_mask
from downstream.inspection.inspector import Inspection, Inspector
from downstream.inspection.results import drawn
from pretrain.command import UserError
from pretrain.data.decode import read_mask
from pretrain.data.images import Problem, Record
from pretrain.drawing import save_image
from pretrain.files import write_json


@dataclass(frozen=True)
class Rates:
    """Shares of defective images found and of good images passed, and their mean; None where there are none."""

    true_positive_rate: float | None
    true_negative_rate: float | None
    balanced_accuracy: float | None

    @classmethod
    def of(cls, figures: ImageFigures) -> Self:
        passed = None if figures.false_alarm_rate is None else 1 - figures.false_alarm_rate
        return cls(figures.recall, passed, figures.balanced_accuracy)


class Results:
    """A context that takes one inspection after the other and writes each at once."""

    def __init__(self, folder: Path, model: Inspector, overlays: str, saves_masks: bool) -> None:
        self.folder, self._model, self._overlays, self._saves_masks = folder, model, overlays, saves_masks
        self.problems: list[Problem] = []
        self._found: list[Inspection] = []
        self._records: list[Record] = []
        self._names: set[Path] = set()
        self._overlap, self._union, self._masks = 0, 0, 0  # pixels, pixels, images

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = open(self.folder / "results.jsonl", "w", encoding="utf-8")  # noqa: SIM115, closed in __exit__
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def add(self, found: Inspection, record: Record) -> None:
        """Write one down, with its mask and its image where they are wanted."""
        called = segmentation(found, self._model.area_rule.minimum_area_px)
        name, metadata = self._name(record), {**found.as_json(), "label": record.defect}
        if self._saves_masks:
            metadata["segmentation"] = str(Path("masks") / name)
            save_image(Image.fromarray(called), self.folder / "masks" / name)
        if self._overlays == "all" or (self._overlays == "defective" and found.is_defective):
            metadata["image"] = str(Path("overlays") / name)
            save_image(drawn(found, record), self.folder / "overlays" / name)
        if record.mask is not None or not record.is_anomaly:
            truth = read_mask(record.mask) if record.mask is not None else np.zeros_like(called)
            if truth.shape == called.shape:
                self._overlap += int((called & truth).sum())
                self._union += int((called | truth).sum())
                self._masks += record.mask is not None
        self._found.append(found)
        self._records.append(record)
        self._file.write(json.dumps(metadata) + "\n")
        self._file.flush()

    def print_summary(self) -> None:
        """Figures on the screen and in figures.json."""
        if not self._found:
            raise UserError("none of the test images could be judged, see above: look at what they are.")
        figures = self.figures()
        write_json(self.folder / "figures.json", figures)
        area_px, threshold = figures["minimum_area_px"], figures["threshold"]
        print(f"{figures['category']}: a region of {area_px} px above {threshold:.5g} makes an image defective")
        print(f"{'':22} {'TPR':>6} {'TNR':>6} {'balanced accuracy':>18}")
        for name in ("by area", "all called good", "all called defective"):
            rates = figures[name]
            print(f"{name:22} " + f"{number(rates['true_positive_rate']):>6} {number(rates['true_negative_rate']):>6} "
                  f"{number(rates['balanced_accuracy']):>18}")  # fmt: skip
        counts = figures["confusion"]
        print(f"confusion: {counts['found']} defective ones found, {counts['missed']} missed; "
              f"{counts['true_good']} good ones passed, {counts['false_alarms']} false alarms")  # fmt: skip
        for kind, part in figures["kinds"].items():
            print(f"  {kind:20} {part['called_defective']:>4} of {part['images']:>4} called defective")
        if figures["masks"]["images"]:
            print(f"masks: IoU {number(figures['masks']['iou'])} with {figures['masks']['images']} true ones, over "
                  f"all pixels of good images too")  # fmt: skip
        if self.problems:
            print(f"{len(self.problems)} images could not be judged, see above")
        print(f"results: {self.folder / 'figures.json'}")

    def figures(self) -> dict:
        """All figures, as plain JSON."""
        labels = np.array([record.is_anomaly for record in self._records])
        scores = np.array([found.score for found in self._found], np.float32)
        area_px, threshold, _ = self._model.area_rule
        found = image_figures(labels, scores, threshold.value)
        kinds = {}
        for record, one in zip(self._records, self._found, strict=True):
            part = kinds.setdefault(record.defect, {"images": 0, "called_defective": 0})
            part["images"] += 1
            part["called_defective"] += one.is_defective
        return {
            "category": self._model.category,
            "minimum_area_px": area_px,
            "threshold": threshold.value,
            "threshold_comes_from": threshold.why,
            "by area": asdict(Rates.of(found)),
            "all called good": asdict(Rates.of(always_good(labels))),
            "all called defective": asdict(Rates.of(always_anomalous(labels))),
            "confusion": {name: getattr(found, name) for name in ("found", "missed", "true_good", "false_alarms")},
            "figures": found._asdict(),
            "kinds": dict(sorted(kinds.items())),
            "masks": {"images": self._masks, "iou": self._overlap / self._union if self._union else None},
            "problems": [{"path": str(problem.path), "reason": problem.reason} for problem in self.problems],
        }

    def _name(self, record: Record) -> Path:
        """DEFECT/NAME.png, as true masks are named; NAME.jpg.png where there is a NAME.png too."""
        name = Path(record.defect, record.path.stem + ".png")
        if name in self._names:
            name = Path(record.defect, record.path.name + ".png")
        self._names.add(name)
        return name


def segmentation(found: Inspection, minimum_area_px: int) -> np.ndarray:
    """Bool (height, width) of the image on disk: the pixels of its regions."""
    size = (found.height, found.width)
    small = region_mask(found.anomaly_map, found.map_threshold, minimum_area_px, size)
    return np.asarray(Image.fromarray(small).resize((found.width, found.height), Image.Resampling.NEAREST))
