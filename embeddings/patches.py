"""An encoder's feature maps as patch vectors: chosen levels, averaged over neighboring positions, on one grid.

The patch features of PatchCore (Roth et al. 2021, https://arxiv.org/abs/2106.08265), with PaDiM's random choice of
dimensions (Defard et al. 2020, https://arxiv.org/abs/2011.08785). Every step after the encoder is linear, so channels
are chosen or mixed while the maps are small, and only what is left is enlarged: with 100 of 448 dimensions this is a
fifth of the work of enlarging first.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
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
# The least that is worth its margins, and what tiles are multiples of.
MIN_TILE_PX, TILE_STEP_PX = 256, 32
# Of patches of such an image that are made at once: all of a hundred megapixels take more than a gigabyte.
PATCHES_AT_ONCE = 2**16
MOST_AVERAGED = 4
ASKED_PX = 128
# An image is large that has more pixels than a square of this side, or more patches, one every 8 px; rectangles keep
# the number of pixels but for a few.
LARGE_PX, ABOUT = 640, 1.1
ALL = slice(None)


# Rows and columns of images as they are to be seen, where they are not float32 themselves.
Seen = Callable[[Tensor, slice, slice], Tensor]


def part_of(images: Tensor, down: slice, across: slice) -> Tensor:
    return images[..., down, across]


class Band(NamedTuple):
    """Some rows of images' patches: `vectors` (..., rows, columns, d), of which the first is the row `top` of a grid
    (rows, columns)."""

    vectors: Tensor
    top: int
    grid: tuple[int, int]

    @property
    def numbers(self) -> tuple[int, int]:
        """Of its patches, counted from the grid's upper left, the first and the one after the last."""
        columns = self.grid[1]
        return self.top * columns, (self.top + self.vectors.shape[-3]) * columns


def joined(bands: Iterable[Band]) -> Tensor:
    """All patches of images: (b, rows, columns, d)."""
    vectors = [band.vectors for band in bands]
    return torch.cat(vectors, dim=1) if len(vectors) > 1 else vectors[0]


def pixels_at_once(tile_px: int | None) -> int | None:
    """Those of a tile of that side with its margins; of none, none."""
    return None if tile_px is None else (tile_px + 2 * MARGIN_PX) ** 2


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
        self.tile_px: int | None = None  # where less memory than TILE_PX takes is to do
        self._pads_by_size = any(type(layer).__name__ == "Conv2dSame" for layer in self.encoder.modules())
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

    def __call__(self, images: Tensor, seen: Seen = part_of) -> Tensor:
        """Patch vectors (b, rows, columns, dimensions); images lie on the encoder's device, and so do these. `seen`
        gives rows and columns of images as they are to be seen."""
        return joined(self.bands(images, seen))

    def bands(self, images: Tensor, seen: Seen = part_of) -> Iterator[Band]:
        """The same in bands, from the top: of images that are not cut into tiles in one, of others with PATCHES_AT_ONCE
        in each, so that memory does not grow with the patches of an image."""
        (height, width), tile_px = images.shape[-2:], self.tile_px or TILE_PX
        if not self.cuts((height, width), tile_px):
            vectors = self._whole(images, seen)
            yield Band(vectors, 0, tuple(vectors.shape[1:3]))
            return
        grid, made = self.grid_of((height, width)), 0
        levels = [LevelRows(shape, grid) for shape in self._level_shapes((height, width))]
        for top in range(0, height, tile_px):
            self._take_tiles(images, seen, top, tile_px, levels)
            ready = min(level.ready for level in levels)
            while made < ready:
                end = min(ready, made + max(1, PATCHES_AT_ONCE // (grid[1] * len(images))))
                yield Band(self._made(levels, made, end), made, grid)
                made = end
            for level in levels:
                level.let_go(made)

    def grid_of(self, shape: Sequence[int]) -> tuple[int, int]:
        """The grid of images (h, w), rows and columns."""
        return self._grid_shape(self._level_shapes(shape))

    def _level_shapes(self, shape: Sequence[int]) -> list[tuple[int, int]]:
        return [(math.ceil(shape[0] / stride), math.ceil(shape[1] / stride)) for stride in self._strides]

    @torch.inference_mode()
    @full_precision()
    def _whole(self, images: Tensor, seen: Seen) -> Tensor:
        return self.traced(seen(images, ALL, ALL))

    @torch.inference_mode()
    @full_precision()
    def _take_tiles(self, images: Tensor, seen: Seen, top: int, tile_px: int, levels: Sequence["LevelRows"]) -> None:
        """What counts of each level, in one row of tiles."""
        height, width = images.shape[-2:]
        above, found = min(top, MARGIN_PX), [[] for _ in levels]
        for left in range(0, width, tile_px):
            before = min(left, MARGIN_PX)
            down = slice(top - above, top + tile_px + MARGIN_PX)
            across = slice(left - before, left + tile_px + MARGIN_PX)
            parts = self._levels(self._of_whole_strides(seen(images, down, across)))
            for of_level, part, stride in zip(found, parts, self._strides, strict=True):
                rows, columns = (math.ceil(min(tile_px, rest) / stride) for rest in (height - top, width - left))
                part = part[..., above // stride :, before // stride :][..., :rows, :columns]
                of_level.append(part.clone())  # a view would keep its margin
            del parts, part
        for level, parts in zip(levels, found, strict=True):
            level.take(torch.cat(parts, dim=3))

    def _of_whole_strides(self, tile: Tensor) -> Tensor:
        """A tile with its last rows and columns again, where its sides are no multiple of all strides and padding
        depends on them, as TensorFlow's does: with the last tile's patches a pixel off, they would depend on where it
        begins."""
        if not self._pads_by_size:
            return tile
        rows, columns = (-side % max(self._strides) for side in tile.shape[-2:])
        return F.pad(tile, (0, columns, 0, rows), mode="replicate") if rows or columns else tile

    @torch.inference_mode()
    def _made(self, levels: Sequence["LevelRows"], first: int, end: int) -> Tensor:
        """The grid's rows from `first` to `end`: (b, rows, columns, dimensions)."""
        return self._joined([level.made(first, end) for level in levels])

    def traced(self, images: Tensor) -> Tensor:
        """`__call__` for torch.export, which cannot trace inference mode, and which knows no tiles."""
        return self._on_one_grid(self._levels(images))

    def cuts(self, shape: Sequence[int], tile_px: int) -> bool:
        """Whether images (h, w) are seen in tiles of that side."""
        return max(shape) > tile_px + 2 * MARGIN_PX and self._sees_parts

    @cached_property
    def bytes_per_pixel(self) -> int:
        """What the encoder takes of memory for a pixel that it looks at: one and a half times what goes into one of its
        layers and comes out of it (measured, as some of these copy it first), and the image as floats, normalized, and
        in another order. By asking it about a small image."""
        sizes: list[int] = []

        def measure(layer: nn.Module, given: tuple, made: object) -> None:
            sizes.append(sum(part.numel() for part in (*given, made) if isinstance(part, Tensor)))

        layers = [layer for layer in self.encoder.modules() if not any(layer.children())]
        hooks = [layer.register_forward_hook(measure) for layer in layers]
        side = ASKED_PX if self._sees_parts else self.encoder.input_size_px
        try:
            self._whole(torch.zeros(1, 3, side, side, device=self.encoder.mean.device), part_of)
        finally:
            for hook in hooks:
                hook.remove()
        return math.ceil(4 * 1.5 * max(sizes) / side**2) + 36

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

    def _grid_shape(self, shapes: Sequence[Sequence[int]]) -> tuple[int, int]:
        """The grid of levels of these shapes (h, w)."""
        whole = tuple(dict(zip(self.levels, shapes, strict=True)).get(GRID_LEVEL, shapes[0]))
        if self._is_whole(whole):
            return whole
        return tuple(min(side, self.grid) for side in shapes[0])

    def _is_whole(self, shape: Sequence[int]) -> bool:
        """Whether all patches of a level of that shape are looked at, rather than `grid` a side."""
        if self.grid is None:
            return True
        return self.all_of_large and math.prod(shape) > max(
            (MOST_AVERAGED * self.grid) ** 2, ABOUT * (LARGE_PX // 8) ** 2
        )

    def _on_one_grid(self, levels: Sequence[Tensor]) -> Tensor:
        """Patch vectors (b, rows, columns, dimensions)."""
        shape = self._grid_shape([level.shape[-2:] for level in levels])
        return self._joined([_on_grid(level, shape) for level in levels])

    def _joined(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels (b, d, rows, columns) of one grid as vectors (b, rows, columns, dimensions)."""
        # A mixture of all channels is the sum of the levels' mixtures.
        vectors = sum(levels) if self._mixed is not None else torch.cat(levels, dim=1)
        return vectors.permute(0, 2, 3, 1).contiguous()


class LevelRows:
    """The rows of one level of images in tiles, until the grid's rows that are made of them have been. The level has
    that `shape` (h, w), and is brought to the grid as `_on_grid` does it."""

    def __init__(self, shape: Sequence[int], grid: Sequence[int]) -> None:
        self._columns, rows = grid[1], torch.arange(grid[0], dtype=torch.float64)
        self._is_averaged = shape[0] >= grid[0] and shape[1] >= grid[1]
        if self._is_averaged:
            self._first = (rows * shape[0] / grid[0] + 1e-9).floor().long()
            self._end = ((rows + 1) * shape[0] / grid[0] - 1e-9).ceil().long()
        else:
            self._at = ((rows + 0.5) * shape[0] / grid[0] - 0.5).clamp(0, shape[0] - 1)
            self._first = self._at.floor().long()
            self._end = (self._first + 2).clamp(max=shape[0])
        self._held, self._start = None, 0

    def take(self, part: Tensor) -> None:
        """Take its next rows, (b, d, rows, w)."""
        part = _on_grid(part, (part.shape[2], self._columns), self._is_averaged)
        self._held = part if self._held is None else torch.cat([self._held, part], dim=2)

    @property
    def ready(self) -> int:
        """How many of the grid's rows can be made of what came so far."""
        return int(torch.searchsorted(self._end, self._start + self._held.shape[2], right=True))

    def made(self, first: int, end: int) -> Tensor:
        """The grid's rows from `first` to `end`: (b, d, rows, columns)."""
        begin, stop = int(self._first[first]), int(self._end[end - 1])
        held, numbers = self._held[:, :, begin - self._start : stop - self._start], torch.arange(begin, stop)
        if self._is_averaged:
            inside = (numbers >= self._first[first:end, None]) & (numbers < self._end[first:end, None])
            weights = inside / inside.sum(1, keepdim=True)
        else:
            weights = (1 - (numbers - self._at[first:end, None]).abs()).clamp(min=0)
        return weights.to(held) @ held

    def let_go(self, made: int) -> None:
        """Of what the first `made` rows of the grid are made of, all that no later one needs."""
        begin = int(self._first[made]) if made < len(self._first) else self._start + self._held.shape[2]
        self._held, self._start = self._held[:, :, begin - self._start :].clone(), begin


def _on_grid(maps: Tensor, shape: Sequence[int], is_averaged: bool | None = None) -> Tensor:
    """Maps (b, c, h, w) averaged down or interpolated up to `shape`; `is_averaged` says which, where it is not to be
    found out."""
    if tuple(maps.shape[-2:]) == tuple(shape):
        return maps
    if is_averaged is None:
        is_averaged = maps.shape[-2] >= shape[0] and maps.shape[-1] >= shape[1]
    return F.adaptive_avg_pool2d(maps, shape) if is_averaged else F.interpolate(maps, shape, mode="bilinear")
