"""Everything that becomes an image for people: contact sheets and outlines."""

import base64
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt

from pretrain.files import write_whole

PAPER, INK, FAINT, CURVE, DEFECT = "#ffffff", "#1c1c1e", "#6e6e73", "#0a6cff", (255, 45, 85)
MARGIN_PX, GAP_PX, CAPTION_PX, LABEL_PX, TITLE_PX = 24, 6, 18, 110, 48


class Thumbnail(NamedTuple):
    """`pixels` uint8 (h, w, 3), what to write below it, and a bool (h, w) mask whose outline is drawn, or none."""

    pixels: np.ndarray
    caption: str = ""
    mask: np.ndarray | None = None


def contact_sheet(rows: Sequence[tuple[str, Sequence[Thumbnail]]], title: str, thumbnail_px: int = 128) -> Image.Image:
    """Rows of small images, each row with its label at the left, each image with its caption below."""
    columns = max(len(thumbnails) for _, thumbnails in rows)
    width_px = 2 * MARGIN_PX + LABEL_PX + columns * (thumbnail_px + GAP_PX)
    row_px = thumbnail_px + CAPTION_PX + GAP_PX
    sheet = Image.new("RGB", (width_px, 2 * MARGIN_PX + TITLE_PX + len(rows) * row_px), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN_PX, MARGIN_PX), title, INK, ImageFont.load_default(22))
    label_font, caption_font = ImageFont.load_default(15), ImageFont.load_default(12)
    for row, (label, thumbnails) in enumerate(rows):
        top = MARGIN_PX + TITLE_PX + row * row_px
        draw.text((MARGIN_PX, top + thumbnail_px // 2), label, INK, label_font, anchor="lm")
        for column, thumbnail in enumerate(thumbnails):
            left = MARGIN_PX + LABEL_PX + column * (thumbnail_px + GAP_PX)
            sheet.paste(_small(thumbnail, thumbnail_px), (left, top))
            draw.text((left, top + thumbnail_px + 2), thumbnail.caption, FAINT, caption_font)
    return sheet


def outlined(
    pixels: np.ndarray,
    mask: np.ndarray,
    distance_px: int = 3,
    width_px: int = 2,
    color: tuple[int, int, int] = DEFECT,
) -> np.ndarray:
    """A copy of `pixels` uint8 (h, w, 3) with a line around the mask, at a distance that leaves the defect visible."""
    if not mask.any():
        return pixels
    away_px = distance_transform_edt(~mask)
    line = (away_px > distance_px) & (away_px <= distance_px + width_px)
    return np.where(line[:, :, None], np.uint8(color), pixels)


class Curve(NamedTuple):
    """A panel: its title, points (x, y) with rising x, a level to draw as a dashed line, or none, and what
    to write below both ends; by default x counts steps."""

    title: str
    points: Sequence[tuple[float, float]]
    level: float | None = None
    ends: tuple[str, str] | None = None


def curves(panels: Sequence[Curve], title: str, width_px: int = 900, panel_px: int = 190) -> Image.Image:
    """Panels one below another, each with a scale of its own."""
    sheet = Image.new("RGB", (width_px, 2 * MARGIN_PX + TITLE_PX + len(panels) * panel_px), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN_PX, MARGIN_PX), title, INK, ImageFont.load_default(22))
    for number, panel in enumerate(panels):
        top = MARGIN_PX + TITLE_PX + number * panel_px
        _draw_curve(draw, panel, (MARGIN_PX + 70, top + 26, width_px - MARGIN_PX, top + panel_px - 30))
    return sheet


def _draw_curve(draw: ImageDraw.ImageDraw, panel: Curve, box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    font = ImageFont.load_default(12)
    draw.text((left, top - 22), panel.title, INK, ImageFont.load_default(15))
    draw.rectangle(box, outline="#d1d1d6")
    xs, ys = (np.array(values, float) for values in zip(*panel.points, strict=True))
    heights = ys if panel.level is None else np.append(ys, panel.level)
    low, high = heights.min(), heights.max()
    room = 0.05 * (high - low) or 0.5
    low, high = low - room, high + room

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - xs[0]) / max(xs[-1] - xs[0], 1e-9)
        return left + across * (right - left), bottom - (y - low) / (high - low) * (bottom - top)

    for y, anchor in ((high, "rt"), (low, "rb")):
        draw.text((left - 6, place(xs[0], y)[1]), f"{y:.3g}", FAINT, font, anchor=anchor)
    first, last = panel.ends or (f"{xs[0]:.0f}", f"{xs[-1]:.0f} steps")
    draw.text((left, bottom + 4), first, FAINT, font)
    draw.text((right, bottom + 4), last, FAINT, font, anchor="ra")
    if panel.level is not None:
        y = place(xs[0], panel.level)[1]
        for x in range(left, right, 12):
            draw.line((x, y, x + 6, y), FAINT)
    draw.line([place(x, y) for x, y in zip(xs, ys, strict=True)], CURVE, 2)


def save_image(image: Image.Image, path: Path, **options: object) -> None:
    """Write an image, as PNG unless the name ends otherwise; a reader never meets half of one. `options` are the
    format's own, such as quality."""
    data = BytesIO()
    image.save(data, format=Image.registered_extensions().get(path.suffix.lower(), "PNG"), **options)
    write_whole(path, data.getvalue())


def _small(thumbnail: Thumbnail, size_px: int) -> Image.Image:
    pixels = thumbnail.pixels if thumbnail.mask is None else outlined(thumbnail.pixels, thumbnail.mask)
    return Image.fromarray(pixels).resize((size_px, size_px), Image.Resampling.LANCZOS)


def data_url(image: Image.Image, quality: int) -> str:
    """An image within a page, as JPEG."""
    data = BytesIO()
    image.save(data, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
