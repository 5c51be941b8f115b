"""What an inspection leaves behind: a line of JSON and an image each, a table, and figures where labels are known.

Both commands write each inspection at once, into `results.partial.jsonl`: what a stopped or killed run has is not lost,
and `results.jsonl` is that of the last run that came to its end.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from safetensors.numpy import save

from baselines.contract.metrics import ImageFigures, always_anomalous, always_good, image_figures, number
from baselines.contract.regions import region_mask
from downstream.inspection.inspection import Inspection
from downstream.inspection.inspector import Inspector
from downstream.inspection.interchange import FORMATS, Marked, common_folder, marked
from downstream.inspection.pixel_figures import InspectedPixels, true_mask
from downstream.methods.exported import HEADER_KEY
from pretrain.command import UserError
from pretrain.data.channels import PLAIN
from pretrain.data.images import UNLABELED, Problem, Record
from pretrain.data.levels import is_deep
from pretrain.data.size import named
from pretrain.drawing import save_image
from pretrain.files import sole_writer, write_json, written_aside

Outlines = Callable[[Inspection], Sequence[tuple[str, np.ndarray]]]
ROWS_SHOWN = 20
# Files of which it is looked up whether they have more than 8 bits.
MAX_LOOKED_AT = 16
RESULTS, PARTIAL, MAPS_FILE = "results.jsonl", "results.partial.jsonl", "maps.safetensors"
# Of PNGs: a tenth more bytes than the usual 6 in a third of its time, which was a third of a run.
DRAWN_COMPRESSION = 3
NOTHING_DEFECTIVE, SOMETHING_DEFECTIVE, SOMETHING_UNREADABLE = 0, 1, 3


class ResultsFile:
    """A context with an open file of results in `folder`; `overlays` says which images are drawn, with a line around
    what `outlines`, an Inspector's, says of each."""

    def __init__(self, folder: Path, overlays: str, outlines: Outlines = lambda _: ()) -> None:
        self.folder, self._overlays, self._outlines = folder, overlays, outlines
        self._useless: list[Path] = []  # masks

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            opened.enter_context(sole_writer(self.folder, "writes results into", "another --out"))
            self._file = opened.enter_context(open(self.folder / PARTIAL, "w", encoding="utf-8"))
            self._lines, self._opened = 0, opened.pop_all()
        return self

    def __exit__(self, error_class: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._opened:
            if error_class is None:
                os.fsync(self._file.fileno())
            self._file.close()
            if error_class is None:
                self._take_place()
            elif self._lines:
                print(f"what was inspected so far: {self.folder / PARTIAL}", file=sys.stderr)
            else:
                (self.folder / PARTIAL).unlink()

    def _take_place(self) -> None:
        """The results are those of this run from now on."""
        (self.folder / PARTIAL).replace(self.folder / RESULTS)

    def _is_drawn(self, inspection: Inspection) -> bool:
        return self._overlays == "all" or (self._overlays == "defective" and inspection.is_defective)

    def _true_mask(self, inspection: Inspection, record: Record) -> np.ndarray | None:
        """As `true_mask` has it; a mask that says nothing is remembered."""
        truth = true_mask(inspection, record)
        if truth is None and record.mask is not None:
            self._useless.append(record.mask)
        return truth

    def _draw(self, file: Path, inspection: Inspection, record: Record, truth: np.ndarray | None) -> None:
        """The image with its heatmap, regions and verdict, and where they are known the true defect and where to
        look."""
        image = inspection.overlay(None if record.mask is None else truth, self._outlines(inspection))
        save_image(image, file, compress_level=DRAWN_COMPRESSION)

    def _print_useless_masks(self) -> None:
        if self._useless:
            print(
                f"{len(self._useless)} masks cannot be read, or are of another size than their images, such as "
                f"{self._useless[0]}: what is said of pixels is without them"
            )

    def _write(self, line: dict) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self._lines += 1


class DetectResults(ResultsFile):
    """Results of detect.py: lines, images, with `keep_maps` the anomaly maps, and files in `formats` of others."""

    def __init__(
        self,
        folder: Path,
        overlays: str,
        keep_maps: bool,
        outlines: Outlines = lambda _: (),
        formats: Sequence[str] = (),
    ) -> None:
        super().__init__(folder, overlays, outlines)
        self._keeps_maps, self._formats = keep_maps, formats
        self._marked: list[Marked] = []
        self._labeled: list[tuple[Inspection, Record]] = []
        self._highest: list[Inspection] = []
        self._drawings: list[tuple[float, str]] = []  # score, file
        self._pixels = InspectedPixels()
        self._maps: dict[str, np.ndarray] = {}
        self._distorted: list[Inspection] = []
        self._of_other_size: list[Inspection] = []
        self._deep: Inspection | None = None
        self._not_aligned: list[Inspection] = []
        self._count = 0

    def _take_place(self) -> None:
        with ExitStack() as written:
            for name, data in self._beside():
                written.enter_context(written_aside(self.folder / name, data))
            # Those of the run before go first, and these come last: whoever is killed between leaves none of another.
            for name in (MAPS_FILE, *(name for name, _ in FORMATS.values())):
                (self.folder / name).unlink(missing_ok=True)
            super()._take_place()

    def _beside(self) -> Iterator[tuple[str, bytes]]:
        """The other files, by name."""
        if self._maps:
            # From numpy, as an exported model is run without torch; `pretrain`'s reader takes it as one of its own.
            header = {HEADER_KEY: json.dumps({"of": f"{RESULTS}, by number of the line"})}
            yield MAPS_FILE, save(self._maps, header)
        for name, written in map(FORMATS.__getitem__, self._formats):
            text = written(common_folder(self._marked), self._marked)
            yield name, text.encode(errors="surrogateescape")  # as names of files are decoded

    def add(self, inspection: Inspection, record: Record) -> None:
        """Write one inspection down, and draw it if it is to be drawn."""
        self._count += 1
        line, truth = inspection.to_dict(), self._true_mask(inspection, record)
        if self._is_drawn(inspection):
            line["image"] = f"{self._count:05d}-{inspection.path.stem}.png"
            self._draw(self.folder / line["image"], inspection, record, truth)
            self._drawings.append((inspection.score, line["image"]))
        if self._keeps_maps and inspection.anomaly_map is not None:
            self._maps[str(self._count)] = inspection.anomaly_map.copy()
        if record.defect != UNLABELED:
            line["label"] = record.defect
            self._pixels.add(inspection, truth)
        self._write(line)
        found = Marked(inspection, record.defect) if self._formats else None
        if "coco" in self._formats:
            found = marked(inspection, record.defect, self._outlines(inspection))
        inspection = replace(inspection, anomaly_map=None)  # a folder of thousands would not fit into memory
        if found:
            self._marked.append(found._replace(inspection=inspection))
        if inspection.is_distorted:
            self._distorted.append(inspection)
        if self._deep is None and self._count <= MAX_LOOKED_AT and inspection.channels == PLAIN:
            self._deep = inspection if is_deep(inspection.path)[0] else None
        if inspection.has_other_size:
            self._of_other_size.append(inspection)
        if inspection.is_not_aligned:
            self._not_aligned.append(inspection)
        if record.defect != UNLABELED:
            self._labeled.append((inspection, record))
        self._highest.append(inspection)
        self._highest.sort(key=lambda inspection: -inspection.score)
        del self._highest[ROWS_SHOWN:]

    def print_summary(self, model: Inspector, problems: Sequence[Problem]) -> None:
        """The most anomalous images as a table, then the figures."""
        Console(width=None if sys.stdout.isatty() else 120).print(self._table(model))
        if self._count > len(self._highest):
            print(f"the {len(self._highest)} highest of {self._count}; all are in {self.folder / RESULTS}")
        if self._labeled:
            self._print_figures(model)
        if self._distorted:
            first, size = self._distorted[0], named(model.size_px)
            print(
                f"{len(self._distorted)} images were drawn out of shape to the {size} px that the model was fitted to, "
                f"such as {first.path.name} of {first.width}x{first.height}: trust them less, or fit to such images"
            )
        if self._of_other_size and (usual := model.usual_size):
            first, size = self._of_other_size[0], named(model.size_px)
            print(
                f"{len(self._of_other_size)} images are larger or smaller than the {named(usual)} px that the model "
                f"was fitted to, such as {first.path.name} of {named((first.height, first.width))}: they are resized "
                f"to the {size} px that it sees, which is right where they show as much of the product"
            )
        if self._deep:
            print(
                f"{self._deep.path.name} has more than 8 bits a channel, of which this model sees the highest 8, with "
                "65535 as white: one that is fitted to a folder of such images finds their range"
            )
        if self._not_aligned:
            first = self._not_aligned[0]
            print(
                f"{len(self._not_aligned)} images are not aligned and judged as they lie, such as {first.path.name} "
                f"(correlation {first.pose.correlation:.2f}, turned by {first.pose.turn:.0f} degrees)"
            )
        self._print_useless_masks()
        if problems:
            print(f"{len(problems)} images could not be inspected, see above")
        for file in (RESULTS, *(FORMATS[name][0] for name in self._formats)):
            print(f"results: {self.folder / file}")
        if self._drawings:
            score, name = max(self._drawings)
            print(f"drawn: {len(self._drawings)} images; of the highest score, {score:.4g}: {self.folder / name}")

    def _table(self, model: Inspector) -> Table:
        rule = f", regions of {model.area_rule.minimum_area_px} px and more" if model.area_rule else ""
        if model.zone_rule:
            limits = (f"{zone.name} {zone.threshold.value:.4g}" for zone in model.zone_rule.zones)
            rule = f" times that of the zone ({', '.join(limits)})"
        table = Table(title=escape(f"{model.category}: threshold {model.decision.value:.4g}{rule}"))
        table.add_column("score", justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        table.add_column("confidence", justify="right", no_wrap=True)
        table.add_column("regions", no_wrap=True)
        if model.zone_rule:
            table.add_column("zones", overflow="fold")
        table.add_column("image", overflow="fold")
        for inspection in self._highest:
            verdict = "[red]DEFECTIVE[/]" if inspection.is_defective else "[green]good[/]"
            areas = ", ".join(f"{region.area_px} px" for region in inspection.regions[:2])
            more = f" +{len(inspection.regions) - 2}" if len(inspection.regions) > 2 else ""
            path, confidence = escape(str(inspection.path)), f"{inspection.confidence:.0%}"
            if inspection.is_not_aligned:
                verdict += " not aligned"
            zones = [escape(", ".join(inspection.defective_zones))] if model.zone_rule else []
            table.add_row(f"{inspection.score:.4g}", verdict, confidence, areas + more, *zones, path)
        return table

    def _print_figures(self, model: Inspector) -> None:
        """How right the decisions were, where the folder says what is in an image."""
        labels = np.array([record.is_anomaly for _, record in self._labeled])
        scores = np.array([inspection.score for inspection, _ in self._labeled])
        figures = image_figures(labels, scores, model.decision.value)
        names = ("auroc", "balanced_accuracy", "oracle_balanced_accuracy")
        values = {name.replace("_", " "): getattr(figures, name) for name in names}
        shown = (f"{name} {'n/a' if value is None else f'{value:.3f}'}" for name, value in values.items())
        print(f"by the folder's labels: {', '.join(shown)}")
        print(
            f"  {figures.found} of {figures.defective} defective ones found, "
            f"{figures.false_alarms} false alarms among {figures.good} good ones"
        )
        if line := self._pixels.line():
            print(f"  {line}")


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


class AreaResults(ResultsFile):
    """Results of area.py test: lines, images and masks, and figures beside trivial answers."""

    def __init__(self, folder: Path, model: Inspector, overlays: str, saves_masks: bool) -> None:
        super().__init__(folder, overlays, model.outlines)
        self._model, self._saves_masks = model, saves_masks
        self.problems: list[Problem] = []
        self._inspections: list[Inspection] = []
        self._records: list[Record] = []
        self._names: set[Path] = set()
        self._overlap_px, self._union_px, self._mask_count = 0, 0, 0
        self._pixels = InspectedPixels()

    def add(self, inspection: Inspection, record: Record) -> None:
        """Write one down, with its mask and its image where they are wanted."""
        predicted = segmentation(inspection, self._model.area_rule.minimum_area_px)
        name, line = self._name(record), {**inspection.to_dict(), "label": record.defect}
        truth = self._true_mask(inspection, record)
        if self._saves_masks:
            line["segmentation"] = str(Path("masks") / name)
            save_image(Image.fromarray(predicted), self.folder / "masks" / name)
        if self._is_drawn(inspection):
            line["image"] = str(Path("overlays") / name)
            self._draw(self.folder / "overlays" / name, inspection, record, truth)
        if truth is not None:
            # Summed over all pixels: an IoU of each image is undefined where a good one is rightly left alone.
            self._overlap_px += int((predicted & truth).sum())
            self._union_px += int((predicted | truth).sum())
            self._mask_count += record.mask is not None
            self._pixels.add(inspection, truth)
        self._inspections.append(replace(inspection, anomaly_map=None))
        self._records.append(record)
        self._write(line)

    def print_summary(self) -> None:
        """Figures on the screen and in figures.json."""
        if not self._inspections:
            raise UserError("none of the test images could be inspected, see above: look at what they are.")
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
        for defect, counts in figures["defects"].items():
            print(f"  {defect:20} {counts['called_defective']:>4} of {counts['images']:>4} called defective")
        if figures["masks"]["images"]:
            print(f"masks: IoU {number(figures['masks']['iou'])} with {figures['masks']['images']} true ones, over "
                  f"all pixels of good images too")  # fmt: skip
            print(self._pixels.line())
        self._print_useless_masks()
        if self.problems:
            print(f"{len(self.problems)} images could not be inspected, see above")
        print(f"results: {self.folder / 'figures.json'}")

    def figures(self) -> dict:
        """All figures, as plain JSON."""
        labels = np.array([record.is_anomaly for record in self._records])
        scores = np.array([inspection.score for inspection in self._inspections], np.float32)
        area_px, threshold, _ = self._model.area_rule
        by_area = image_figures(labels, scores, threshold.value)
        defects = {}
        for record, inspection in zip(self._records, self._inspections, strict=True):
            counts = defects.setdefault(record.defect, {"images": 0, "called_defective": 0})
            counts["images"] += 1
            counts["called_defective"] += inspection.is_defective
        return {
            "category": self._model.category,
            "minimum_area_px": area_px,
            "threshold": threshold.value,
            "threshold_comes_from": threshold.why,
            "by area": asdict(Rates.of(by_area)),
            "all called good": asdict(Rates.of(always_good(labels))),
            "all called defective": asdict(Rates.of(always_anomalous(labels))),
            "confusion": {name: getattr(by_area, name) for name in ("found", "missed", "true_good", "false_alarms")},
            "figures": by_area._asdict(),
            "defects": dict(sorted(defects.items())),
            "masks": {"images": self._mask_count, "iou": self._overlap_px / self._union_px if self._union_px else None},
            "pixels": self._pixels.as_json(),
            "problems": [{"path": str(problem.path), "reason": problem.reason} for problem in self.problems],
        }

    def _name(self, record: Record) -> Path:
        """DEFECT/NAME.png, as true masks are named; NAME.jpg.png where there is a NAME.png too, then NAME.jpg.2.png."""
        name = Path(record.defect, record.path.stem + ".png")
        if name in self._names:
            name = Path(record.defect, record.path.name + ".png")
        number = 2
        while name in self._names:
            name, number = Path(record.defect, f"{record.path.name}.{number}.png"), number + 1
        self._names.add(name)
        return name


def exit_code(is_any_defective: bool, is_any_unreadable: bool) -> int:
    """What `detect.py run` says by its exit code."""
    if is_any_defective:
        return SOMETHING_DEFECTIVE
    return SOMETHING_UNREADABLE if is_any_unreadable else NOTHING_DEFECTIVE


def segmentation(inspection: Inspection, minimum_area_px: int) -> np.ndarray:
    """Bool (height, width) of the image on disk: the pixels of its regions."""
    size = (inspection.height, inspection.width)
    small = region_mask(inspection.anomaly_map, inspection.map_threshold, minimum_area_px, size)
    return np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.NEAREST))
