"""Restored images to look at: degraded, restored, truth, error and mask side by side, under their own names."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from baselines.restoration.evaluation import Sight
from pretrain.drawing import GAP_PX, INK, PAPER, Thumbnail, contact_sheet, save_image

# One scale for all images: an error of a quarter of white is white.
ERROR_GAIN = 4
CAPTION_PX = 22
SHEET_ROWS = 8


def panels(sight: Sight) -> dict[str, np.ndarray]:
    """uint8 (h, w, 3) each, by what they show."""
    error = (sight.restored - sight.clean).abs().mean(0, keepdim=True).expand(3, -1, -1) * ERROR_GAIN
    shown = {
        "degraded": pixels_of(sight.degraded),
        "restored": pixels_of(sight.restored),
        "truth": pixels_of(sight.clean),
        f"error x {ERROR_GAIN}": pixels_of(error),
    }
    if sight.mask is not None:
        shown["mask"] = pixels_of(sight.mask.float().expand(3, -1, -1))
    return shown


def pixels_of(image: Tensor) -> np.ndarray:
    """float (3, h, w) in [0, 1] -> uint8 (h, w, 3)."""
    return image.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()


def strip(sight: Sight) -> Image.Image:
    """All panels in a row, pixel for pixel, each with its name above."""
    shown = panels(sight)
    height, width = sight.clean.shape[-2:]
    image = Image.new("RGB", (len(shown) * (width + GAP_PX) - GAP_PX, height + CAPTION_PX), PAPER)
    draw = ImageDraw.Draw(image)
    for number, (name, pixels) in enumerate(shown.items()):
        left = number * (width + GAP_PX)
        draw.text((left + 2, 3), name, INK, ImageFont.load_default(14))
        image.paste(Image.fromarray(pixels), (left, CAPTION_PX))
    return image


def save_strip(sight: Sight, folder: Path) -> None:
    save_image(strip(sight), folder / f"{sight.name}.png")


def sheet(sights: Sequence[Sight], title: str) -> Image.Image:
    """A few of them on one page."""
    rows = []
    for sight in sights[:SHEET_ROWS]:
        thumbnails = [Thumbnail(pixels, name) for name, pixels in panels(sight).items()]
        rows.append((sight.name.replace("/", "\n"), thumbnails))
    return contact_sheet(rows, title, thumbnail_px=200)
