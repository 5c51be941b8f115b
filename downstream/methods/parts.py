"""Normals of a category looked at apart, in parts and on many machines, and merged: nobody has to see all of them.

All parts lie in one space, which is learned first, from a few normals that are spread over all. Sums of parts are added
up; of their coresets a coreset is chosen. What normals score, each without what was learned of it, and so all units and
thresholds, comes from some that are spread over all, and is found against what was merged.
"""

import copy
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from baselines.contract.method import LEARNING_BATCH, batches
from downstream.methods.coreset import Chosen, Coresets
from downstream.methods.gaussians import Moments
from downstream.methods.patch_method import PatchMethod
from pretrain.command import UserError

Space = dict[str, Tensor]


class Part(NamedTuple):
    """Some of the normals of a category: the pooled vector of each (n, d), the sum of their patches at each position,
    the size of the images; and what the method learned of them: sums in float64, a coreset, or both."""

    pooled: Tensor
    patch_sum: Tensor
    size_px: list[int]
    moments: Moments | None = None
    chosen: Chosen | None = None

    def to(self, device: torch.device | str) -> Self:
        """The same on a device."""
        return self._replace(**{name: part.to(device) for name, part in self._asdict().items() if hasattr(part, "to")})


class InParts(PatchMethod):
    """A patch method that can be referred to normals in parts."""

    def space_of(self, normals: Sequence[Tensor]) -> Space:
        """How patches are compared, learned from some normals that are spread over all: what all parts are to share."""
        apart = self._apart({})
        apart._learn_space_of(normals)
        return {name: learned.cpu() for name, learned in vars(apart).items() if name.endswith("_")}

    def part_of(self, normals: Sequence[Tensor], space: Space) -> Part:
        """What is learned of some of the normals, of which others are looked at elsewhere, for `refer_to_parts`."""
        apart = self._apart(space)
        learned = apart._learn_part(normals)
        return Part(apart.pooled_, apart.patch_sum_, apart.size_px_, **learned)

    def refer_to_parts(self, parts: Iterable[Part], space: Space, normals: Sequence[Tensor]) -> Self:
        """As `refer` to the normals of all parts, in their order; sums are added up in float64. Of `normals`, all of
        them in that order, some are looked at once more, after the parts."""
        self._begin(space)
        pooled, coresets = [], Coresets(self._most_kept(), self.seed)
        for part in (part.to(self.device) for part in parts):
            if getattr(self, "size_px_", part.size_px) != part.size_px:
                raise UserError(f"normals of {part.size_px} and {self.size_px_} pixels: give them one size.")
            self.size_px_ = part.size_px
            self.patch_sum_ = getattr(self, "patch_sum_", 0) + part.patch_sum
            if part.moments is not None:
                self.moments_ = self.moments_.merged(part.moments) if hasattr(self, "moments_") else part.moments
            if part.chosen is not None:
                coresets.add(part.chosen._replace(owners=part.chosen.owners + sum(map(len, pooled))))
            pooled.append(part.pooled)
        self.pooled_ = torch.cat(pooled)
        self._learn_merged(normals, coresets)
        return self

    @abstractmethod
    def _learn_part(self, normals: Sequence[Tensor]) -> dict[str, object]:
        """Look at some normals, by `_looked_at`; gives what Part has of a method."""

    @abstractmethod
    def _learn_merged(self, normals: Sequence[Tensor], coresets: Coresets) -> None:
        """As `_learn`, where sums are merged and pooled vectors known."""

    def _most_kept(self) -> int:
        """How many patches a method keeps that keeps a coreset, however many it looks at."""
        return 0

    def _apart(self, space: Space) -> Self:
        """A copy of this method that learns, with this space, while this one stays as it is."""
        self._opened_patches()  # once for all copies
        apart = copy.copy(self)
        apart._begin(space)
        return apart

    def _begin(self, space: Space) -> None:
        self._forget_normals()
        for name, learned in space.items():
            setattr(self, name, learned.to(self.device))

    def _seen_again(self, normals: Sequence[Tensor], positions: Sequence[int]) -> Tensor:
        """The patches of some normals, in all their views: (n, m, p, d)."""
        chosen = batches((normals[i] for i in positions), LEARNING_BATCH, self.device, True, self.most_pixels)
        bands = [[self.region.inside(band) for band in self._bands_of_views(images)] for images in chosen]
        return torch.cat([torch.cat(of_batch, dim=2) for of_batch in bands])
