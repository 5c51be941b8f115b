"""Patches of images that come in bands, and what is taken of them on the way: all at once take gigabytes."""

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from downstream.methods.region import Region
from embeddings.patches import Band

# Of one image, patches that suffice to know how patches are compared.
MAX_PATCHES_EACH = 2**13


class Pooled:
    """Bands of images, handed on as they come; then the mean over those of their patches that count, of views the
    first."""

    def __init__(self, region: Region, bands: Iterable[Band]) -> None:
        self._region, self._bands = region, bands
        self.grid: tuple[int, int] = (0, 0)
        self._sum: Tensor | float = 0.0

    def __iter__(self) -> Iterator[Band]:
        for band in self._bands:
            self.grid = band.grid
            of_first = band._replace(vectors=band.vectors[:, 0] if band.vectors.ndim > 4 else band.vectors)
            self._sum = self._sum + self._region.inside(of_first).sum(1)
            yield band
            del band, of_first

    def mean(self) -> Tensor:
        """(b, d)."""
        return self._sum / self._region.count(self.grid)


def heard(bands: Iterable[Band], look: Callable[[Band], Tensor], into: list[Tensor]) -> Iterator[Band]:
    """Hand on bands after a look at each."""
    for band in bands:
        into.append(look(band))
        yield band
        del band


def sampled(region: Region, bands: Iterable[Band]) -> Tensor:
    """Of the patches of images that count as many of each as suffice to know them all: (b, n, d)."""
    parts, seen = [], 0
    for band in bands:
        step = math.ceil(region.count(band.grid) / MAX_PATCHES_EACH)
        inside = region.inside(band)
        parts.append(inside[:, -seen % step :: step].clone())
        seen += inside.shape[1]
    return torch.cat(parts, dim=1)
