"""Where a defect is, as an image: a heatmap on the scale of contract/heatmap.py, contours, boxes, and the verdict."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from baselines.contract.heatmap import draw_heatmap, draw_regions
from baselines.contract.regions import Region
from pretrain.drawing import DEFECT, FAINT, GAP_PX, INK, PAPER, outlined

GOOD_COLOR = "#1f8a4c"
ROI_COLOR = (120, 200, 120)
CAPTION_PX, SCALE_PX = 40, 34
# It is drawn on an image of at most so many times what is shown: lines stay smooth, and a tall image of 36 megapixels
# takes no two minutes and gigabytes.
MOST_TIMES_SHOWN = 4
LARGE_PIXELS, ROWS_AT_ONCE = 2**24, 128


def overlay(
    pixels: np.ndarray,
    anomaly_map: np.ndarray | None,
    threshold: float | None,
    regions: Sequence[Region],
    verdict: str,
    is_defective: bool,
    mask: np.ndarray | None = None,
    shown_px: int = 420,
    outlines: Sequence[tuple[str, np.ndarray]] = (),
) -> Image.Image:
    """The image, the image under its heatmap with contour and boxes, the scale, and the verdict below.

    pixels uint8 (h, w, 3), as on disk; regions in its pixels; `mask` bool (h, w), where the defect really is; a line
    around each of `outlines`, bool of any size, with its name. A second line of the verdict is written small. Without a
    map, the image and the verdict.
    """
    pixels, mask, regions = reduced(pixels, mask, regions, MOST_TIMES_SHOWN * shown_px)
    panels = [draw_regions(pixels, (), mask)]
    if anomaly_map is not None and threshold is not None:
        shown = resized(anomaly_map.astype(np.float32, copy=False), pixels.shape[1::-1], Image.BILINEAR)
        hot = draw_heatmap(pixels, shown, threshold)
        hot = outlined(
            hot, shown > threshold, distance_px=0, width_px=max(1, len(pixels) // 200), color=(255, 255, 255)
        )
        for _, area in outlines:
            inside = np.asarray(Image.fromarray(area).resize(pixels.shape[1::-1], Image.NEAREST))
            hot = outlined(hot, inside, distance_px=0, width_px=max(1, len(pixels) // 200), color=ROI_COLOR)
        panels.append(draw_regions(hot, regions, mask))
    shrink = shown_px / max(pixels.shape[:2])
    size = tuple(max(1, round(side * shrink)) for side in pixels.shape[1::-1])
    width_px = len(panels) * size[0] + (len(panels) - 1) * GAP_PX
    sheet = Image.new("RGB", (max(width_px, 260), size[1] + CAPTION_PX + SCALE_PX), PAPER)
    for number, panel in enumerate(panels):
        sheet.paste(Image.fromarray(panel).resize(size, Image.LANCZOS), (number * (size[0] + GAP_PX), 0))
    draw = ImageDraw.Draw(sheet)
    for name, area in outlines if len(panels) > 1 else ():
        _draw_name(draw, name, area, (size[0] + GAP_PX, 0), size)
    verdict, _, more = verdict.partition("\n")
    draw.text((2, size[1] + 8), verdict, DEFECT if is_defective else GOOD_COLOR, ImageFont.load_default(17))
    draw.text((2, size[1] + CAPTION_PX - 10), more, INK, ImageFont.load_default(12))
    if len(panels) > 1:
        _draw_scale(sheet, (size[0] + GAP_PX, size[1] + CAPTION_PX - 30), min(size[0], 240), threshold)
    if mask is not None:
        draw.text((2, size[1] + CAPTION_PX + 4), "blue: the true defect", FAINT, ImageFont.load_default(12))
    return sheet


def reduced(
    pixels: np.ndarray, mask: np.ndarray | None, regions: Sequence[Region], most_px: int
) -> tuple[np.ndarray, np.ndarray | None, Sequence[Region]]:
    """An image with its mask and the boxes of its regions, of at most `most_px` a side; as they are if they fit."""
    height, width = pixels.shape[:2]
    if max(height, width) <= most_px:
        return pixels, mask, regions
    size = tuple(max(1, round(side * most_px / max(height, width))) for side in (width, height))
    across, down = size[0] / width, size[1] / height
    boxes = [
        region._replace(box=(math.floor(left * across), math.floor(top * down),
                             math.ceil(right * across), math.ceil(bottom * down)))
        for region in regions
        for left, top, right, bottom in [region.box]
    ]  # fmt: skip
    small = resized(pixels, size, Image.BOX)
    if mask is not None:  # any pixel of a thin defect counts
        mask = np.asarray(Image.fromarray(mask).convert("L").resize(size, Image.BOX)) > 0
    return small, mask, boxes


def resized(values: np.ndarray, size: tuple[int, int], way: Image.Resampling) -> np.ndarray:
    """Values (h, w) or (h, w, 3) at a size (width, height). Large ones some rows at a time: Pillow copies what it is
    given, of a hundred megapixels 400 MB."""
    height, width = values.shape[:2]
    if height * width <= LARGE_PIXELS or size[1] >= height:
        return np.asarray(Image.fromarray(values).resize(size, way))
    times, parts = height / size[1], []
    margin = math.ceil(times) + 1  # as far as a row sees
    for top in range(0, size[1], ROWS_AT_ONCE):
        bottom = min(top + ROWS_AT_ONCE, size[1])
        begin, end = max(0, int(top * times) - margin), math.ceil(bottom * times) + margin
        box = (0, top * times - begin, width, bottom * times - begin)
        some = Image.fromarray(np.ascontiguousarray(values[begin:end]))
        parts.append(np.asarray(some.resize((size[0], bottom - top), way, box=box)))
    return np.concatenate(parts)


def _draw_name(
    draw: ImageDraw.ImageDraw, name: str, area: np.ndarray, corner: tuple[int, int], size: tuple[int, int]
) -> None:
    """The name of an outlined area at its upper left, on a panel of `size` (width, height) at `corner`."""
    rows, columns = (np.flatnonzero(area.any(axis)) for axis in (1, 0))
    if not name or not len(rows):
        return
    place = (corner[0] + columns[0] * size[0] / area.shape[1] + 4, corner[1] + rows[0] * size[1] / area.shape[0] + 3)
    draw.text(place, name, ROI_COLOR, ImageFont.load_default(13), stroke_width=1, stroke_fill=INK)


def _draw_scale(sheet: Image.Image, corner: tuple[int, int], width_px: int, threshold: float) -> None:
    """The heatmap's colors from 0 to twice the threshold, on gray, with the threshold marked."""
    ramp = np.linspace(0, 2 * threshold, width_px, dtype=np.float32)[None].repeat(12, axis=0)
    strip = draw_heatmap(np.full((12, width_px, 3), 190, np.uint8), ramp, threshold)
    left, top = corner
    sheet.paste(Image.fromarray(strip), (left, top + 6))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    draw.line((left + width_px // 2, top + 2, left + width_px // 2, top + 21), INK, 1)
    for share, anchor in ((0, "lt"), (0.5, "mt"), (1, "rt")):
        label = f"threshold {threshold:.3g}" if share == 0.5 else f"{2 * share * threshold:.3g}"
        draw.text((left + share * width_px, top + 24), label, FAINT, font, anchor=anchor)
