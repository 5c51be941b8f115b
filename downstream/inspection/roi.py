"""Where to look: a region of interest, drawn as a mask or as polygons on an image of the product.

As a mask, any image of the size of the product's images: what is bright counts. As JSON, polygons in pixels of these
images: {"include": [[[x, y], ...], ...], "ignore": [...]}; without `include` all counts but what is ignored.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pretrain.command import UserError
from pretrain.data.decode import Unreadable, read_mask
from pretrain.data.size import Size, distorts, named, sides
from pretrain.reading import read_json

FEWEST_POINTS = 3


def read_roi(path: Path, image_size: tuple[int, int], size_px: Size) -> np.ndarray:
    """The region in a file, drawn on images of `image_size` (height, width), as a bool (h, w) of `size_px`. Raises
    UserError where it cannot be read, fits no such image, or leaves nothing to look at."""
    drawn = _polygons(path, image_size) if path.suffix.lower() == ".json" else _mask(path, image_size)
    height, width = sides(size_px)
    covered = Image.fromarray(drawn.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    roi = np.asarray(covered) >= 0.5
    if not roi.any():
        raise UserError(
            f"{path} leaves nothing of the {named(image_size)} px images to look at: draw it on the product."
        )
    return roi


def _mask(path: Path, image_size: tuple[int, int]) -> np.ndarray:
    try:
        mask = read_mask(path)
    except Unreadable as unreadable:
        raise UserError(f"the region of interest {path} cannot be used: {unreadable}.") from None
    if distorts(mask.shape[1] / mask.shape[0], *image_size):
        raise UserError(
            f"the region of interest {path} has {named(mask.shape)} px, and the images {named(image_size)}: draw it "
            "on one of them."
        )
    return mask


def _polygons(path: Path, image_size: tuple[int, int]) -> np.ndarray:
    try:
        stored = read_json(path)
        polygons = {name: [_points(polygon) for polygon in stored.pop(name, ())] for name in ("include", "ignore")}
        if stored:
            raise ValueError(f"{min(stored)!r} is neither include nor ignore")
    except (OSError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f'the region of interest {path} cannot be used ({error}): give {{"include": [[[x, y], ...], ...], '
            '"ignore": [...]}, polygons of three points and more in pixels of the image.'
        ) from None
    height, width = image_size
    mask = Image.new("1", (width, height), 0 if polygons["include"] else 1)
    for value, name in ((1, "include"), (0, "ignore")):
        for polygon in polygons[name]:
            ImageDraw.Draw(mask).polygon(polygon, fill=value)
    return np.asarray(mask)


def _points(polygon: object) -> list[tuple[float, float]]:
    points = [(float(x), float(y)) for x, y in polygon]
    if len(points) < FEWEST_POINTS or not np.isfinite(points).all():
        raise ValueError(f"a polygon of {len(points)} points, or one that is not finite")
    return points
