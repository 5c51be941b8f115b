"""The size that images are stretched to: one number, the side of a square, or two, height and width of a rectangle."""

import math
from collections.abc import Sequence
from typing import Literal

Size = int | tuple[int, int]
# What may be asked for in its place: a side that the images tell, or none, as large as they are.
Asked = Size | Literal["auto"] | None
# Where the images tell, they are seen at no less and no more: 640 px take 3.5 times as long as 384.
DEFAULT_PX, MOST_BY_DEFAULT_PX = 384, 640
# Sides of rectangles are multiples of it, so that a grid of patches, one every 8 px, covers them evenly.
MULTIPLE_PX = 8
# A stretch along one side that cannot be seen: images whose sides differ by less are as good as square.
INVISIBLE = 0.1


def sides(size_px: Size | Sequence[int]) -> tuple[int, int]:
    """(height, width) of a size."""
    return (size_px, size_px) if isinstance(size_px, int) else tuple(size_px)


def named(size_px: Size) -> str:
    """As people write it, width first: 384 or 640x256."""
    height, width = sides(size_px)
    return str(height) if height == width else f"{width}x{height}"


def distorts(aspect: float, height: int, width: int) -> bool:
    """Whether an image of that height and width looks drawn out to one side where width : height becomes `aspect`."""
    return abs(math.log(aspect * height / width)) > math.log1p(INVISIBLE)


def is_other(usual: tuple[int, int], height: int, width: int) -> bool:
    """Whether an image of that height and width is larger or smaller than those that are `usual` high and wide, by more
    than nobody sees, and of their shape: else it `distorts`."""
    share = math.sqrt(height * width / math.prod(usual))
    return abs(math.log(share)) > math.log1p(INVISIBLE) and not distorts(usual[1] / usual[0], height, width)


def keeping_aspect(size_px: int, aspect: float) -> Size:
    """About as many pixels as a square of `size_px`, width : height like `aspect`."""
    if abs(math.log(aspect)) < math.log1p(INVISIBLE):
        return size_px
    height, width = size_px / math.sqrt(aspect), size_px * math.sqrt(aspect)
    return tuple(max(MULTIPLE_PX, round(side / MULTIPLE_PX) * MULTIPLE_PX) for side in (height, width))


def default_px(height: int, width: int) -> int:
    """The side of a square of as many pixels as images of that height and width are seen with where nobody says: half
    of theirs, within bounds. Small ones gain nothing by more pixels than they have, and of large ones half the side
    shows scratches of a few pixels (RESULTS.md, resolution)."""
    half = round(math.sqrt(height * width) / 2 / 32) * 32
    return min(max(half, DEFAULT_PX), MOST_BY_DEFAULT_PX)


def scaled(size_px: Size | Sequence[int], share: float) -> tuple[int, int]:
    """(height, width) of that share of a size; of all of it, just that."""
    if share == 1:
        return tuple(sides(size_px))
    return tuple(max(MULTIPLE_PX, round(side * share / MULTIPLE_PX) * MULTIPLE_PX) for side in sides(size_px))
