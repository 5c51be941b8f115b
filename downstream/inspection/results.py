"""What an inspection leaves behind: a line of JSON and an image each, a table, and figures where labels are known."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image

from baselines.contract.metrics import image_figures
from downstream.inspection.inspector import Inspection, Inspector
from downstream.inspection.overlay import overlay
from pretrain.data.decode import decode, read_mask
from pretrain.data.images import UNLABELLED, Problem, Record
from pretrain.drawing import save_image

ROWS_SHOWN = 20
SHOWN_PX = 420


class Findings:
    """A context that takes one inspection after the other, and writes each at once: a stopped run keeps what it has."""

    def __init__(self, folder: Path, overlays: str, keep_maps: bool) -> None:
        self.folder, self._overlays, self._keeps_maps = folder, overlays, keep_maps
        self._labelled: list[tuple[Inspection, Record]] = []
        self._shown: list[Inspection] = []
        self._maps: dict[str, np.ndarray] = {}
        self._count = 0

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = open(self.folder / "results.jsonl", "w", encoding="utf-8")  # noqa: SIM115, closed in __exit__
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if self._maps:
            import torch

            from pretrain.files import write_tensors

            maps = {number: torch.from_numpy(one) for number, one in self._maps.items()}
            write_tensors(self.folder / "maps.safetensors", maps, {"of": "results.jsonl, by number of the line"})

    def add(self, found: Inspection, record: Record) -> None:
        """Write one inspection down, and draw it if it is to be drawn."""
        self._count += 1
        metadata = found.as_json()
        if self._overlays == "all" or (self._overlays == "defective" and found.is_defective):
            metadata["image"] = f"{self._count:05d}-{found.path.stem}.png"
            save_image(drawn(found, record), self.folder / metadata["image"])
        if self._keeps_maps and found.anomaly_map is not None:
            self._maps[str(self._count)] = found.anomaly_map.copy()
        if record.defect != UNLABELLED:
            metadata["label"] = record.defect
            self._labelled.append((found, record))
        self._file.write(json.dumps(metadata) + "\n")
        self._file.flush()
        self._shown.append(found)
        self._shown.sort(key=lambda one: -one.score)
        del self._shown[ROWS_SHOWN:]

    def print_summary(self, model: Inspector, problems: Sequence[Problem]) -> None:
        """The most anomalous images as a table, then what there was in all."""
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        rule = f", regions of {model.area_rule.minimum_area_px} px and more" if model.area_rule else ""
        table = Table(title=escape(f"{model.category}: threshold {model.decision.value:.4g}{rule}"))
        for header, side in (
            ("score", "right"),
            ("", "left"),
            ("sure", "right"),
            ("regions", "left"),
            ("image", "left"),
        ):
            table.add_column(header, justify=side, no_wrap=header != "image", overflow="fold")
        for found in self._shown:
            verdict = "[red]DEFECTIVE[/]" if found.is_defective else "[green]good[/]"
            areas = ", ".join(f"{region.area_px} px" for region in found.regions[:2])
            more = f" +{len(found.regions) - 2}" if len(found.regions) > 2 else ""
            sure = f"{found.confidence:.0%}"
            table.add_row(f"{found.score:.4g}", verdict, sure, areas + more, escape(str(found.path)))
        Console(width=None if sys.stdout.isatty() else 120).print(table)
        if self._count > len(self._shown):
            print(f"the {len(self._shown)} highest of {self._count}; all are in {self.folder / 'results.jsonl'}")
        if self._labelled:
            self._print_figures(model)
        if problems:
            print(f"{len(problems)} images could not be read, see above")
        print(f"results: {self.folder / 'results.jsonl'}")

    def _print_figures(self, model: Inspector) -> None:
        """How right the decisions were, where the folder says what is in an image."""
        labels = np.array([record.is_anomaly for _, record in self._labelled])
        scores = np.array([found.score for found, _ in self._labelled])
        figures = image_figures(labels, scores, model.decision.value)
        shown = {name: getattr(figures, name) for name in ("auroc", "balanced_accuracy", "oracle_balanced_accuracy")}
        words = ", ".join(f"{name.replace('_', ' ')} {'n/a' if v is None else f'{v:.3f}'}" for name, v in shown.items())
        print(f"by the folder's labels: {words}")
        print(
            f"  {figures.found} of {figures.defective} defective ones found, "
            f"{figures.false_alarms} false alarms among {figures.good} good ones"
        )


def drawn(found: Inspection, record: Record) -> Image.Image:
    """The image with its heat, regions and verdict, and the true defect where it is known."""
    pixels = decode(found.path).pixels
    mask = read_mask(record.mask) if record.mask is not None else None
    times = found.score / found.threshold if found.threshold > 0 else float("nan")
    verdict = "DEFECTIVE" if found.is_defective else "good"
    words = f"{verdict}: {times:.2f} times the threshold"
    return overlay(
        pixels, found.anomaly_map, found.map_threshold, found.regions, words, found.is_defective, mask, SHOWN_PX
    )
