"""The part of an image that counts: patches outside of it are seen by nobody, and neither are their pixels.

A patch near the border sees beyond it, as far as the encoder looks. So what lies outside is painted gray before the
encoder sees it: whatever happens there, not a bit of what is said of the inside changes.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.contract.method import as_floats
from embeddings.patches import ALL, Band

# What is painted outside.
GRAY = 0.5
# A patch counts if so much of it lies inside.
MIN_INSIDE = 0.5


class Region:
    """Which pixels and patches of images count: those inside `roi`, bool (h, w), or all with none."""

    def __init__(self, roi: Tensor | None) -> None:
        self.roi = roi
        self._known: dict[tuple[int, ...], Tensor] = {}

    def seen(self, images: Tensor, down: slice = ALL, across: slice = ALL) -> Tensor:
        """A part of images as an encoder sees it: float32 in [0, 1], what does not count painted over."""
        images = as_floats(images[..., down, across])
        return images if self.roi is None else painted(images, self.roi[down, across])

    def numbers(self, grid: Sequence[int], device: torch.device) -> Tensor:
        """Of the patches that count their numbers in a grid, from the upper left: int64 (p,). Those of a region of many
        pixels are found once."""
        if self.roi is None:
            return torch.arange(math.prod(grid), device=device)
        grid = tuple(grid)
        if (numbers := self._known.get(grid)) is None:
            numbers = positions_inside(self.roi, grid)
            self._known = {grid: numbers}
        return numbers.to(device)

    def count(self, grid: Sequence[int]) -> int:
        """How many patches of a grid count."""
        return math.prod(grid) if self.roi is None else len(self.numbers(grid, self.roi.device))

    def pixels(self, shape: Sequence[int]) -> int:
        """How many pixels of images (h, w) count."""
        return math.prod(shape) if self.roi is None else int(self.roi.sum())

    def inside(self, band: Band) -> Tensor:
        """Of the patches of a band those that count: (..., p, d)."""
        flat = band.vectors.flatten(-3, -2)
        if self.roi is None:
            return flat
        first, end = band.numbers
        numbers = self.numbers(band.grid, flat.device)
        return flat.index_select(-2, numbers[(numbers >= first) & (numbers < end)] - first)

    def within(self, vectors: Tensor) -> Tensor:
        """Of patches (..., rows, columns, d) those that count: (..., p, d)."""
        return self.inside(Band(vectors, 0, tuple(vectors.shape[-3:-1])))

    def spread(self, values: Tensor, grid: Sequence[int]) -> Tensor:
        """Values (b, p) of the patches that count as (b, rows, columns), 0 elsewhere."""
        if self.roi is None:
            return values.unflatten(1, tuple(grid))
        return spread(values, self.numbers(grid, values.device), grid)


def painted(images: Tensor, roi: Tensor) -> Tensor:
    """Images (b, 3, h, w), gray where `roi` (h, w) is false."""
    return torch.where(roi, images, GRAY)


def resized(roi: Tensor, shape: tuple[int, int]) -> Tensor:
    """`roi` (h, w) at another size: what counts there is what half of lies inside, and where that is nothing, what has
    most of it."""
    covered = F.adaptive_avg_pool2d(roi[None, None].float(), shape)[0, 0]
    return covered >= covered.max().clamp(max=MIN_INSIDE)


def positions_inside(roi: Tensor, grid: tuple[int, int]) -> Tensor:
    """Which patches of a grid lie inside `roi` (h, w), by their number from the upper left: int64 (p,). At least one:
    where the region is smaller than a patch, those that have most of it."""
    return torch.nonzero(resized(roi, grid).flatten())[:, 0]


def spread(values: Tensor, positions: Tensor, grid: Sequence[int]) -> Tensor:
    """Values (b, p) of the patches at `positions` as (b, rows, columns), 0 elsewhere."""
    everywhere = values.new_zeros(len(values), grid[0] * grid[1])
    everywhere[:, positions] = values
    return everywhere.unflatten(1, grid)
