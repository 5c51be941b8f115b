"""What helps to choose a minimum area, drawn: regions by threshold, their sizes, areas compared, samples."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from baselines.contract.heatmap import draw_heatmap
from baselines.contract.regions import region_mask
from downstream.inspection.area_choice import (
    AreaRow,
    ThresholdRow,
    ValidationImages,
    maps_of,
    normal_scores,
    synthetic,
)
from downstream.inspection.config import AreaFinetune
from downstream.inspection.images import records_to_inspect
from downstream.inspection.inspector import Inspector
from pretrain.command import UserError
from pretrain.data.channels import read_image
from pretrain.data.dataset import layout_of
from pretrain.data.decode import Unreadable, read_mask
from pretrain.data.images import LayoutName
from pretrain.data.layouts import has_layout
from pretrain.drawing import CURVE, FAINT, INK, MARGIN_PX, PAPER, TITLE_PX, Curve, Thumbnail, contact_sheet, curves

PANELS = 6
PANEL_WIDTH_PX, PANEL_HEIGHT_PX = 420, 190


class Example(NamedTuple):
    """An image to show: what it is, `pixels` uint8 (h, w, 3), its map float32 (h, w), (height, width) on disk, and
    bool (h, w) where the defect is, or none."""

    name: str
    pixels: np.ndarray
    anomaly_map: np.ndarray
    size: tuple[int, int]
    mask: np.ndarray | None = None


def regions_chart(rows: Sequence[ThresholdRow], title: str) -> Image.Image:
    """Number of regions an image, mean and standard deviation of their areas, by threshold. Areas fall from the whole
    image to a pixel, so their logarithms are drawn."""

    def panel(name: str, points: Sequence[tuple[float, float]]) -> Curve:
        ends = (f"{points[0][0]:.3g}", f"threshold {points[-1][0]:.3g}") if points else None
        return Curve(name, points, ends=ends)

    def logarithms(name: str) -> list[tuple[float, float]]:
        known = [(row.threshold, getattr(row, name)) for row in rows]
        return [(threshold, float(np.log10(max(1, area)))) for threshold, area in known if area is not None]

    panels = [
        panel("regions an image", [(row.threshold, row.regions_per_image) for row in rows]),
        panel("mean area of a region, log10 of px", logarithms("mean_area_px")),
        panel("standard deviation of the areas, log10 of px", logarithms("std_area_px")),
    ]
    return curves([curve for curve in panels if curve.points], title)


def areas_chart(rows: Sequence[AreaRow], chosen: AreaRow, title: str) -> Image.Image:
    """What each area is worth, by area, on a logarithmic axis, so that small ones can be told apart."""

    def points(name: str) -> list[tuple[float, float]]:
        return [(float(np.log10(row.area_px)), getattr(row, name)) for row in rows]

    ends = (f"{rows[0].area_px} px", f"minimum area {rows[-1].area_px} px")
    best = f"balanced accuracy (dashed: {chosen.balanced_accuracy:.3f} at {chosen.area_px} px)"
    panels = [
        Curve(best, points("balanced_accuracy"), chosen.balanced_accuracy, ends),
        Curve("synthetic anomalies found", points("true_positive_rate"), ends=ends),
        Curve("validation images passed", points("true_negative_rate"), ends=ends),
        Curve("threshold", points("threshold"), ends=ends),
    ]
    return curves(panels, title)


def sizes_chart(rows: Sequence[ThresholdRow], areas: Sequence[np.ndarray], title: str) -> Image.Image:
    """Histograms of region areas, in octaves, at the lowest threshold and at rising ones."""
    largest = max(max((int(of_image.max()) for of_image in areas if len(of_image)), default=1), 1)
    edges = 2.0 ** np.arange(int(np.log2(largest)) + 2)
    chosen = np.linspace(0, len(rows) - 1, PANELS).astype(int)
    height_px = 2 * MARGIN_PX + TITLE_PX + PANELS // 2 * PANEL_HEIGHT_PX
    sheet = Image.new("RGB", (2 * MARGIN_PX + 2 * PANEL_WIDTH_PX, height_px), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN_PX, MARGIN_PX), title, INK, ImageFont.load_default(22))
    for number, position in enumerate(chosen):
        left = MARGIN_PX + number % 2 * PANEL_WIDTH_PX
        top = MARGIN_PX + TITLE_PX + number // 2 * PANEL_HEIGHT_PX
        box = (left, top + 24, left + PANEL_WIDTH_PX - 40, top + PANEL_HEIGHT_PX - 30)
        name = f"above {rows[position].threshold:.4g}" + (", the lowest" if position == 0 else "")
        draw.text((left, top), f"{name}: {len(areas[position])} regions", INK, ImageFont.load_default(15))
        _draw_bars(draw, np.histogram(areas[position], edges)[0], edges, box)
    return sheet


def _draw_bars(
    draw: ImageDraw.ImageDraw, counts: np.ndarray, edges: np.ndarray, box: tuple[int, int, int, int]
) -> None:
    left, top, right, bottom = box
    font, width = ImageFont.load_default(12), (right - left) / len(counts)
    draw.line((left, bottom, right, bottom), FAINT)
    for number, count in enumerate(counts):
        x = left + number * width
        if count:
            y = bottom - (bottom - top - 16) * count / counts.max()
            draw.rectangle((x + 1, y, x + max(2, width - 2), bottom), CURVE)
            draw.text((x + width / 2, y - 2), str(count), FAINT, font, anchor="mb")
        if number % 4 == 0:
            draw.text((x, bottom + 4), f"{edges[number]:.0f} px", FAINT, font)


def examples(model: Inspector, validation: ValidationImages, best: AreaRow, config: AreaFinetune) -> Iterator[Example]:
    """The validation image that comes nearest to the threshold, one with a synthetic anomaly, and a defective test
    image where the folder has one. Only to look at: nothing is chosen by them."""
    worst = int(np.argmax(normal_scores(validation, (best.area_px,))))
    yield Example("validation", validation.images.batch([worst])[0], validation.maps[worst], validation.sizes[worst])
    own, image, mask = next(synthetic(validation, 1, config.seed))
    (synthetic_map,) = maps_of(model.method, [image])
    pixels = np.rint(255 * image.permute(1, 2, 0).numpy()).astype(np.uint8)
    yield Example("synthetic", pixels, synthetic_map, validation.sizes[own], mask)
    layout = layout_of(config.data, config.layout, model.metadata)
    if has_layout(config.data, layout) and (tested := _test_example(model, config.data, config.category, layout)):
        yield tested


def _test_example(model: Inspector, data: Path, category: str | None, layout: LayoutName | None) -> Example | None:
    try:
        records, _ = records_to_inspect([data], category or model.category, layout)
        record = next(record for record in records if record.is_anomaly)
        image = read_image(record.path, model.size_px, model.channels)
        mask = read_mask(record.mask, model.size_px) if record.mask else None
    except (UserError, Unreadable, StopIteration):  # no test images, or a damaged one: the examples above remain
        return None
    (tested_map,) = maps_of(model.method, [torch.from_numpy(image.pixels.copy()).permute(2, 0, 1).float().div(255)])
    return Example(f"test, {record.defect}", image.pixels, tested_map, (image.height, image.width), mask)


def sample_sheet(examples: Sequence[Example], threshold: float, area_px: int, title: str) -> Image.Image:
    """Each image, its map in gray, white at twice the threshold in every row, and its heatmap with the regions
    that count outlined."""
    rows = []
    for example in examples:
        gray = np.clip(example.anomaly_map / max(2 * threshold, 1e-12), 0, 1)
        gray = np.repeat(np.rint(255 * gray).astype(np.uint8)[:, :, None], 3, axis=2)
        counting = region_mask(example.anomaly_map, threshold, area_px, example.size)
        hot = draw_heatmap(example.pixels, example.anomaly_map, threshold)
        verdict = "DEFECTIVE: a region of the area" if counting.any() else "good: no region of the area"
        rows.append((example.name, [
            Thumbnail(example.pixels, "image", example.mask),
            Thumbnail(gray, f"map, up to {example.anomaly_map.max():.3g}"),
            Thumbnail(hot, verdict, counting),
        ]))  # fmt: skip
    return contact_sheet(rows, title, thumbnail_px=256)
