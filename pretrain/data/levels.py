"""What an image file holds where that is more than 8 bits a channel, and what of it becomes 8.

decode.py makes 8 bits of everything by a fixed shift. Here a range counts: what lies between its ends becomes 256
levels, what is beyond them the lowest or the highest.
"""

import math
from collections.abc import Sequence
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pretrain.data.bands import Layer, NotRead, as_gray, banded_page, bands_of, is_tiff, layers_in, page_at
from pretrain.data.decode import (
    MAX_PIXELS,
    TOO_MANY,
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


def is_deep(path: Path, layers: Sequence[int] = (0,)) -> list[bool]:
    """Of images that a file holds whether each has more than 8 bits a channel, by heads; not so of what cannot be
    read."""
    try:
        with open_regular(path) as file:
            head = file.read(HEAD_BYTES)
        if head[:8] == b"\x89PNG\r\n\x1a\n":
            return [head[24:26] in (b"\x10\x00", b"\x10\x02")] * len(layers)
        if not is_tiff(head):
            return [False] * len(layers)
        data = bytes_of(path)
        return [_is_deep(data, number) for number in layers]
    except (OSError, Unreadable):
        return [False] * len(layers)


def _is_deep(data: bytes, number: int) -> bool:
    try:
        layer = _layers(data, [number])[0]
        if layer.bands:
            return page_at(data, layer.page).bits > 8
        return open_with_pillow(BytesIO(data), lambda image: _has_levels(_at_page(image, layer.page)))
    except (ValueError, Unreadable):
        return False


def held_in(data: bytes) -> tuple[int, str]:
    """How many images a file holds, and that in words. Raises Unreadable."""
    if not is_tiff(data):
        count = open_with_pillow(BytesIO(data), lambda image: getattr(image, "n_frames", 1))
        return count, f"{count} {'page' if count == 1 else 'pages'}"
    layers = _layers(data)
    count = len(layers)
    if any(len(layer.bands) == 1 for layer in layers):
        return count, f"{count} lights in its bands"
    return count, f"{count} {'page' if count == 1 else 'pages'}"


def check_alone(data: bytes) -> None:
    """Raise Unreadable for a page of several bands, none of them color, of which one would stand for all."""
    page = banded_page(data)
    if page and len(page.groups[0]) == 1:
        raise Unreadable(page.refusal)


def read_levels(data: bytes, layers: Sequence[int] = (0,)) -> list[np.ndarray]:
    """Images that a file holds, by their numbers, upright: of more than 8 bits as they are, (h, w) or of color (h, w,
    3), otherwise uint8 (h, w, 3), or (h, w) of one band. Raises Unreadable."""
    color = plain_color_png(data, 16)
    if color is not None:
        return [color] * len(layers)
    found, page, levels = [], -1, np.empty(0)
    for layer in _layers(data, layers) if is_tiff(data) else map(Layer, layers):
        if not layer.bands:
            found.append(_levels_of_page(data, layer.page))
            continue
        if page != layer.page:  # all bands of a page are unpacked at once
            page, levels = layer.page, _levels_of_bands(data, layer.page)
        found.append(levels[:, :, layer.bands[0]] if len(layer.bands) == 1 else levels[:, :, : len(layer.bands)])
    return found


def _layers(data: bytes, wanted: Sequence[int] | None = None) -> list[Layer]:
    """Those of a TIFF, all or some by their numbers. Raises Unreadable."""
    try:
        layers = list(islice(layers_in(data), None if wanted is None else max(wanted) + 1))
    except ValueError as error:
        raise Unreadable(f"damaged or cut off ({error})") from None
    if wanted is None:
        return layers
    if max(wanted) >= len(layers):
        raise Unreadable(f"has no page {max(wanted) + 1}")
    return [layers[number] for number in wanted]


def _levels_of_page(data: bytes, number: int) -> np.ndarray:
    return open_with_pillow(BytesIO(data), lambda image: levels_of_image(_at_page(image, number)))


def _levels_of_bands(data: bytes, number: int) -> np.ndarray:
    """(h, w, bands), the bands of color first. Raises Unreadable."""
    try:
        page = page_at(data, number)
        if math.prod(page.size) * page.samples > MAX_PIXELS:
            raise Unreadable(TOO_MANY)
        return bands_of(page, [open_with_pillow(BytesIO(gray), np.asarray) for gray in as_gray(page, data)])
    except NotRead as reason:
        raise Unreadable(str(reason)) from None
    except ValueError as error:
        raise Unreadable(f"damaged or cut off ({error})") from None


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
            raise Unreadable(TOO_MANY)
    return image


def _has_levels(image: "Image.Image") -> bool:
    """Under one of Pillow's several names for 16 and 32 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;")
