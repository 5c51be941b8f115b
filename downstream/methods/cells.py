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


class Feed:
    """The patches of images (b, p, d), which come in parts from the first to the last, by the cells that each part
    completes. What later cells need is kept: a cell has its patches in few rows."""

    def __init__(self, cells: Tensor) -> None:
        self.cells = cells
        self._last = cells.amax(1).cummax(0).values  # that this one and all before need
        self._first = cells.amin(1).flip(0).cummin(0).values.flip(0)  # that this one and all after need
        self._held: Tensor | None = None
        self._start, self._done = 0, 0

    def take(self, vectors: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Some cells at a time, and of the patches theirs: (b k, cells, d)."""
        held = vectors if self._held is None else torch.cat([self._held, vectors], dim=1)
        ready = int((self._last < self._start + held.shape[1]).sum())
        count, dimensions = len(held) * self.cells.shape[1], held.shape[2]
        at_once = max(1, NUMBERS_AT_ONCE // (dimensions * max(count, dimensions)))
        for start in range(self._done, ready, at_once):
            chunk = slice(start, min(start + at_once, ready))
            of_cells = held[:, self.cells[chunk] - self._start]  # (b, cells, k, d)
            yield chunk, of_cells.transpose(1, 2).flatten(0, 1)
        needed = int(self._first[ready]) - self._start if ready < len(self.cells) else held.shape[1]
        self._held, self._start, self._done = held[:, needed:].clone(), self._start + needed, ready


def add(moments: Moments, vectors: Tensor, feed: Feed, is_first: bool = False) -> None:
    """Take patches of images in several views (b, m, p, d) into the sums of the cells that are complete with them, but
    for the count, which is of whole images. Sums are about what lies first in each cell of the first images."""
    for chunk, of_cells in feed.take(vectors.flatten(0, 1)):
        part = moments.part(chunk)
        if is_first:
            part.shift.copy_(of_cells.unflatten(0, (*vectors.shape[:2], -1))[:, 0, 0].mean(0))
        part.add(of_cells)


def distances(found: Tensor, gaussians: Gaussians, vectors: Tensor, feed: Feed) -> None:
    """Write to `found` (b, p) the Mahalanobis distances of patches to the Gaussians of the cells that are complete with
    the patches `vectors`."""
    for chunk, of_cells in feed.take(vectors):
        _scatter(found, feed.cells[chunk], Gaussians(*(part[chunk] for part in gaussians)).distances(of_cells))


def distances_without(
    found: Tensor, moments: Moments, own: Tensor, feed: Feed, shrinkage: float | None, floor: Tensor
) -> None:
    """The same for an image that was taken in, of all its views (m, p, d), to the Gaussians of all other images: those
    of its first view, to `found` (1, p). `floor` is `floor_of` all."""
    for chunk, of_cells in feed.take(own):
        others = moments.part(chunk).without(of_cells)
        first = of_cells[: feed.cells.shape[1]]
        _scatter(found, feed.cells[chunk], fitted(others, shrinkage, floor).distances(first))


def floor_of(moments: Moments) -> Tensor:
    """What is added to each variance, of any of the cells."""
    return FLOOR * moments.variance()


def fitted(moments: Moments, shrinkage: float | None, floor: Tensor | None = None) -> Gaussians:
    """The Gaussians of all that was taken in, nothing left out; of some cells, with the floor of all."""
    positions, dimensions = moments.shift.shape
    nobody = moments.shift.new_empty(0, int(moments.count), positions, dimensions)
    return fit_gaussians(moments, shrinkage, nobody, floor)[0]


def _scatter(found: Tensor, cells: Tensor, values: Tensor) -> None:
    """Write the values (b k, cells) of some cells where their patches are in `found` (b, p)."""
    found[:, cells] = values.unflatten(0, (len(found), -1)).transpose(1, 2)
