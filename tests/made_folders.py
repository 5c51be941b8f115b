"""Images and masks of a few pixels, for folders laid out as a test needs them."""

from pathlib import Path

import numpy as np
from PIL import Image


def image(path: Path, size: tuple[int, int] = (12, 10), level: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, 20, 20)).save(path)
    return path


def mask(path: Path, rows: slice = slice(2, 5), size: tuple[int, int] = (12, 10), value: int = 255) -> Path:
    """A mask whose `rows` show a defect."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.zeros(size[::-1], np.uint8)
    levels[rows] = value
    Image.fromarray(levels).save(path)
    return path
