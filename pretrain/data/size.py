"""The size that images are stretched to: one number, the side of a square, or two, height and width of a rectangle."""

import math
from collections.abc import Sequence

Size = int | tuple[int, int]
# Sides of rectangles are multiples of it, so that a grid of patches, one every 8 px, covers them evenly.
MULTIPLE_PX = 8
# Images whose sides differ by less are as good as square: a stretch that cannot be seen.
SQUARE_WITHIN = 0.1
# Twice as much: images as good as square are stretched to one side, and others like them to the other.
DISTORTED_FROM = 0.2


def sides(size_px: Size | Sequence[int]) -> tuple[int, int]:
    """(height, width) of a size."""
    return (size_px, size_px) if isinstance(size_px, int) else tuple(size_px)


def named(size_px: Size) -> str:
    """As people write it, width first: 384 or 640x256."""
    height, width = sides(size_px)
    return str(height) if height == width else f"{width}x{height}"


def distorts(size_px: Size, height: int, width: int) -> bool:
    """Whether an image of that height and width is drawn out to one side by stretching it to a size, and visibly."""
    rows, columns = sides(size_px)
    return abs(math.log((columns / rows) * (height / width))) > math.log1p(DISTORTED_FROM)


def keeping_aspect(size_px: int, aspect: float) -> Size:
    """About as many pixels as a square of `size_px`, width : height like `aspect`."""
    if abs(math.log(aspect)) < math.log1p(SQUARE_WITHIN):
        return size_px
    height, width = size_px / math.sqrt(aspect), size_px * math.sqrt(aspect)
    return tuple(max(MULTIPLE_PX, round(side / MULTIPLE_PX) * MULTIPLE_PX) for side in (height, width))
