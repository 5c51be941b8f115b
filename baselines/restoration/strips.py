"""Restored images drawn: degraded, restored, truth, error and mask side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pretrain.drawing import GAP_PX, INK, PAPER, Thumbnail, contact_sheet, save_image

# One scale for all images: an error of a quarter of white is white.
ERROR_GAIN = 4
CAPTION_PX = 22
MAX_SHEET_ROWS = 8


class RestoredImage(NamedTuple):
    """Degraded, restored and clean float32 (3, h, w), and the mask bool (h, w) or none."""

    name: str
    category: str
    degraded: Tensor
    restored: Tensor
    clean: Tensor
    mask: Tensor | None


def panels(image: RestoredImage) -> dict[str, np.ndarray]:
    """Panels uint8 (h, w, 3) by their captions."""
    error = (image.restored - image.clean).abs().mean(0, keepdim=True).expand(3, -1, -1) * ERROR_GAIN
    drawn = {
        "degraded": to_pixels(image.degraded),
        "restored": to_pixels(image.restored),
        "truth": to_pixels(image.clean),
        f"error x {ERROR_GAIN}": to_pixels(error),
    }
    if image.mask is not None:
        drawn["mask"] = to_pixels(image.mask.float().expand(3, -1, -1))
    return drawn


def to_pixels(image: Tensor) -> np.ndarray:
    """float (3, h, w) in [0, 1] -> uint8 (h, w, 3)."""
    return image.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()


def strip(image: RestoredImage) -> Image.Image:
    """All panels in a row, unscaled, each with its caption above."""
    drawn = panels(image)
    height, width = image.clean.shape[-2:]
    row = Image.new("RGB", (len(drawn) * (width + GAP_PX) - GAP_PX, height + CAPTION_PX), PAPER)
    draw = ImageDraw.Draw(row)
    for number, (caption, pixels) in enumerate(drawn.items()):
        left = number * (width + GAP_PX)
        draw.text((left + 2, 3), caption, INK, ImageFont.load_default(14))
        row.paste(Image.fromarray(pixels), (left, CAPTION_PX))
    return row


def save_strip(image: RestoredImage, folder: Path) -> None:
    save_image(strip(image), folder / f"{image.name}.png")


def sheet(images: Sequence[RestoredImage], title: str) -> Image.Image:
    """The first images on one page, a row each."""
    rows = []
    for image in images[:MAX_SHEET_ROWS]:
        thumbnails = [Thumbnail(pixels, caption) for caption, pixels in panels(image).items()]
        rows.append((image.name.replace("/", "\n"), thumbnails))
    return contact_sheet(rows, title, thumbnail_px=200)
