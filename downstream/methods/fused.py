"""PaDiM and PatchCore fused: is a patch strange for its position, and is it strange anywhere?

The two err differently. Gaussians know where a patch belongs and need normals posed alike, and many of them; the
nearest patch is wherever it is, and four normals will do.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from downstream.methods.bands import heard
from downstream.methods.coreset import Coresets
from downstream.methods.evidence import Evidence, Patches, inputs_of, learn_evidence
from downstream.methods.gaussians import Moments
from downstream.methods.normals import MAX_LEFT_OUT, evenly, nearest_other
from downstream.methods.padim import PaDiM, packed, unpacked
from downstream.methods.patch_method import PatchMethod
from downstream.methods.patchcore import PatchCore
from embeddings.patches import Band
from pretrain.command import UserError
from pretrain.files import read_tensors, write_tensors

# Normals of which a Gaussian counts half.
FEW = 16
# What `add` needs and an inspection never reads: the sums, and patches of some normals, from which the threshold is
# found anew: of so many normals, at 384 px of 75, 32 MiB.
MEMORY_FILE = "memory.safetensors"
MAX_REMEMBERED, MAX_REMEMBERED_NUMBERS = 100, 2**24


# A patch is defective if a drawing covers this share of it.
DEFECTIVE_SHARE = 0.25


class Marked(NamedTuple):
    """A defective image (3, h, w), and where the defect is, bool (h, w), or none."""

    image: Tensor
    mask: Tensor | None


class LeftOut(NamedTuple):
    """Normals by their numbers, their projected patches (n, p, d), their Gaussian distances (n, p) and those to the
    nearest patches of others (n, p, k), which lie in those rows of the coreset, each normal without itself."""

    numbers: list[int]
    patches: Tensor
    gaussian: Tensor
    nearest: Tensor
    rows: Tensor


class Remembered(NamedTuple):
    """Some of the normals learned from: their numbers, their projected patches (n, views, p, d), half precision, which
    changes a distance by less than a thousandth; and of their first views what LeftOut has."""

    numbers: list[int]
    patches: Tensor
    nearest: Tensor
    rows: Tensor


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

    saves_sums: ClassVar[bool] = False  # with the method itself

    _make_patches = PatchMethod._make_patches  # of all channels

    def add(self, normals: Sequence[Tensor]) -> Self:
        """Take in further normals; the earlier ones are not needed any more. `normal_scores_` are then those of the new
        ones and of the remembered ones, each left out of all; without new ones all of this stays as it is. What defects
        look like is forgotten. Raises UserError for a method that was loaded, until `remember`."""
        if not hasattr(self, "_remembered"):
            raise UserError("a fused method that was loaded takes in no normals before it remembers the earlier ones.")
        if not self._remembered.numbers and not len(normals):
            raise UserError("of a single good image nothing says how good ones differ: confirm a further one.")
        self.moments_ = copy.deepcopy(self.moments_)  # which grow in place, and a copy of this method shares them
        self._forget_evidence()
        self._left_out = self._take_in(normals)
        return self

    def mark(self, defective: Sequence[Marked], reach: float) -> bool:
        """Learn what defects of this product look like, after the normals: it then adds up to `reach` to a score, and
        never takes from one. False where they look no different from good images."""
        left_out = self._left_out
        strangeness = self._strangeness(left_out)
        if self.image_weight:  # scores are in these units, and patches are not
            reach = reach * float(self.units_[0])
        inputs = inputs_of(left_out.patches, self.coreset_[left_out.rows[:, :, 0]])
        good = Patches(inputs.cpu(), strangeness.cpu(), torch.zeros(strangeness.shape, dtype=torch.bool))
        evidence, added = learn_evidence(good, self._evidence_of(defective), reach, self.seed)
        if evidence is None:
            return False
        self.evidence_weights_ = evidence.weights.to(self.device)
        self.evidence_range_ = [evidence.low, evidence.high, evidence.reach]
        self._score(left_out, added.to(self.device))
        return True

    def to(self, device: torch.device | str) -> Self:
        super().to(device)
        if hasattr(self, "fusion_"):  # two numbers, read for every batch: a GPU would be waited for
            self.fusion_ = self.fusion_.cpu()
        return self

    def _distances(self, bands: Iterable[Band]) -> Tensor:
        return self._compared(bands)[0]

    def _compared(self, bands: Iterable[Band]) -> tuple[Tensor, Tensor | None]:
        gaussian, nearest = self.fusion_.tolist()
        if not gaussian:
            return nearest * PatchCore._distances(self, bands), None
        of_nearest: list[Tensor] = []
        of_gaussians = PaDiM._distances(
            self, heard(bands, lambda band: self._of_nearest(self.region.inside(band)), of_nearest)
        )
        members = of_gaussians, torch.cat(of_nearest, dim=1)
        both = nearest * members[1] + gaussian * of_gaussians
        if not hasattr(self, "member_units_"):  # of a model of before
            return both, None
        first, second = (self._strangest(part) for part in members)
        (first_mean, first_unit), (second_mean, second_unit) = self.member_units_
        return both, ((first - first_mean) / first_unit - (second - second_mean) / second_unit).abs()

    def _strangest(self, distances: Tensor) -> Tensor:
        """The mean of the highest distances of patches (n, p) that count: (n,), about the score of these alone."""
        return distances.topk(max(1, round(self.top_share * distances.shape[1])), dim=1).values.mean(1)

    def _patch_scores(self, vectors: Tensor, distances: Tensor, rows: Tensor) -> Tensor:
        """PatchCore's, and what is known of defects, in its units."""
        scores = super()._patch_scores(vectors, distances, rows)
        if not hasattr(self, "evidence_weights_"):
            return scores
        inputs = inputs_of(self._projected(vectors), self.coreset_[rows[:, 0]])
        evidence = Evidence(self.evidence_weights_, *self.evidence_range_)
        return scores + evidence.of(inputs) / self.fusion_[1].item()

    def save(self, folder: Path) -> None:
        """Beside the method and its encoder, write what `remember` reads, of a method that has it."""
        super().save(folder)
        if hasattr(self, "_remembered") and hasattr(self, "moments_"):
            numbers, *_ = self._remembered
            tensors = {**packed(vars(self.moments_)), **self._remembered._asdict()}
            tensors = {name: part.cpu() for name, part in tensors.items() if part is not numbers}
            write_tensors(folder / MEMORY_FILE, tensors, {"numbers": numbers})

    def remember(self, folder: Path) -> Self:
        """Read what `add` needs of the folder that this method was loaded from. Raises UserError where it is not."""
        if hasattr(self, "cells_"):
            raise UserError(
                f"in {folder} patches of large images share Gaussians, and such a model takes in no more images: fit "
                "one with a smaller --size-px."
            )
        if not (folder / MEMORY_FILE).is_file():
            raise UserError(
                f"{folder} does not hold what learning more takes ({MEMORY_FILE}; models of before have none): fit it "
                "again with python downstream/detect.py fit."
            )
        tensors, metadata = read_tensors(folder / MEMORY_FILE)
        self._remembered = Remembered(metadata["numbers"], *map(tensors.pop, Remembered._fields[1:]))
        self.moments_ = Moments(**unpacked(tensors)).to(self.device)
        return self

    def without_memory(self) -> Self:
        """Drop what `add` needs: what is saved then is as small as can be."""
        for name in ("_remembered", "_left_out", "moments_"):
            vars(self).pop(name, None)
        return self

    def _learn(self, normals: Sequence[Tensor]) -> None:
        self._take_in(normals)

    def _learn_part(self, normals: Sequence[Tensor]) -> dict[str, object]:
        chosen = self._chosen_of(self._summed(normals), len(normals))
        return {"moments": self.moments_, "chosen": chosen}

    def _learn_merged(self, normals: Sequence[Tensor], coresets: Coresets) -> None:
        self._take_merged(coresets)
        positions, members, gaussian = self._fit_merged(normals)
        self._take_units(self._each_left_out_of(positions, members, gaussian), members)

    def _learn_shared(self, normals: Sequence[Tensor]) -> None:
        """Score normals of which patches share Gaussians, after both were learned: they are encoded again, and nothing
        is remembered of them."""
        chosen = self._fit_shared(len(normals))
        gaussian, nearest = ([self._counted_weights()[None][:0]] for _ in range(2))
        for own in chosen:
            parts: list[Tensor] = []
            bands = heard(self._seen_alone(normals[own]), partial(self._first_without, own=own), parts)
            gaussian.append(self._without_itself(bands))
            nearest.append(torch.cat(parts)[None])
        gaussian, nearest = (self.region.spread(torch.cat(each), self.grid_) for each in (gaussian, nearest))
        self._set_units(gaussian, nearest, len(self.pooled_))
        distances = self.fusion_[0] * gaussian + self.fusion_[1] * nearest
        self._add_normals(distances, nearest_other(self.pooled_, chosen))

    def _first_without(self, band: Band, own: int) -> Tensor:
        """PatchCore's distances of the normal `own` in its first view, without its own patches: (p,)."""
        return self._of_nearest_without(self.region.inside(band)[0, 0], own)

    def _as_summed(self, vectors: Tensor) -> Tensor:
        return self._projected(vectors)

    def _take_in(self, normals: Sequence[Tensor]) -> LeftOut | None:
        """Add to what is known of normals, and score those that are remembered and the new ones, each left out."""
        known, kept = len(getattr(self, "pooled_", ())), []

        if len(normals):
            once_for_both = (self._adding(bands, kept) for bands in self._views_of_normals(normals))
            candidates, owners = self._candidates(once_for_both, len(normals))
            if known:
                self._grow_coreset(candidates, owners + known)
            else:
                self._choose_coreset(candidates, owners)
        if hasattr(self, "cells_"):
            return self._learn_shared(normals)
        numbers = list(range(known, known + sum(map(len, kept))))
        if not known:
            members = torch.cat(kept)  # (n, views, p, d)
            left_out = self._each_left_out_of(numbers, members, self._fit_gaussians(kept))
        else:
            left_out, members = self._left_out_again(numbers, kept)
        if len(normals) or not known:
            self._take_units(left_out, members)
        else:
            self._remembered = remembered(left_out, members)
        return left_out

    def _take_units(self, left_out: LeftOut, members: Tensor) -> None:
        """Remember normals that were left out, and take units and scores from them."""
        self._remembered = remembered(left_out, members)
        self._set_units(left_out.gaussian, self._nearest_scores(left_out), len(self.pooled_))
        vars(self).pop("units_", None)
        self._score(left_out)

    def _each_left_out_of(self, numbers: Sequence[int], members: Tensor, gaussian: Tensor) -> LeftOut:
        """Of the first MAX_LEFT_OUT normals, by their numbers, patches (n, views, p, d) and Gaussian distances."""
        gaussian = gaussian[:MAX_LEFT_OUT]  # (n, p)
        patches = members[: len(gaussian), 0]  # (n, p, d)
        numbers = numbers[: len(gaussian)]
        nothing = gaussian.new_empty(0, gaussian.shape[1], self.num_neighbors)
        found = [self._nearest_without(*each) for each in zip(patches, numbers, strict=True)]
        nearest = torch.stack([distances for distances, _ in found]) if found else nothing
        rows = torch.stack([rows for _, rows in found]) if found else nothing.long()
        return LeftOut(numbers, patches, gaussian, nearest, rows)

    def _left_out_again(self, numbers: Sequence[int], kept: Sequence[Tensor]) -> tuple[LeftOut, Tensor]:
        """The remembered normals and new ones, and the patches of both. To remembered ones nothing has gone from the
        coreset: the nearest of what came is all that may be nearer, and found in a fifth of the time."""
        earlier = Remembered(self._remembered.numbers, *(part.to(self.device) for part in self._remembered[1:]))
        members, count = torch.cat([earlier.patches.float(), *kept]), len(earlier.numbers)
        gaussian = self._fit_gaussians([members])
        new = self._each_left_out_of(numbers, members[count:], gaussian[count:])
        patches, nearest, rows = members[:count, 0], earlier.nearest, earlier.rows
        added = torch.nonzero(self.owners_ >= len(self.pooled_) - len(numbers))[:, 0]
        if count and len(added):
            found = self._nearest_among(patches.flatten(0, 1), added)
            nearest, rows = (
                torch.cat([before, came.unflatten(0, patches.shape[:2])], dim=2)
                for before, came in zip((nearest, rows), found, strict=True)
            )
            order = nearest.argsort(dim=2, stable=True)[:, :, : self.num_neighbors]
            nearest, rows = nearest.gather(2, order), rows.gather(2, order)
        old = LeftOut(earlier.numbers, patches, gaussian[:count], nearest, rows)
        both = (torch.cat(parts) for parts in zip(old[1:], new[1:], strict=True))
        return LeftOut([*old.numbers, *new.numbers], *both), members[: count + len(new.numbers)]

    def _nearest_scores(self, left_out: LeftOut) -> Tensor:
        """PatchCore's distances of left-out normals, (n, p)."""
        return left_out.nearest.mean(2) / self.spacing_[left_out.rows[:, :, 0]]

    def _strangeness(self, left_out: LeftOut) -> Tensor:
        """Both distances of left-out normals, added up: (n, p)."""
        return self.fusion_[0] * left_out.gaussian + self.fusion_[1] * self._nearest_scores(left_out)

    def _set_units(self, gaussian: Tensor, nearest: Tensor, count: int) -> None:
        """Give both distances the units that left-out normals show, of `count` in all."""
        if len(gaussian):
            units = torch.stack([gaussian.mean(), nearest.mean()]).clamp(min=1e-12)
            weight = self.gaussian_weight * count / (count + FEW)
            self.fusion_ = torch.tensor([weight, 1.0]) / units.cpu()
        else:  # a single normal has no covariance, and cannot be left out
            self.fusion_ = torch.tensor([0.0, 1.0])

    def _score(self, left_out: LeftOut, evidence: Tensor | float = 0.0) -> None:
        """Score the normals that were left out, in place of scores of before. Units are of the statistics alone."""
        for name in ("normal_scores_", "normal_peaks_"):
            vars(self).pop(name, None)
        vars(self).pop("member_units_", None)
        if len(left_out.numbers) > 1:  # how each statistic alone judges normals, so that one can be told from the other
            members = left_out.gaussian, self._nearest_scores(left_out) + evidence / self.fusion_[1].item()
            alone = torch.stack([self._strangest(part) for part in members])
            self.member_units_ = torch.stack([alone.mean(1), alone.std(1).clamp(min=1e-12)], dim=1)
        distances = self._strangeness(left_out) + evidence
        self._add_normals(self.region.spread(distances, self.grid_), nearest_other(self.pooled_, left_out.numbers))

    def _evidence_of(self, defective: Sequence[Marked]) -> Patches:
        """Marked images as evidence.py sees them."""
        parts = []
        for image, mask in defective:
            vectors = self.patches(image[None])
            inside = self.region.within(vectors)[0]  # (p, d)
            distances, rows = self._nearest(inside)
            patches = self._projected(inside)
            nearest = PatchCore._patch_scores(self, inside, distances, rows)
            strangeness = self.fusion_[0] * self._weighted(patches[None])[0] + self.fusion_[1] * nearest
            drawn = torch.zeros(len(inside), dtype=torch.bool)
            if mask is not None:  # of a small one, the patch that it covers most
                cover = F.adaptive_avg_pool2d(mask[None, None].float().to(self.device), vectors.shape[1:3])
                cover = self.region.within(cover[0, 0, :, :, None])[:, 0].cpu()
                drawn = (cover > 0) & (cover >= cover.max().clamp(max=DEFECTIVE_SHARE))
            inputs = inputs_of(patches, self.coreset_[rows[:, 0]])
            parts.append(Patches(inputs.cpu(), strangeness.cpu(), drawn))
        return Patches(*(torch.stack(part) for part in zip(*parts, strict=True)))

    def _weighted(self, patches: Tensor) -> Tensor:
        """Gaussian distances of projected patches (b, p, d) that count, times the weights of their positions."""
        return self.gaussians_.distances(patches) * self._counted_weights()

    def _forget_evidence(self) -> None:
        for name in ("evidence_weights_", "evidence_range_"):
            vars(self).pop(name, None)

    def _forget(self) -> None:
        super()._forget()
        for name in ("_remembered", "_left_out"):
            vars(self).pop(name, None)


def remembered(left_out: LeftOut, members: Tensor) -> Remembered:
    """Of normals that were left out, and their patches (n, views, p, d), as many as there is room for, spread over
    all."""
    most = min(MAX_REMEMBERED, max(1, MAX_REMEMBERED_NUMBERS // members[:1].numel()))
    chosen = evenly(len(left_out.numbers), most)
    patches, nearest, rows = (part[chosen].cpu() for part in (members, left_out.nearest, left_out.rows))
    return Remembered([left_out.numbers[i] for i in chosen], patches.half(), nearest, rows)
