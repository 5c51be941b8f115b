"""Patches of a large image that lie together share a Gaussian: one for each of a million would take 100 GB.

A cell is `share` patches, or fewer, by their numbers among those that count. An image then brings many vectors to
each Gaussian, and all of them are left out together. Cells are taken some at a time: copies of all of an image's
patches take gigabytes.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from downstream.methods.gaussians import FLOOR, Gaussians, Moments, fit_gaussians

# Of patches, and of matrices, that are copied at once.
NUMBERS_AT_ONCE = 2**23


def cells_of(positions: Tensor, grid: Sequence[int], share: int) -> Tensor:
    """Cells of at most `share` of the patches at `positions` (p,) of a grid, numbers from the upper left: int64 (c, k),
    numbers below p. Where a cell has fewer its last comes again."""
    side = max(1, round(math.sqrt(share)))
    down, across = positions // grid[1] // side, positions % grid[1] // side
    across = torch.where(down % 2 == 0, across, grid[1] - across)  # there and back, so that what follows is near
    order = (down * 2 * grid[1] + across).argsort(stable=True)
    count = math.ceil(len(positions) / share)
    starts = torch.arange(count + 1, device=positions.device) * len(positions) // count
    lengths = starts[1:] - starts[:-1]
    within = torch.minimum(torch.arange(int(lengths.max()), device=positions.device), lengths[:, None] - 1)
    return order[starts[:-1, None] + within]


def add(moments: Moments, vectors: Tensor, cells: Tensor) -> None:
    """Take the patches (b, p, d) of b images into the sums of their cells."""
    for chunk, of_cells in _parts(vectors, cells):
        moments.part(chunk).add(of_cells)
    moments.count = moments.count + len(vectors) * cells.shape[1]


def distances(gaussians: Gaussians, vectors: Tensor, cells: Tensor) -> Tensor:
    """Mahalanobis distances of patches (b, p, d) to the Gaussians of their cells: (b, p)."""
    found = vectors.new_empty(vectors.shape[:2])
    for chunk, of_cells in _parts(vectors, cells):
        _scatter(found, cells[chunk], Gaussians(*(part[chunk] for part in gaussians)).distances(of_cells))
    return found


def distances_without(moments: Moments, own: Tensor, cells: Tensor, shrinkage: float | None) -> Tensor:
    """Distances of the patches of an image in its first view, of all its views (m, p, d), to the Gaussians of all other
    images: (p,)."""
    found, floor = own.new_empty(1, own.shape[1]), FLOOR * moments.variance()
    for chunk, of_cells in _parts(own, cells):
        others = moments.part(chunk).without(of_cells)
        first = of_cells[: cells.shape[1]]
        _scatter(found, cells[chunk], fitted(others, shrinkage, floor).distances(first))
    return found[0]


def fitted(moments: Moments, shrinkage: float | None, floor: Tensor | None = None) -> Gaussians:
    """The Gaussians of all that was taken in, nothing left out; of some cells, with the floor of all."""
    positions, dimensions = moments.shift.shape
    nobody = moments.shift.new_empty(0, int(moments.count), positions, dimensions)
    return fit_gaussians(moments, shrinkage, nobody, floor)[0]


def _parts(vectors: Tensor, cells: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Some cells at a time, and of the patches (b, p, d) theirs: (b k, cells, d)."""
    count, dimensions = len(vectors) * cells.shape[1], vectors.shape[2]
    at_once = max(1, NUMBERS_AT_ONCE // (dimensions * max(count, dimensions)))
    for start in range(0, len(cells), at_once):
        chunk = slice(start, start + at_once)
        of_cells = vectors[:, cells[chunk]]  # (b, cells, k, d)
        yield chunk, of_cells.transpose(1, 2).flatten(0, 1)


def _scatter(found: Tensor, cells: Tensor, values: Tensor) -> None:
    """Write the values (b k, cells) of some cells where their patches are in `found` (b, p)."""
    found[:, cells] = values.unflatten(0, (len(found), -1)).transpose(1, 2)
