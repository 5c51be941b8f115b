"""PatchCore: how far is a patch from the nearest one that good images show anywhere.

Roth et al. 2021, https://arxiv.org/abs/2106.08265. Positions do not matter, so products may be posed freely.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from baselines.contract.method import CPU, LEARNING_BATCH, at_once, batches
from downstream.methods.coreset import Chosen, Coresets, coreset, nearest_rows, squared_distances
from downstream.methods.normals import MAX_LEFT_OUT, evenly, nearest_other
from downstream.methods.parts import InParts
from embeddings.index import Index
from embeddings.patches import Band
from pretrain.progress import Progress

# Patches that the coreset is chosen from, an equal share of each normal's: so memory does not grow with their number.
MAX_CANDIDATES = 2**16
# With few normals all their patches are kept.
MIN_PATCHES = 4096
# What a coreset that grows may hold, patches of further normals that are taken in, and those they are chosen from.
MAX_CORESET, MAX_ADDED, MAX_COMPARED = 2**13, 2**11, 2**13
# Of the mean spacing, added to every one: half of it, and much more while a few normals tell little of it.
SPACING_FLOOR, SPACING_FLOOR_OF_ONE = 0.5, 16.0
SPACED_AT_ONCE = 1024
PATCHES_AT_ONCE = 2**16


@dataclass(kw_only=True, eq=False, repr=False)
class PatchCore(InParts):
    """A coreset of `coreset_ratio` of all normal patches, MIN_PATCHES at least, and exact search in it: by faiss on a
    CPU; on a GPU by torch's matrix products, since the patches lie there already and faiss's own would take them to
    main memory and back.

    Patches are compared along the `dimensions` principal axes of what normals show, all of them with none. A patch's
    distance is the mean of those to its `num_neighbors` nearest ones, in units of how far apart normal patches lie
    there: the mean distance of the nearest one to its own `density_neighbors` (https://arxiv.org/abs/2308.12577); 0 for
    no such units.
    """

    dimensions: int | None = 96
    density_neighbors: int = 5
    coreset_ratio: float = 0.1
    num_neighbors: int = 1

    def _learn(self, normals: Sequence[Tensor]) -> None:
        self._choose_coreset(*self._candidates(self._views_of_normals(normals), len(normals)))
        self._score_normals(normals, self._left_out(normals))

    def add(self, normals: Sequence[Tensor]) -> Self:
        """Take in further normals, as much of them as the coreset has room for; the earlier ones are not needed.
        `normal_scores_` gain the new ones', each without itself."""
        known = len(self.pooled_)
        candidates, owners = self._candidates(self._views_of_normals(normals), len(normals))
        self._grow_coreset(candidates, owners + known)
        self._score_normals(normals, range(known, known + len(normals)), known)
        return self

    def _learn_part(self, normals: Sequence[Tensor]) -> dict[str, object]:
        return {"chosen": self._chosen_of(self._looked_at(normals), len(normals))}

    def _chosen_of(self, views_of_normals: Iterable[Iterable[Band]], count: int) -> Chosen:
        """The coreset of `count` normals that are one part of all."""
        candidates, owners = self._candidates(views_of_normals, count)
        self._choose_coreset(candidates, owners, self._most_kept())
        return Chosen(self.coreset_, self.owners_, len(candidates))

    def _learn_merged(self, normals: Sequence[Tensor], coresets: Coresets) -> None:
        self._take_merged(coresets)
        self._score_normals(normals, self._left_out(normals))

    def _take_merged(self, coresets: Coresets) -> None:
        vectors, owners, _ = coresets.merged(self._coreset_count(coresets.looked_at))
        self._set_coreset(vectors, owners, len(self.pooled_))

    def _learn_space(self, features: Iterable[Tensor]) -> None:
        features = list(features)
        super()._learn_space(features)
        patches = torch.cat([self._normalized(batch).flatten(0, 1) for batch in features])
        self.center_, self.axes_ = principal_axes(patches, self.dimensions)

    def _choose_coreset(self, candidates: Tensor, owners: Tensor, count: int | None = None) -> Tensor:
        """Choose the coreset from patches (n, d) of the normals numbered `owners` (n,); gives the chosen positions."""
        candidates = self._projected(candidates)
        count = count or self._coreset_count(len(candidates))
        if count <= MIN_PATCHES:  # takes a moment: no progress bar
            chosen = coreset(candidates, count, self.seed).sort().values
        else:
            with Progress("choosing the coreset", min(count, len(candidates)), "patches") as progress:
                chosen = coreset(candidates, count, self.seed, progress.advance).sort().values
        self._set_coreset(candidates[chosen], owners[chosen], 1 + int(owners.max()))
        return chosen

    def _coreset_count(self, looked_at: int) -> int:
        share = round(self.coreset_ratio * min(looked_at, MAX_CANDIDATES))
        return max(share, MIN_PATCHES, self.num_neighbors)

    def _most_kept(self) -> int:
        return self._coreset_count(MAX_CANDIDATES)

    def _grow_coreset(self, candidates: Tensor, owners: Tensor) -> None:
        """Take in patches (n, d) of further normals, in turn the farthest from all that are there, while there is room.
        The rows that are there stay what they are."""
        projected, apart = self._projected(candidates), self._nearest(candidates)[0][:, 0].square()
        farthest = apart.topk(min(MAX_COMPARED, len(apart))).indices.sort().values
        count = min(MAX_ADDED, MAX_CORESET - len(self.coreset_), len(farthest))
        if count > 0:
            chosen = farthest[coreset(projected[farthest], count, apart=apart[farthest]).sort().values]
            vectors, owners = torch.cat([self.coreset_, projected[chosen]]), torch.cat([self.owners_, owners[chosen]])
            self._set_coreset(vectors, owners, 1 + int(owners.max()))

    def _set_coreset(self, vectors: Tensor, owners: Tensor, normals: int) -> None:
        vars(self).pop("_index", None)
        self.coreset_, self.owners_ = vectors, owners
        self.spacing_ = spacing(vectors, self.density_neighbors, SPACING_FLOOR + SPACING_FLOOR_OF_ONE / normals)

    def _distances(self, bands: Iterable[Band]) -> Tensor:
        return torch.cat([self._of_nearest(self.region.inside(band)) for band in bands], dim=1)

    def _of_nearest(self, vectors: Tensor) -> Tensor:
        """How strange patches (b, p, d) are: (b, p)."""
        parts = vectors.flatten(0, 1).split(PATCHES_AT_ONCE)
        return torch.cat([self._patch_scores(part, *self._nearest(part)) for part in parts]).view(vectors.shape[:2])

    def _patch_scores(self, vectors: Tensor, distances: Tensor, rows: Tensor) -> Tensor:
        """How strange patches (n, d) are, given their nearest in the coreset, both (n, num_neighbors): (n,)."""
        return distances.mean(1) / self.spacing_[rows[:, 0]]

    def _nearest(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Distances and rows of the nearest in the coreset, (n, num_neighbors) each, of patches (n, d)."""
        vectors, count = self._projected(vectors), min(self.num_neighbors + 1, len(self.coreset_))
        if self.device.type != "cpu":
            return self._exactly(vectors, nearest_rows(vectors, self.coreset_, count))
        if "_index" not in vars(self):
            self._index = exact_index(self.coreset_)
        return self._exactly(vectors, torch.from_numpy(self._index.search(vectors.numpy(), count).ids))

    def _nearest_without(self, vectors: Tensor, own: int) -> tuple[Tensor, Tensor]:
        """The same of projected patches, among those that are not of the normal `own`."""
        return self._nearest_among(vectors, torch.nonzero(self.owners_ != own)[:, 0])

    def _nearest_among(self, vectors: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The same of projected patches, among some rows of the coreset."""
        others, count = self.coreset_[rows], min(self.num_neighbors + 1, len(rows))
        if self.device.type == "cpu":  # in half the time
            nearest = torch.from_numpy(exact_index(others).search(vectors.numpy(), count).ids)
        else:
            nearest = nearest_rows(vectors, others, count)
        return self._exactly(vectors, rows[nearest])

    def _exactly(self, vectors: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Of projected patches (n, d) and the rows of nearly the nearest (n, m), one more than asked for: the nearest,
        by differences. From squared lengths digits are lost, and of two that are about as near the wrong one may come
        first, whose spacing is another."""
        distances = (self.coreset_[rows] - vectors[:, None]).norm(dim=2)
        order = distances.argsort(dim=1, stable=True)[:, : self.num_neighbors]
        return distances.gather(1, order), rows.gather(1, order)

    def _candidates(self, views_of_normals: Iterable[Iterable[Band]], count: int) -> tuple[Tensor, Tensor]:
        """Patches (n, d) of `count` normals, and the number of the normal that each is of (n,)."""
        generator, each = torch.Generator().manual_seed(self.seed), max(1, MAX_CANDIDATES // count)
        drawn = [candidates for bands in views_of_normals for candidates in self._drawn(bands, generator, each)]
        owners = torch.arange(len(drawn), device=self.device).repeat_interleave(len(drawn[0]))
        return torch.cat(drawn), owners

    def _drawn(self, bands: Iterable[Band], generator: torch.Generator, each: int) -> list[Tensor]:
        """Of some normals in all their views `each` patches, or all where they are fewer: (n, d) of each normal."""
        drawn, start = [], 0
        for band in bands:
            counted = self.region.inside(band)  # (b, m, p, d)
            if not drawn:
                whole = self.region.count(band.grid)
                draws = [torch.randperm(counted.shape[1] * whole, generator=generator)[:each] for _ in counted]
                drawn = [counted.new_empty(len(draw), counted.shape[-1]) for draw in draws]
            for patches, draw, into in zip(counted, draws, drawn, strict=True):
                view, number = draw // whole, draw % whole - start
                here = ((number >= 0) & (number < patches.shape[1])).nonzero()[:, 0].to(self.device)
                into[here] = patches[view.to(self.device)[here], number.to(self.device)[here]]
            start += counted.shape[2]
            del band, counted, patches
        return drawn

    def _score_normals(self, normals: Sequence[Tensor], positions: Sequence[int], first: int = 0) -> None:
        """Those numbered `positions`, each without its own patches; the first of `normals` has the number `first`."""
        left_out = self._each_left_out(normals, positions, first)
        self._add_normals(left_out, nearest_other(self.pooled_, positions))

    def _left_out(self, normals: Sequence[Tensor]) -> list[int]:
        """Which normals are scored without themselves: none where there is only one."""
        return evenly(len(normals), MAX_LEFT_OUT) if len(normals) > 1 else []

    def _each_left_out(self, normals: Sequence[Tensor], positions: Sequence[int], first: int = 0) -> Tensor:
        """The distances of their patches: (n, rows, columns)."""
        maps = [self.patch_sum_.new_empty(0, *self.patch_sum_.shape[:2])]
        count = at_once(LEARNING_BATCH, self.size_px_, self.most_pixels)
        for start in range(0, len(positions), count):
            owners = positions[start : start + count]
            (images,) = batches((normals[i - first] for i in owners), count, CPU, True, self.most_pixels)
            parts = [
                torch.stack([self._of_nearest_without(*each) for each in zip(inside, owners, strict=True)])
                for inside in map(self.region.inside, self._bands(images))
            ]
            maps.append(self.region.spread(torch.cat(parts, dim=1), self.patch_sum_.shape[:2]))
            del images
        return torch.cat(maps)

    def _of_nearest_without(self, patches: Tensor, own: int) -> Tensor:
        """How strange patches (p, d) of the normal `own` are, without its own: (p,)."""
        parts = patches.split(PATCHES_AT_ONCE)
        return torch.cat(
            [self._patch_scores(part, *self._nearest_without(self._projected(part), own)) for part in parts]
        )

    def _projected(self, vectors: Tensor) -> Tensor:
        if vectors.shape[:-1].numel() <= PATCHES_AT_ONCE:
            return (vectors - self.center_) @ self.axes_
        projected = vectors.new_empty(*vectors.shape[:-1], self.axes_.shape[1])
        parts = vectors.flatten(0, -2).split(PATCHES_AT_ONCE), projected.flatten(0, -2).split(PATCHES_AT_ONCE)
        for part, into in zip(*parts, strict=True):  # of a large image a second copy takes gigabytes
            torch.matmul(part - self.center_, self.axes_, out=into)
        return projected

    def to(self, device: torch.device | str) -> Self:
        vars(self).pop("_index", None)
        return super().to(device)

    def _forget(self) -> None:
        super()._forget()
        vars(self).pop("_index", None)


def exact_index(vectors: Tensor) -> Index:
    return Index.build(vectors.numpy(), metric="l2", kind="flat")


def principal_axes(vectors: Tensor, count: int | None) -> tuple[Tensor, Tensor]:
    """The mean (d,) of vectors (n, d), and as columns (d, k) the `count` directions in which they spread most: all,
    where there are no more, or with none."""
    center = vectors.mean(0)
    centered = vectors - center
    directions = torch.linalg.eigh((centered.T @ centered).double()).eigenvectors  # the least first
    return center, directions.flip(1)[:, :count].float().contiguous()


def spacing(vectors: Tensor, neighbors: int, floor: float) -> Tensor:
    """How far apart vectors (n, d) lie about each of them (n,): the mean distance to its nearest `neighbors`, plus
    `floor` times the mean of all, so that copies do not make everything strange. All 1 where there are none."""
    if not neighbors or len(vectors) < 2:
        return vectors.new_ones(len(vectors))
    count = min(neighbors + 1, len(vectors))
    nearest = [
        squared_distances(part, vectors).topk(count, largest=False).values for part in vectors.split(SPACED_AT_ONCE)
    ]
    about = torch.cat(nearest)[:, 1:].sqrt().mean(1)  # the nearest of all is the vector itself
    return about + floor * about.mean().clamp(min=1e-9)
