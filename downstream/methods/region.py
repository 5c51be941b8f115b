"""The part of an image that counts: patches outside of it are seen by nobody, and neither are their pixels.

A patch near the border sees beyond it, as far as the encoder looks. So what lies outside is painted gray before the
encoder sees it: whatever happens there, not a bit of what is said of the inside changes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

# What is painted outside.
GRAY = 0.5
# A patch counts if so much of it lies inside.
MIN_INSIDE = 0.5


def painted(images: Tensor, roi: Tensor) -> Tensor:
    """Images (b, 3, h, w), gray where `roi` (h, w) is false."""
    return torch.where(roi, images, GRAY)


def positions_inside(roi: Tensor, grid: tuple[int, int]) -> Tensor:
    """Which patches of a grid lie inside `roi` (h, w), by their number from the upper left: int64 (p,). At least one:
    where the region is smaller than a patch, those that have most of it."""
    covered = F.adaptive_avg_pool2d(roi[None, None].float(), grid).flatten()
    return torch.nonzero(covered >= covered.max().clamp(max=MIN_INSIDE))[:, 0]


def spread(values: Tensor, positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Values (b, p) of the patches at `positions` as (b, rows, columns), 0 elsewhere."""
    everywhere = values.new_zeros(len(values), grid[0] * grid[1])
    everywhere[:, positions] = values
    return everywhere.unflatten(1, grid)
