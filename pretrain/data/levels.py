"""What an image file holds where that is more than 8 bits a channel, and what of it becomes 8.

decode.py makes 8 bits of everything by a fixed shift. Here a range counts: what lies between its ends becomes 256
levels, what is beyond them the lowest or the highest.
"""

import math
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pretrain.data.decode import (
    MAX_PIXELS,
    Unreadable,
    bytes_of,
    decode_array,
    eight_bit_rgb,
    open_with_pillow,
    plain_color_png,
)
from pretrain.data.size import Size, sides
from pretrain.reading import open_regular

if TYPE_CHECKING:
    from PIL import Image

# As many bytes tell PNG's depth, and that a file is a TIFF.
HEAD_BYTES = 26


class Range(NamedTuple):
    """Values of a camera: at `low` and below an image is black, at `high` and above white."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


def as_range(values: object) -> Range:
    """Raises ValueError for what is none."""
    if not isinstance(values, list) or len(values) != 2 or not all(type(value) in (int, float) for value in values):
        raise ValueError(f"{values!r:.40} is no range")
    low, high = map(float, values)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{low:g} to {high:g} is no range")
    return Range(low, high)


def is_deep(path: Path, page: int = 0) -> bool:
    """Whether a page of a file has more than 8 bits a channel, by its head; not so of one that cannot be read."""
    try:
        with open_regular(path) as file:
            head = file.read(HEAD_BYTES)
        if head[:8] == b"\x89PNG\r\n\x1a\n":
            return head[24:26] in (b"\x10\x00", b"\x10\x02")
        if head[:4] not in (b"II*\0", b"MM\0*"):
            return False
        return open_with_pillow(BytesIO(bytes_of(path)), lambda image: _has_levels(_at_page(image, page)))
    except (OSError, Unreadable):
        return False


def pages_of(data: bytes) -> int:
    """How many images a file holds. Raises Unreadable."""
    return open_with_pillow(BytesIO(data), lambda image: getattr(image, "n_frames", 1))


def read_levels(data: bytes, page: int = 0) -> np.ndarray:
    """A page of a file, upright: of more than 8 bits as it is, (h, w) or of color (h, w, 3), otherwise uint8 (h, w, 3).
    Raises Unreadable. Of color in 16 bits this is PNG; of TIFF Pillow keeps 8."""

    color = plain_color_png(data, 16)
    if color is not None:
        return color
    return open_with_pillow(BytesIO(data), lambda image: levels_of_image(_at_page(image, page)))


def levels_of_image(image: "Image.Image") -> np.ndarray:
    """The same of an image of Pillow's."""
    from PIL import ImageOps

    if not _has_levels(image):
        return eight_bit_rgb(image)
    levels = np.asarray(ImageOps.exif_transpose(image))
    return levels.astype(levels.dtype.newbyteorder("="))


def in_range(levels: np.ndarray, limits: Range, size_px: Size | None = None) -> np.ndarray:
    """uint8 (h, w, 3) of what a camera gives, (h, w) or (h, w, 3), at `size_px`. Raises Unreadable for 8 bits."""
    if levels.dtype == np.uint8:
        raise Unreadable(f"has 8 bits a channel, where values from {limits} are expected")
    planes = [levels] if levels.ndim == 2 else [levels[:, :, channel] for channel in range(levels.shape[2])]
    found = np.stack([_plane_in_range(plane, limits, size_px) for plane in planes], axis=2)
    return np.repeat(found, 3, axis=2) if len(planes) == 1 else found


def without_range(levels: np.ndarray, size_px: Size | None = None) -> np.ndarray:
    """The same by a fixed shift, as in decode.py. Raises Unreadable for 32 bits."""
    if levels.dtype == np.uint16:
        levels = (levels >> 8).astype(np.uint8)
    if levels.dtype != np.uint8:
        raise Unreadable("holds values of a range, where 8 bits are expected")
    levels = np.repeat(levels[:, :, None], 3, axis=2) if levels.ndim == 2 else levels
    return decode_array(levels, size_px).pixels


def _plane_in_range(plane: np.ndarray, limits: Range, size_px: Size | None) -> np.ndarray:
    """Levels (h, w) as uint8. They are averaged to their size before they are rounded, so that less is lost."""
    shares = plane.astype(np.float32)
    shares -= limits.low
    shares /= limits.high - limits.low
    np.nan_to_num(shares, copy=False, nan=0.0)
    np.clip(shares, 0, 1, out=shares)
    if size_px is not None and shares.shape != tuple(sides(size_px)):
        from PIL import Image

        height, width = sides(size_px)
        shares = np.asarray(Image.fromarray(shares).resize((width, height), Image.Resampling.BILINEAR))
    return np.rint(shares * 255).astype(np.uint8)


def _at_page(image: "Image.Image", page: int) -> "Image.Image":
    if page:
        try:
            image.seek(page)
        except EOFError:
            raise Unreadable(f"has no page {page + 1}") from None
        if image.width * image.height > MAX_PIXELS:
            raise Unreadable(f"claims more than {MAX_PIXELS / 1e6:.0f} million pixels: a decompression bomb?")
    return image


def _has_levels(image: "Image.Image") -> bool:
    """Under one of Pillow's several names for 16 and 32 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;")
