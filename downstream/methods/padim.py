"""PaDiM: what the patch at every position of a good image looks like, as one Gaussian a position.

Defard et al. 2020, https://arxiv.org/abs/2011.08785. Statistics are sums, so that memory does not grow with the number
of normals, and new ones can be taken in without the old ones. Neighboring patches of large images share a Gaussian.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor

from downstream.methods import cells
from downstream.methods.coreset import Coresets
from downstream.methods.gaussians import Gaussians, Moments, fit_gaussians
from downstream.methods.maps import is_large
from downstream.methods.normals import MAX_LEFT_OUT, evenly, nearest_other
from downstream.methods.parts import InParts
from embeddings.patches import Band, Patches
from pretrain.command import UserError
from pretrain.encoder import Encoder

# Of the first normals, kept until all have come for their scores without themselves: 128 MiB of float32.
MAX_KEPT_NUMBERS = 2**25
# Sums and matrices together: where they would take more, patches share them. Those of large images do so soon, as these
# take memory by themselves; where somebody asks for many channels or positions of others, each has its own.
MAX_GAUSSIAN_BYTES, MAX_LARGE_GAUSSIAN_BYTES = 2**33, 2**29
MATRICES = {"second", "whitening"}


@dataclass(kw_only=True, eq=False, repr=False)
class PaDiM(InParts):
    """A Gaussian of `dimensions` channels at every position; a patch's distance is Mahalanobis'.

    `reduction` chooses the channels: "random" ones, as published, or "orthogonal" mixtures of all; `dimensions` none
    keeps all. `shrinkage` from 0 to 1 pulls every covariance towards a multiple of the identity; none for the amount of
    Ledoit and Wolf. `variance_weight` is how much less positions count where normals hardly vary, such as an even
    background: at 0, as published, a shade of other light there outweighs every defect; at 1 a position of the mean
    variance counts 0.7. Products must be posed alike, and images all of one size. Of large images, such as at native
    resolution, as many neighboring patches share a Gaussian as lie at one position of the grid, or more, so that all
    Gaussians fit into memory; each patch is compared with its own.
    """

    grid: int | None = 28  # .933 AUROC on five products, .924 with 40
    normalize: bool = False  # what channels show of normals is no sum: of what `add` takes in, only the first counts
    dimensions: int | None = 200
    reduction: str = "random"
    shrinkage: float | None = None
    variance_weight: float = 1.0

    # Whether the sums, without which `add` cannot take in more normals, are saved with the method: half of its file.
    saves_sums: ClassVar[bool] = True

    def add(self, normals: Sequence[Tensor]) -> Self:
        """Take in further normals; the earlier ones are not needed any more. `normal_scores_` gain the new ones'."""
        self.moments_ = copy.deepcopy(self.moments_)  # which grow in place, and a copy of this method shares them
        self._learn(normals)
        return self

    def _learn_part(self, normals: Sequence[Tensor]) -> dict[str, object]:
        for bands in self._summed(normals):
            for _ in bands:
                pass
        return {"moments": self.moments_}

    def _summed(self, normals: Sequence[Tensor]) -> Iterator[Iterator[Band]]:
        """The patches of normals as `_looked_at` gives them, after they were added to sums in float64."""
        return (self._adding(bands, None) for bands in self._looked_at(normals))

    def _learn_merged(self, normals: Sequence[Tensor], coresets: Coresets) -> None:
        positions, _, left_out = self._fit_merged(normals)
        self._add_normals(self.region.spread(left_out, self.grid_), nearest_other(self.pooled_, positions))

    def _fit_merged(self, normals: Sequence[Tensor]) -> tuple[list[int], Tensor, Tensor]:
        """Fit to sums of parts, in float64. Gives the numbers of some normals, spread over all, their patches
        (n, m, p, d), and the distances of these (n, p), each left out."""
        self.grid_ = list(self.patch_sum_.shape[:2])
        views = int(self.moments_.count) // len(self.pooled_)
        most = min(MAX_LEFT_OUT, room_for(views * self.moments_.shift.numel()))
        positions = evenly(len(self.pooled_), most)
        members = self._as_summed(self._seen_again(normals, positions))
        left_out = self._fit_gaussians([members])
        self.moments_ = self.moments_.in_precision(torch.float32)
        self.gaussians_ = Gaussians(*(values.float() for values in self.gaussians_))
        return positions[: len(left_out)], members, left_out.float()

    def _learn(self, normals: Sequence[Tensor]) -> None:
        known = len(getattr(self, "pooled_", ()))
        kept = []
        for bands in self._views_of_normals(normals):
            for _ in self._adding(bands, kept):
                pass
        if hasattr(self, "cells_"):
            chosen = self._fit_shared(len(normals))
            left_out = self._each_without_itself(normals, chosen)
        else:
            left_out = self._fit_gaussians(kept)
            chosen = range(len(left_out))
        others = nearest_other(self.pooled_, [known + position for position in chosen])
        self._add_normals(self.region.spread(left_out, self.grid_), others)

    def _adding(self, bands: Iterable[Band], kept: list[Tensor] | None) -> Iterator[Band]:
        """Hand on the patches of some normals, vectors (b, m, rows, columns, d), after they were added to the sums; to
        those `kept`, too, while there is room, or with none to sums in float64."""
        feed, own, start, is_first = None, [], 0, not hasattr(self, "moments_")
        for band in bands:
            vectors = self._as_summed(self.region.inside(band))  # (b, m, p, d)
            vectors = vectors.double() if kept is None else vectors
            if not hasattr(self, "moments_"):
                self._begin_sums(band.grid, vectors)
            if hasattr(self, "cells_"):
                if kept is None:
                    raise UserError(
                        "patches of images so large share Gaussians, which are not merged: see them smaller."
                    )
                feed = feed or cells.Feed(self.cells_)
                cells.add(self.moments_, vectors, feed, is_first)
            else:
                part = self.moments_.part(slice(start, start + vectors.shape[2]))
                if is_first:
                    part.shift.copy_(vectors[:, 0].mean(0))
                part.add(vectors.flatten(0, 1))
                of_image = vectors.shape[1] * part.shift.shape[1] * self.region.count(band.grid)
                room = 0 if kept is None else room_for(of_image)
                own.append(vectors[: max(0, room - sum(map(len, kept or ())))])
            start += vectors.shape[2]
            images = vectors.shape[0] * vectors.shape[1] * (self.cells_.shape[1] if feed else 1)
            yield band
            del band, vectors
        self.moments_.count = self.moments_.count + images
        if own and len(own[0]):
            kept.append(torch.cat(own, dim=2) if len(own) > 1 else own[0])

    def _begin_sums(self, grid: tuple[int, int], vectors: Tensor) -> None:
        """Empty sums for the patches that count in such a grid, of such vectors (..., d)."""
        self.grid_, positions, dimensions = list(grid), self.region.count(grid), vectors.shape[-1]
        if (share := self._share(positions, dimensions, self.size_px_)) > 1:
            self.cells_ = cells.cells_of(self.region.numbers(grid, vectors.device), grid, share)
            positions = len(self.cells_)
        self.moments_ = Moments.about(vectors.new_zeros(1, positions, dimensions))

    def _fit_gaussians(self, kept: Sequence[Tensor]) -> Tensor:
        """Fit to the sums; gives the distances of the kept normals, each left out: (n, p)."""
        self.gaussians_, left_out = fit_gaussians(self.moments_, self.shrinkage, torch.cat(kept))
        weights = self._weights()
        (self.position_weights_,) = self.region.spread(weights[None], self.grid_)
        return left_out * weights

    def gaussian_bytes(self, shape: Sequence[int]) -> int:
        """What sums and matrices take for images (h, w)."""
        patches = self._opened_patches()
        positions, dimensions = math.prod(patches.grid_of(shape)), min(self.dimensions or patches.width, patches.width)
        of_cells = math.ceil(positions / self._share(positions, dimensions, shape))
        return 2 * of_cells * dimensions**2 * 4

    def _share(self, positions: int, dimensions: int, shape: Sequence[int]) -> int:
        """How many patches of images (h, w) share a Gaussian: as many as lie at one position of the grid, where all
        patches of a large image are looked at, and enough for all to fit into memory."""
        needed = 2 * positions * dimensions**2 * 4
        limit = MAX_LARGE_GAUSSIAN_BYTES if is_large(shape) else MAX_GAUSSIAN_BYTES
        return max(math.ceil(needed / limit), positions // (self.grid**2 if self.grid else positions))

    def _fit_shared(self, count: int) -> list[int]:
        """Fit Gaussians that patches share; gives which of `count` normals, the last that came, are to be left out."""
        self.gaussians_ = cells.fitted(self.moments_, self.shrinkage)
        weights = self._weights()[:, None].expand(self.cells_.shape)
        of_patches = weights.new_empty(1, int(self.cells_.max()) + 1)
        of_patches[0, self.cells_] = weights
        (self.position_weights_,) = self.region.spread(of_patches, self.grid_)
        # The first, as where none are shared: the scales of an ensemble are added up normal by normal.
        return list(range(min(count, MAX_LEFT_OUT))) if len(self.pooled_) > 1 else []

    def _each_without_itself(self, normals: Sequence[Tensor], chosen: Sequence[int]) -> Tensor:
        """Distances (n, p) of the patches of some normals, each without itself: they are encoded once more, as all
        patches of a large one take a gigabyte."""
        left_out = [self._without_itself(self._seen_alone(normals[position])) for position in chosen]
        return torch.cat(left_out) if left_out else self._counted_weights()[None][:0]

    def _seen_alone(self, image: Tensor) -> Iterator[Band]:
        return self._bands_of_views(image[None].to(self.device))

    def _without_itself(self, bands: Iterable[Band]) -> Tensor:
        """Distances (1, p) of the patches of one normal, of all its views, without itself."""
        weights, feed, floor = self._counted_weights(), cells.Feed(self.cells_), cells.floor_of(self.moments_)
        found = weights.new_empty(1, len(weights))
        for band in bands:
            (own,) = self._as_summed(self.region.inside(band))  # (m, p, d)
            cells.distances_without(found, self.moments_, own, feed, self.shrinkage, floor)
            del band, own
        return found * weights

    def _counted_weights(self) -> Tensor:
        """How much each patch that counts weighs, (p,)."""
        return self.region.within(self.position_weights_[:, :, None])[:, 0]

    def _as_summed(self, vectors: Tensor) -> Tensor:
        """Patches as they went into the sums."""
        return vectors

    def _distances(self, bands: Iterable[Band]) -> Tensor:
        """Mahalanobis distances at each position, times its weight."""
        parts, start, found, feed = [], 0, None, None
        for band in bands:
            if list(band.grid) != self.grid_:
                height, width = self.size_px_
                raise UserError(
                    f"the images are of another size than the normals, {width}x{height}: give them that size."
                )
            inside = self._as_summed(self.region.inside(band))  # (b, p, d)
            if hasattr(self, "cells_"):
                if found is None:
                    found, feed = inside.new_empty(len(inside), self.region.count(band.grid)), cells.Feed(self.cells_)
                cells.distances(found, self.gaussians_, inside, feed)
            else:
                at = slice(start, start + inside.shape[1])
                parts.append(Gaussians(*(part[at] for part in self.gaussians_)).distances(inside))
                start = at.stop
            del band, inside
        return (torch.cat(parts, dim=1) if found is None else found) * self._counted_weights()

    def packed(self, **instead: object) -> Self:
        """Of matrices that are symmetric or triangular, half is written."""
        sums = vars(self.moments_) if self.saves_sums else {}
        parts = {f"{name}_": part for name, part in packed({**sums, **self.gaussians_._asdict()}).items()}
        return super().packed(moments_=None, gaussians_=None, **parts, **instead)

    def unpacked(self, encoder: Encoder, folder: Path) -> Self:
        sums = tuple(Moments.__dataclass_fields__) if self.saves_sums else ()
        parts = unpacked({name: vars(self).pop(f"{name}_") for name in (*sums, *Gaussians._fields)})
        self.gaussians_ = Gaussians(**{name: parts.pop(name) for name in Gaussians._fields})
        if sums:
            self.moments_ = Moments(**parts)
        return super().unpacked(encoder, folder)

    def _weights(self) -> Tensor:
        """How much each position counts, (positions,)."""
        variances = self.moments_.variances()
        if not self.variance_weight or not variances.any():  # of one normal nothing is known
            return torch.ones_like(variances, dtype=torch.float32)
        return (variances / (variances + self.variance_weight * variances.mean())).sqrt().float()

    def _make_patches(self, encoder: Encoder) -> Patches:
        reduced = {"dimensions": self.dimensions, "reduction": self.reduction, "seed": self.seed}
        return Patches(
            encoder, self.levels, grid=self.grid, all_of_large=True, neighborhood=self.neighborhood, **reduced
        )


def room_for(numbers: int) -> int:
    """How many normals of so many numbers are kept."""
    return max(1, MAX_KEPT_NUMBERS // numbers)


def packed(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sums and Gaussians as they are written: of matrices (p, d, d), symmetric or triangular, half."""
    written = dict(parts)
    for name in MATRICES & parts.keys():
        rows, columns = torch.tril_indices(*parts[name].shape[1:])
        written[name] = parts[name][:, rows, columns]
    return written


def unpacked(written: dict[str, Tensor]) -> dict[str, Tensor]:
    """What `packed` was given."""
    parts = dict(written)
    positions, dimensions = written["mean" if "mean" in written else "first"].shape
    rows, columns = torch.tril_indices(dimensions, dimensions)
    for name in MATRICES & written.keys():
        parts[name] = written[name].new_zeros(positions, dimensions, dimensions)
        if name == "second":
            parts[name][:, columns, rows] = written[name]
        parts[name][:, rows, columns] = written[name]
    return parts
