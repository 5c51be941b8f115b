"""An encoder's feature maps as patch vectors: chosen levels, averaged over neighboring positions, on one grid.

The patch features of PatchCore (Roth et al. 2021, https://arxiv.org/abs/2106.08265), with PaDiM's random choice of
dimensions (Defard et al. 2020, https://arxiv.org/abs/2011.08785). Every step after the encoder is linear, so channels
are chosen or mixed while the maps are small, and only what is left is enlarged: with 100 of 448 dimensions this is a
fifth of the work of enlarging first.
"""

import math
from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain.command import UserError
from pretrain.encoder import Encoder
from pretrain.folding import folded
from pretrain.training.device import full_precision

# One patch every 8 pixels: level1 has four times as many, which take four times as long.
GRID_LEVEL = "level2"
# Larger images are cut into tiles, each with a margin that its patches see and that is cut off again: as far as an
# EfficientNet-Lite0 sees at level3 (about 210 px), so that nothing changes but memory. Both are multiples of
# a CNN's strides.
TILE_PX, MARGIN_PX = 1536, 224
# Of a level that is brought to the grid of such an image: all at once take gigabytes.
CHANNELS_AT_ONCE = 8
MOST_AVERAGED = 4
# An image is large that has more pixels than a square of this side, or more patches, one every 8 px; rectangles keep
# the number of pixels but for a few.
LARGE_PX, ABOUT = 640, 1.1
ALL = slice(None)


def part_of(images: Tensor, down: slice, across: slice) -> Tensor:
    return images[..., down, across]


class Patches:
    """float32 RGB (b, 3, h, w) in [0, 1] -> float32 patch vectors (b, rows, columns, dimensions).

    The grid is that of level2, one patch every 8 pixels, or of the level nearest to it that is asked for; or it has at
    most `grid` patches per side; with `all_of_large` but all of a large image, where each would be an average of more
    than MOST_AVERAGED a side, in which no small defect shows. Each vector is the average over
    `neighborhood` x `neighborhood` positions of its level. All channels are kept, or `dimensions` of them drawn at
    random (`reduction` "random", as in PaDiM), or as many orthonormal mixtures of them ("orthogonal"), a function of
    `seed` alone.
    """

    def __init__(
        self,
        encoder: Encoder,
        levels: Sequence[str] = ("level2", "level3"),
        *,
        grid: int | None = None,
        all_of_large: bool = False,
        neighborhood: int = 3,
        dimensions: int | None = None,
        reduction: str = "random",
        seed: int = 0,
    ) -> None:
        if neighborhood < 1 or neighborhood % 2 == 0:
            raise UserError(
                f"a neighborhood of {neighborhood} positions has no middle: give 1, 3, 5 or another odd number."
            )
        if reduction not in ("random", "orthogonal"):
            raise UserError(f"there is no reduction {reduction!r}; choose from random, orthogonal.")
        self.encoder, self.levels = folded(encoder), tuple(level for level in encoder.channels if level in levels)
        self.grid, self.all_of_large, self.neighborhood = grid, all_of_large, neighborhood
        counts = [encoder.channels[level] for level in self.levels]
        self.width = sum(counts)  # channels of all levels
        self.dimensions = min(dimensions or self.width, self.width)
        self.channels = counts  # in the vectors, by level; mixtures belong to no level
        self._chosen, self._mixed = None, None
        if self.dimensions < self.width:
            generator = torch.Generator().manual_seed(seed)
            if reduction == "random":
                chosen = torch.randperm(self.width, generator=generator)[: self.dimensions].sort().values
                starts = torch.tensor([0, *counts]).cumsum(0)
                self._chosen = [
                    chosen[(chosen >= start) & (chosen < end)] - start
                    for start, end in zip(starts[:-1], starts[1:], strict=True)
                ]
                self.channels = [len(of_level) for of_level in self._chosen]
            else:
                self.channels = [self.dimensions]
                mixture = torch.linalg.qr(torch.randn(self.width, self.dimensions, generator=generator))[0]
                self._mixed = [of_level.T[:, :, None, None] for of_level in mixture.split(counts)]  # (d, c, 1, 1)
        self.to(encoder.mean.device)

    def to(self, device: torch.device | str) -> Self:
        self.encoder.to(device)
        self._chosen = self._chosen and [chosen.to(device) for chosen in self._chosen]
        self._mixed = self._mixed and [mixture.to(device) for mixture in self._mixed]
        return self

    @torch.inference_mode()
    @full_precision()
    def __call__(self, images: Tensor, seen: Callable[[Tensor, slice, slice], Tensor] = part_of) -> Tensor:
        """Patch vectors (b, rows, columns, dimensions); images lie on the encoder's device, and so do these. `seen`
        gives rows and columns of images as they are to be seen, where they are not float32 themselves."""
        if max(images.shape[-2:]) <= TILE_PX + 2 * MARGIN_PX or not self._sees_parts:
            return self.traced(seen(images, ALL, ALL))
        vectors = [self._level_by_level(self._levels_in_tiles(image[None], seen)) for image in images]
        return torch.cat(vectors) if len(vectors) > 1 else vectors[0]

    def traced(self, images: Tensor) -> Tensor:
        """`__call__` for torch.export, which cannot trace inference mode, and which knows no tiles."""
        return self._on_one_grid(self._levels(images))

    @property
    def _sees_parts(self) -> bool:
        """Whether a patch depends on what is near, as in a CNN. One of a transformer depends on all of the image."""
        return (
            all(TILE_PX % stride == MARGIN_PX % stride == 0 for stride in self._strides) and len(set(self._strides)) > 1
        )

    @property
    def _strides(self) -> list[int]:
        return [self.encoder.strides[level] for level in self.levels]

    @property
    def _grid_stride(self) -> int:
        return self.encoder.strides[GRID_LEVEL if GRID_LEVEL in self.levels else self.levels[0]]

    def _levels_in_tiles(self, image: Tensor, seen: Callable[[Tensor, slice, slice], Tensor]) -> list[Tensor]:
        """`_levels` of one image (1, 3, h, w), tile by tile; finer ones than the grid averaged to it, where its patches
        are whole numbers of theirs."""
        height, width = image.shape[-2:]
        found, kept_strides = [], self._strides
        coarse = self._grid_stride
        if height % coarse == width % coarse == 0 and self._is_whole((height // coarse, width // coarse)):
            kept_strides = [max(stride, coarse) for stride in self._strides]
        for top in range(0, height, TILE_PX):
            for left in range(0, width, TILE_PX):
                above, before = min(top, MARGIN_PX), min(left, MARGIN_PX)
                down = slice(top - above, top + TILE_PX + MARGIN_PX)
                across = slice(left - before, left + TILE_PX + MARGIN_PX)
                levels = self._levels(seen(image, down, across))
                found = found or [
                    level.new_empty(1, level.shape[1], math.ceil(height / stride), math.ceil(width / stride))
                    for level, stride in zip(levels, kept_strides, strict=True)
                ]
                for whole, part, stride, kept in zip(found, levels, self._strides, kept_strides, strict=True):
                    side, times = TILE_PX // kept, kept // stride
                    tile = whole[..., top // kept :, left // kept :][..., :side, :side]
                    part = part[..., above // stride :, before // stride :]
                    part = part[..., : times * tile.shape[-2], : times * tile.shape[-1]]
                    tile.copy_(_on_grid(part, tile.shape[-2:]))
        return found

    def _levels(self, images: Tensor) -> list[Tensor]:
        """What counts of each level: float32 (b, d, h, w), shallow ones first."""
        images = images.contiguous(memory_format=torch.channels_last)
        levels = []
        for number, level in enumerate(self.encoder(images, self.levels).values()):  # (b, c, h, w)
            if self._chosen is not None:
                level = level.index_select(1, self._chosen[number])
            elif self._mixed is not None:
                level = F.conv2d(level, self._mixed[number])
            if self.neighborhood > 1 and level.shape[1]:  # of a level of which no channel was drawn there is nothing
                # At the border the average is over fewer positions, not diluted by padding.
                level = F.avg_pool2d(level, self.neighborhood, 1, self.neighborhood // 2, count_include_pad=False)
            levels.append(level.float())
        return levels

    def _level_by_level(self, levels: list[Tensor]) -> Tensor:
        """`_on_one_grid` of one image, taking the levels away, with hardly more memory than it gives."""
        if self._mixed is not None:
            return self._on_one_grid(levels)
        shape = self._grid_shape(levels)
        vectors, start = levels[0].new_empty(1, *shape, sum(level.shape[1] for level in levels)), 0
        while levels:
            for part in levels.pop(0).split(CHANNELS_AT_ONCE, dim=1):
                end = start + part.shape[1]
                vectors[..., start:end] = _on_grid(part, shape).permute(0, 2, 3, 1)
                start = end
        return vectors

    def _grid_shape(self, levels: Sequence[Tensor]) -> tuple[int, int]:
        whole = tuple(dict(zip(self.levels, levels, strict=True)).get(GRID_LEVEL, levels[0]).shape[-2:])
        if self._is_whole(whole):
            return whole
        return tuple(min(side, self.grid) for side in levels[0].shape[-2:])

    def _is_whole(self, shape: Sequence[int]) -> bool:
        """Whether all patches of a level of that shape are looked at, rather than `grid` a side."""
        if self.grid is None:
            return True
        return self.all_of_large and math.prod(shape) > max(
            (MOST_AVERAGED * self.grid) ** 2, ABOUT * (LARGE_PX // 8) ** 2
        )

    def _on_one_grid(self, levels: Sequence[Tensor]) -> Tensor:
        """Patch vectors (b, rows, columns, dimensions)."""
        shape = self._grid_shape(levels)
        levels = [_on_grid(level, shape) for level in levels]  # (b, d, rows, columns)
        # A mixture of all channels is the sum of the levels' mixtures.
        vectors = sum(levels) if self._mixed is not None else torch.cat(levels, dim=1)
        return vectors.permute(0, 2, 3, 1).contiguous()


def _on_grid(maps: Tensor, shape: Sequence[int]) -> Tensor:
    """Maps (b, c, h, w) averaged down or interpolated up to `shape`."""
    if tuple(maps.shape[-2:]) == tuple(shape):
        return maps
    if maps.shape[-2] >= shape[0] and maps.shape[-1] >= shape[1]:
        return F.adaptive_avg_pool2d(maps, shape)
    return F.interpolate(maps, shape, mode="bilinear")
