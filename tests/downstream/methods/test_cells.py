"""Cells: every patch in one of them, near its others, and sums and distances as if each cell were one position."""

import pytest
import torch

from downstream.methods import cells
from downstream.methods.gaussians import Gaussians, Moments

GRID, SHARE = (9, 11), 6


@pytest.fixture
def inside() -> torch.Tensor:
    """A part of the grid, as a region of interest leaves it."""
    return torch.nonzero(torch.rand(GRID, generator=torch.Generator().manual_seed(0)).flatten() > 0.2)[:, 0]


def test_every_patch_is_in_one_cell_of_neighbors(inside):
    members = cells.cells_of(inside, GRID, SHARE)
    assert members.unique().tolist() == list(range(len(inside)))
    assert len(members) == -(-len(inside) // SHARE) and members.shape[1] == SHARE
    sizes = [len(set(cell)) for cell in members.tolist()]
    assert set(sizes) <= {SHARE, SHARE - 1} and sum(sizes) == len(inside)
    down, across = inside[members] // GRID[1], inside[members] % GRID[1]
    assert (down.amax(1) - down.amin(1)).max() <= 4 and (across.amax(1) - across.amin(1)).max() <= 7


@pytest.mark.parametrize("views", [1, 2])
def test_sums_and_distances_are_those_of_one_position_a_cell(views, inside, monkeypatch):
    monkeypatch.setattr(cells, "NUMBERS_AT_ONCE", 3 * 6 * 6)  # a few cells at a time
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(7, views, len(inside), 5, generator=generator) * 2 + 3  # (n, m, p, d)
    members = cells.cells_of(inside, GRID, SHARE)
    images[:, :, members[:6].flatten()] *= 0.01  # an even background, some cells that are taken together
    # (n m k, cells, d): to each cell an image brings k vectors a view.
    at_cells = [image[:, members].transpose(1, 2).flatten(0, 1) for image in images]

    def moments_of(parts: list[torch.Tensor]) -> Moments:
        moments = Moments.about(images[0, 0, members[:, 0]][None])
        for part in parts:
            moments.add(part)
        return moments

    moments = Moments.about(images[0, 0, members[:, 0]][None])
    for image in images:
        cells.add(moments, image[None], cells.Feed(members))
        moments.count = moments.count + views * SHARE
    expected = moments_of(at_cells)
    assert int(moments.count) == int(expected.count) == 7 * views * SHARE
    torch.testing.assert_close(moments.second, expected.second)
    gaussians = cells.fitted(moments, None)
    found = distances(gaussians, images[:2, 0], members)
    for image, of_image in zip(images[:2, 0], found, strict=True):
        naive = [torch.empty(0)] * len(inside)
        for number, cell in enumerate(members):
            for patch in cell.tolist():
                naive[patch] = (gaussians.whitening[number] @ (image[patch] - gaussians.mean[number])).norm()
        torch.testing.assert_close(of_image, torch.stack(naive), rtol=1e-4, atol=1e-4)
    others = cells.fitted(moments_of([part for number, part in enumerate(at_cells) if number != 2]), None)
    without = torch.empty(1, len(inside))
    feed, floor = cells.Feed(members), cells.floor_of(moments)
    for band in images[2].split(17, dim=1):
        cells.distances_without(without, moments, band, feed, None, floor)
    expected = distances(others, images[2, :1], members)
    torch.testing.assert_close(without, expected, rtol=5e-3, atol=2e-3)


def test_patches_in_parts_are_those_of_one_and_few_are_held(inside, monkeypatch):
    monkeypatch.setattr(cells, "NUMBERS_AT_ONCE", 1)  # a cell at a time
    members = cells.cells_of(inside, GRID, SHARE)
    vectors = torch.arange(len(inside), dtype=torch.float32)[None, :, None]
    feed, found, held = cells.Feed(members), [], []
    for part in vectors.split(7, dim=1):
        found += [(chunk.start, of_cells.flatten().long().tolist()) for chunk, of_cells in feed.take(part)]
        held.append(feed._held.shape[1])
    assert found == list(enumerate(members.tolist()))
    assert max(held) < 5 * GRID[1] and held[-1] == 0


def distances(gaussians: Gaussians, vectors: torch.Tensor, members: torch.Tensor) -> torch.Tensor:
    found = vectors.new_empty(vectors.shape[:2])
    cells.distances(found, gaussians, vectors, cells.Feed(members))
    return found
