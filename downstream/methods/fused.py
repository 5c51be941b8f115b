"""PaDiM and PatchCore fused: is a patch strange for its position, and is it strange anywhere?

The two err differently. Gaussians know where a patch belongs and need normals posed alike, and many of them; the
nearest patch is wherever it is, and four normals will do.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NoReturn, Self

import torch
from torch import Tensor

from downstream.methods.padim import PaDiM
from downstream.methods.patch_method import PatchMethod, nearest_other
from downstream.methods.patchcore import MAX_LEFT_OUT, PatchCore
from pretrain.command import UserError

# Normals of which a Gaussian counts half.
FEW = 16


@dataclass(kw_only=True, eq=False, repr=False)
class Fused(PaDiM, PatchCore):
    """PaDiM's distance and PatchCore's, each in units of what left-out normals show of it, added up.

    PatchCore's counts 1, PaDiM's `gaussian_weight`, of n normals n / (n + FEW) of it: a covariance of a few is mostly
    shrinkage. Arguments are those of both; both see patches along the same `dimensions` principal axes.
    """

    grid: int | None = PatchCore.grid  # as many as PatchCore, and not as few as PaDiM
    normalize: bool = True
    dimensions: int | None = PatchCore.dimensions
    gaussian_weight: float = 0.25  # .957 AUROC on five products, .951 with 1; RESULTS.md, ideas screened

    takes_more: ClassVar[bool] = False

    _make_patches = PatchMethod._make_patches  # of all channels

    def add(self, normals: Sequence[Tensor]) -> NoReturn:
        raise UserError("a fused method cannot take in further normals: refer to all of them, or use padim.")

    def to(self, device: torch.device | str) -> Self:
        super().to(device)
        if hasattr(self, "fusion_"):  # two numbers, read for every batch: a GPU would be waited for
            self.fusion_ = self.fusion_.cpu()
        return self

    def distances(self, vectors: Tensor) -> Tensor:
        gaussian, nearest = self.fusion_.tolist()
        distances = nearest * PatchCore.distances(self, vectors)
        return distances + gaussian * PaDiM.distances(self, self._projected(vectors)) if gaussian else distances

    def _learn(self, normals: Sequence[Tensor]) -> None:
        kept = []

        def views_of_normals() -> Iterator[Tensor]:  # each is encoded once, for both
            for views in self._views_of_normals(normals):
                self._add_to_sums(self._projected(views), kept)
                yield views

        self._choose_coreset(*self._candidates(views_of_normals(), len(normals)))
        gaussian = self._fit_gaussians(kept)[:MAX_LEFT_OUT]  # (n, p)
        nearest = torch.empty_like(gaussian)
        for own, patches in zip(range(len(gaussian)), torch.cat(kept)[:, 0], strict=False):  # (p, d)
            nearest[own] = self._patch_scores(patches, *self._nearest_without(patches, own))
        if len(gaussian):
            units = torch.stack([gaussian.mean(), nearest.mean()]).clamp(min=1e-12)
            weight = self.gaussian_weight * len(normals) / (len(normals) + FEW)
            self.fusion_ = torch.tensor([weight, 1.0]) / units.cpu()
        else:  # a single normal has no covariance, and cannot be left out
            self.fusion_ = torch.tensor([0.0, 1.0])
        left_out = self._spread(self.fusion_[0] * gaussian + self.fusion_[1] * nearest, self.grid_)
        self._add_normals(left_out, nearest_other(self.pooled_, range(len(left_out))))
