"""Results as other tools read them: COCO's JSON, Label Studio's predictions, and a table.

All images are listed; what is marked are the regions of those that were called defective. Names of images are relative
to the folder that they have in common, for Label Studio to the one above: its storage has to lie below its root.
"""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
from scipy.ndimage import label

from baselines.contract.regions import TOUCHING, Region
from baselines.contract.threshold import is_anomalous
from downstream.inspection.inspection import Inspection

DEFECT = "defect"
TABLE = ("path", "is_defective", "score", "threshold", "confidence", "width", "height", "label", "regions", "area_px",
         "left", "top", "right", "bottom")  # fmt: skip
# A spreadsheet would run a cell that begins so as a formula (CSV injection).
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class Marked(NamedTuple):
    """An inspection without its map, what the image's folder says of it, and the pixels of each region in COCO's
    run-length code, none where they are not asked for."""

    inspection: Inspection
    label: str
    masks: Sequence[list[int]] = ()

    @property
    def regions(self) -> Sequence[Region]:
        """What is to be marked."""
        return self.inspection.regions if self.inspection.is_defective else ()


def region_pixels(inspection: Inspection, region: Region, zone: np.ndarray | None = None) -> np.ndarray:
    """Bool (bottom - top, right - left): the pixels of a region in its box, those of the map that touch its peak, and
    with `zone`, bool of the map's size, lie there."""
    (h, w), (left, top, right, bottom) = inspection.anomaly_map.shape, region.box
    height, width = inspection.height, inspection.width
    first_row, last_row = top * h // height, -(-bottom * h // height)
    first_column, last_column = left * w // width, -(-right * w // width)
    part = np.s_[first_row:last_row, first_column:last_column]
    values = inspection.anomaly_map[part]
    inside = is_anomalous(values, inspection.map_threshold)
    numbers, _ = label(inside if zone is None else inside & zone[part], TOUCHING)
    # Other regions may have the same peak. In an image smaller than the map its place is that of several values.
    across = (2 * np.arange(first_column, last_column) + 1) * width // (2 * w) == region.center[0]
    down = (2 * np.arange(first_row, last_row) + 1) * height // (2 * h) == region.center[1]
    from_peak = np.where(down[:, None] & across & (numbers > 0), np.abs(values - region.peak), np.inf)
    own = numbers == numbers.flat[from_peak.argmin()]
    rows = (2 * np.arange(top, bottom) + 1) * h // (2 * height) - first_row
    columns = (2 * np.arange(left, right) + 1) * w // (2 * width) - first_column
    pixels = own[np.ix_(rows, columns)]
    return pixels if pixels.any() else ~pixels  # of an image smaller than the map, none may be hit


def run_lengths(pixels: np.ndarray, box: Sequence[int], height: int, width: int) -> list[int]:
    """COCO's code of a mask that is `pixels` (h, w) in a box of an image and nothing elsewhere: how many pixels, down
    the columns, are not in it, are, are not, and so on."""
    (left, top, _, _), (h, _) = box, pixels.shape
    columns = np.pad(pixels.T, ((0, 0), (1, 1)))  # bytes: of a large box, numbers of pixels would fill the memory
    column, row = np.divmod(np.flatnonzero(columns[:, 1:] != columns[:, :-1]), h + 1)
    edges = (column + left) * height + row + top  # by turns the first of a run, and the first after it
    goes_on = np.flatnonzero(edges[1:] == edges[:-1])  # from the last row into the next column
    edges = np.delete(edges, [goes_on, goes_on + 1])
    lengths = np.diff(edges, prepend=0, append=height * width).tolist()
    return lengths if lengths[-1] else lengths[:-1]


def marked(inspection: Inspection, defect: str, outlines: Sequence[tuple[str, np.ndarray]] = ()) -> Marked:
    """An inspection with the masks of its regions, before its map is let go. `outlines`, an Inspector's, are the zones:
    a region ends where its own does."""
    found, zones = Marked(inspection, defect), dict(outlines)
    masks = [
        run_lengths(
            region_pixels(inspection, region, None if region.zone is None else zones[region.zone]),
            region.box,
            inspection.height,
            inspection.width,
        )
        for region in found.regions
    ]
    return found._replace(masks=masks)


def coco(folder: Path, found: Sequence[Marked]) -> str:
    """A data set of COCO's, which has scores beside: of each region its peak, of each image its own."""
    images, annotations = [], []
    for number, (inspection, _, masks) in enumerate(found, 1):
        verdict = {name: getattr(inspection, name) for name in ("is_defective", "score", "threshold", "confidence")}
        name = inspection.path.absolute().relative_to(folder).as_posix()
        size = {"width": inspection.width, "height": inspection.height}
        images.append({"id": number, "file_name": name, **size, **verdict})
        for region, counts in zip(found[number - 1].regions, masks, strict=True):
            left, top, right, bottom = region.box
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 0, "score": region.peak,
                "bbox": [left, top, right - left, bottom - top], "area": sum(counts[1::2]),
                "segmentation": {"counts": counts, "size": [inspection.height, inspection.width]},
            })  # fmt: skip
    categories = [{"id": 1, "name": DEFECT}]
    info = {"description": f"results of heldout; file names are relative to {folder}"}
    return json.dumps({"info": info, "images": images, "annotations": annotations, "categories": categories})


def label_studio(folder: Path, found: Sequence[Marked]) -> str:
    """Tasks of Label Studio, each with a prediction: the verdict as a choice, and rectangles in percent. Images are
    asked for by their names in its local storage, which is `folder`."""
    tasks = []
    for each in found:
        inspection = each.inspection
        name = inspection.path.absolute().relative_to(folder.parent).as_posix()
        shared = {"to_name": "image", "original_width": inspection.width, "original_height": inspection.height,
                  "image_rotation": 0}  # fmt: skip
        choice = "defective" if inspection.is_defective else "good"
        verdict = {"id": "verdict", "type": "choices", "from_name": "verdict", **shared}
        result: list[dict] = [{**verdict, "value": {"choices": [choice]}}]
        for number, region in enumerate(each.regions, 1):
            left, top, right, bottom = region.box
            value = {"x": 100 * left / inspection.width, "y": 100 * top / inspection.height, "rotation": 0,
                     "width": 100 * (right - left) / inspection.width, "rectanglelabels": [DEFECT],
                     "height": 100 * (bottom - top) / inspection.height}  # fmt: skip
            result.append({"id": f"region{number}", "type": "rectanglelabels", "from_name": "label", **shared,
                           "score": region.peak, "value": value})  # fmt: skip
        prediction = {"model_version": "heldout", "score": inspection.confidence, "result": result}
        data = {"image": f"/data/local-files/?d={quote(os.fsencode(name))}", "anomaly_score": inspection.score}
        tasks.append({"data": data, "predictions": [prediction]})
    return json.dumps(tasks)


def table(folder: Path, found: Sequence[Marked]) -> str:
    """A line an image, with the box of its clearest region."""
    lines = [csv_line(TABLE)]
    for each in found:
        inspection, clearest = each.inspection, each.regions[0] if each.regions else None
        verdict = [str(inspection.path), *(getattr(inspection, name) for name in TABLE[1:7]), each.label]
        lines.append(csv_line([*verdict, len(each.regions), *((clearest.area_px, *clearest.box) if clearest else ())]))
    return "".join(lines)


def csv_line(values: Iterable[object]) -> str:
    """A line of CSV, of which no cell is a formula."""
    file = io.StringIO()
    csv.writer(file).writerow(f"'{v}" if isinstance(v, str) and v.startswith(FORMULA_STARTS) else v for v in values)
    return file.getvalue()


# What --format may name, and the file of each.
FORMATS: dict[str, tuple[str, Callable[[Path, Sequence[Marked]], str]]] = {
    "coco": ("results.coco.json", coco),
    "label-studio": ("results.label-studio.json", label_studio),
    "csv": ("results.csv", table),
}


def common_folder(found: Sequence[Marked]) -> Path:
    """The folder that all images lie in."""
    return Path(os.path.commonpath([each.inspection.path.absolute().parent for each in found] or [Path.cwd()]))
