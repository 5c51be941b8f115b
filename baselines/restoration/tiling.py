"""Large images in overlapping tiles that are blended, so that memory does not grow with the image.

The nearer a pixel lies to the edge of what the network sees, the worse it is restored; in an overlap each tile
therefore counts less towards its own edge, and at the very edge nothing.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from pretrain.command import UserError

OVERLAP_PX = 64
# A multiple of every network's stride.
ALIGNMENT_PX = 16
MIN_TILE_PX = 4 * OVERLAP_PX


def tile_px_for(memory_mb: float, bytes_per_pixel: int, stride: int) -> int:
    """The side of the largest tile that fits into the memory. Raises UserError where that is too small to be of use."""
    side = int(math.sqrt(max(0.0, memory_mb) * 1e6 / bytes_per_pixel)) // stride * stride
    if side < MIN_TILE_PX:
        least = math.ceil(MIN_TILE_PX**2 * bytes_per_pixel / 1e6)
        raise UserError(f"{memory_mb:g} MB are too few to restore a tile of {MIN_TILE_PX} px: allow {least} or more.")
    return side


def restore_in_tiles(
    network: Callable[[Tensor], Tensor], images: Tensor, tile_px: int, overlap_px: int = OVERLAP_PX
) -> Tensor:
    """float32 (b, 3, h, w) -> the same; `network` gets squares of at most `tile_px`.

    An image that fits into one tile is restored whole.
    """
    height, width = images.shape[-2:]
    if max(height, width) <= tile_px:
        return network(images)
    total, weight = torch.zeros_like(images), images.new_zeros(height, width)
    for top, bottom in spans(height, tile_px, overlap_px):
        down = ramp(top, bottom, height, overlap_px)
        for left, right in spans(width, tile_px, overlap_px):
            share = (down[:, None] * ramp(left, right, width, overlap_px)).to(images.device)
            total[..., top:bottom, left:right] += share * network(images[..., top:bottom, left:right])
            weight[top:bottom, left:right] += share
    return total.div_(weight)


def spans(length: int, tile_px: int, overlap_px: int) -> Iterator[tuple[int, int]]:
    """Where tiles begin and end along a side; neighbors share at least the overlap.

    They begin at multiples of ALIGNMENT_PX, so that strided layers see the same pixels as in the whole image.
    """
    last = max(0, math.ceil((length - tile_px) / ALIGNMENT_PX) * ALIGNMENT_PX)
    step = max(ALIGNMENT_PX, (tile_px - overlap_px) // ALIGNMENT_PX * ALIGNMENT_PX)
    for start in (*range(0, last, step), last):
        yield start, min(length, start + tile_px)


def ramp(start: int, stop: int, length: int, overlap_px: int) -> Tensor:
    """Weights of a tile's pixels along a side, (stop - start,): rising from each end that is not the image's."""
    distance_px = torch.arange(stop - start) + 0.5
    rise = torch.ones(stop - start)
    if start > 0:
        rise = torch.minimum(rise, distance_px / overlap_px)
    if stop < length:
        rise = torch.minimum(rise, distance_px.flip(0) / overlap_px)
    # sin squared and cos squared: in an overlap the weights of two tiles sum to one.
    return rise.clamp(max=1).mul(math.pi / 2).sin().square()
