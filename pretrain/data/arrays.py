"""Images as Python has them: paths, arrays, tensors, Pillow's, one or many."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pretrain.command import UserError
from pretrain.data.channels import MAX_MEASURED, PLAIN, Channels, ToFind, as_parts, joined, range_of, read_image
from pretrain.data.decode import Decoded, Unreadable, bytes_of, decode_array, eight_bit_rgb, size_on_disk
from pretrain.data.layouts import has_layout, scan, scan_plain
from pretrain.data.levels import Range, levels_of_image, read_levels
from pretrain.data.size import Size

CHANNELS = (1, 3, 4)
# In place of a range, where values are taken as they are.
ANY = Range(0, 1)
ALLOWED = (
    "give a path, an image of Pillow's, or an array (h, w), (h, w, 3) or (3, h, w) of bytes, of 16 bits, or of floats "
    "from 0 to 1; or many of them, as a list or with one dimension more in front: of gray ones (n, h, w, 1)"
)


class Given(NamedTuple):
    """`images` as they were given, one by one; `is_one` where there was one alone and no list."""

    images: Sequence
    is_one: bool


def given(images: object, channels: Channels = PLAIN) -> Given:
    """One image, or many. A folder is the images in it, in the order of their paths; where parts have several lights,
    a tuple is one part. Raises UserError for what is none, and for a folder without images."""
    if channels.lights > 1 and isinstance(images, tuple):
        return Given([images], True)
    if isinstance(images, str | Path):
        path = Path(images)
        if path.is_dir():
            records = (scan if has_layout(path) else scan_plain)(path).records  # true masks are no images
            parts = as_parts(records) if channels.lights > 1 else records
            return Given(sorted(record.path for record in parts), False)
        return Given([path], True)
    if hasattr(images, "ndim"):  # an array, or a tensor
        return Given([images], True) if images.ndim < 4 else Given(list(images), False)
    if hasattr(images, "getexif"):
        return Given([images], True)
    if isinstance(images, Iterable):
        return Given(list(images), False)
    raise UserError(f"a {type(images).__name__} is no image: {ALLOWED}.")


def name_of(image: object, position: int) -> Path:
    """What results call it."""
    return Path(image) if isinstance(image, str | Path) else Path(f"image {position}")


def opened(image: object, size_px: Size | None = None, channels: Channels = PLAIN) -> Decoded:
    """The image at `size_px`, or as large as it is, as `channels` have it. Raises UserError for what is no such
    image."""
    is_pillows = hasattr(image, "getexif")
    try:
        if isinstance(image, str | Path):
            return read_image(Path(image), size_px, channels)
        if channels == PLAIN:
            return decode_array(eight_bit_rgb(image) if is_pillows else rgb(image), size_px)
        lights = image if isinstance(image, tuple) else (image,)
        limits = (*channels.ranges, *[None] * len(lights))  # too few lights, or too many, are refused by `joined`
        return joined([_levels(*each) for each in zip(lights, limits, strict=False)], size_px, channels)
    except Unreadable as unreadable:
        raise UserError(f"{'an array' if hasattr(image, 'ndim') else image}: {unreadable}.") from None


def size_of(image: object) -> tuple[int, int]:
    """(height, width) of it, of a file by its head. Raises Unreadable or UserError."""
    if isinstance(image, str | Path):
        return size_on_disk(Path(image))
    return opened(image)[1:3]


def channels_of(images: Sequence, to_find: ToFind) -> Channels:
    """What good images tell of their channels: files as those of a folder do, those in memory by their type. Raises
    UserError where there is nothing of what is to be found."""
    if all(isinstance(image, str | Path) for image in images):
        return to_find.found([Path(image) for image in images])
    if to_find.lights:
        raise UserError("--lights belong together by their files' names and pages: give a folder, or a list of paths.")
    shown = [_levels(image, None if isinstance(image, str | Path) else ANY) for image in images[:MAX_MEASURED]]
    deep = [levels for levels in shown if levels.dtype == np.uint16]
    if 2 * len(deep) <= len(shown):
        return to_find.found([])
    return Channels((to_find.typed or range_of(deep),))


def rgb(image: object) -> np.ndarray:
    """uint8 (h, w, 3) of an array or tensor. Raises UserError for any other shape, type or range."""
    return np.ascontiguousarray(_without_alpha(_bytes(_arranged(image))))


def _levels(image: object, limits: Range | None) -> np.ndarray:
    """What an image shows, (h, w) or (h, w, 3), where values in a range are expected, or with none bytes."""
    if isinstance(image, str | Path):
        return read_levels(bytes_of(Path(image)))[0]
    if hasattr(image, "getexif"):
        return levels_of_image(image)
    if limits is None:
        return rgb(image)
    array = _arranged(image)
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        raise UserError(f"an array of {array.dtype} is no image: {ALLOWED}.")
    return array[:, :, 0] if array.shape[2] == 1 else array[:, :, :3]


def _arranged(image: object) -> np.ndarray:
    """An array or tensor as (h, w, channels). Raises UserError for any other shape."""
    array = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    if array.ndim == 3 and array.shape[2] not in CHANNELS and array.shape[0] in CHANNELS:
        array = array.transpose(1, 2, 0)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in CHANNELS or not array.size:
        raise UserError(f"an array of shape {np.shape(image)} is no image: {ALLOWED}.")
    return array


def _bytes(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return (array >> 8).astype(np.uint8)
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"an array of {array.dtype} is no image: {ALLOWED}.")
    low, high = float(array.min()), float(array.max())
    if not (0 <= low <= high <= 1):
        raise UserError(
            f"floats from {low:g} to {high:g} are no image: divide what a camera gives by its highest value, so that "
            "they are from 0 to 1."
        )
    return np.rint(array * 255).astype(np.uint8)


def _without_alpha(array: np.ndarray) -> np.ndarray:
    """Three channels; what is transparent lies on white, as in files."""
    if array.shape[2] == 4:
        opacity = array[:, :, 3:] / 255
        return np.rint(array[:, :, :3] * opacity + 255 * (1 - opacity)).astype(np.uint8)
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array
