"""Distances of patches as smooth maps of an image, and what a map scores: the mean of its highest values."""

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from embeddings.patches import ABOUT, LARGE_PX

# Of one map, values among which the highest are sought at once.
SORTED_AT_ONCE = 2**23
ROWS_AT_ONCE = 1024


def is_large(shape: Sequence[int]) -> bool:
    """Whether images of that height and width have more pixels than a square of LARGE_PX. What is smoothed, and how
    much of a map a score is the mean of, are shares of an image up to there: of larger ones they would cover a small
    defect's surroundings, the more the larger."""
    return math.prod(shape) > ABOUT * LARGE_PX**2


def counted_share(shape: Sequence[int]) -> float:
    """Of the sides of a large image, the share that a square of LARGE_PX would be; of any other, all."""
    return LARGE_PX / math.sqrt(math.prod(shape)) if is_large(shape) else 1.0


def smooth_maps(distances: Tensor, shape: Sequence[int], blur: float) -> Tensor:
    """Distances (b, rows, columns) at `shape`, smoothed by a Gaussian of the width `blur`, a share of the side that
    counts: (b, h, w)."""
    blur *= counted_share(shape)
    down, across = (
        upsampling_matrix(patches, pixels, blur, distances.device)
        for patches, pixels in zip(distances.shape[-2:], shape, strict=True)
    )
    return down @ distances @ across.T


@cache
def upsampling_matrix(patches: int, pixels: int, blur: float, device: torch.device) -> Tensor:
    """What enlarges a row of `patches` numbers to `pixels` by linear interpolation and then smooths them with a
    Gaussian of `blur` times their length, as a matrix (pixels, patches): a map takes two products."""
    enlarged = F.interpolate(torch.eye(patches)[None], pixels, mode="linear")[0].T  # (pixels, patches)
    x, parts = torch.arange(pixels, dtype=torch.float64), []
    for rows in x.split(ROWS_AT_ONCE):  # of 10,000 pixels all weights would take gigabytes
        weights = torch.exp(-0.5 * ((rows[:, None] - x) / max(blur * pixels, 1e-6)).square())
        weights /= weights.sum(1, keepdim=True)  # at the border, of what there is
        parts.append(weights.float() @ enlarged)
    return torch.cat(parts).to(device)


def highest_count(top_share: float, inside: int, shape: Sequence[int]) -> int:
    """Of how many of the highest of `inside` values of a map of that shape the mean is its score."""
    return max(1, round(top_share * (min(inside, LARGE_PX**2) if is_large(shape) else inside)))


def mean_of_highest(maps: Tensor, count: int) -> Tensor:
    """The mean of the `count` highest values of maps (b, h, w): (b,)."""
    flat = maps.flatten(1)
    if flat.shape[1] > SORTED_AT_ONCE:  # topk writes each value beside its position, 16 bytes a pixel
        parts = flat.split(SORTED_AT_ONCE, dim=1)
        flat = torch.cat([part.topk(min(count, part.shape[1]), dim=1).values for part in parts], dim=1)
    return flat.topk(count, dim=1).values.mean(1)
