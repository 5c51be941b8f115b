"""A bank of normal patches: how far is a patch from the nearest one that good images show anywhere.

PatchCore (Roth et al. 2021, https://arxiv.org/abs/2106.08265). Where things lie does not matter, so products may be
posed freely.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.contract.method import LEARNING_BATCH
from downstream.methods.coreset import coreset, squared_distances
from downstream.methods.patch_method import PatchMethod, nearest_other
from embeddings.index import Index
from embeddings.patches import Patches
from pretrain.encoder import Encoder
from pretrain.progress import Progress

# Patches that the coreset is chosen from, an equal share of each normal's: so memory does not grow with their number.
MAX_CANDIDATES = 2**18
# With few normals all their patches are kept.
MIN_PATCHES = 2048
# Normals that are scored without their own patches, spread over all.
MAX_LEFT_OUT = 200
# Added to the covariance's diagonal before it is inverted, of its mean.
FLOOR = 0.01


@dataclass(kw_only=True, eq=False, repr=False)
class PatchBank(PatchMethod):
    """A coreset of `share` of all normal patches, MIN_PATCHES at least, and exact search among them by faiss.

    Patches are reduced to `dimensions` orthogonal mixtures of all channels and, with `whiten`, made to spread alike in
    all directions. A patch's distance is the mean of those to its `neighbors` nearest ones.
    """

    dimensions: int | None = 128
    whiten: bool = False
    share: float = 0.1
    neighbors: int = 1

    def _learn(self, normals: Sequence[Tensor]) -> None:
        self._fill(*self._candidates(normals))
        some = self._left_out(normals)
        self._add_normals(self._each_left_out(normals, some), nearest_other(self.wholes_, some))

    def _fill(self, candidates: Tensor, owners: Tensor) -> Tensor:
        """Choose the bank from patches (n, d) of the normals numbered `owners` (n,); gives the chosen positions."""
        self.center_ = candidates.mean(0)
        self.whitening_ = self._search_space(candidates - self.center_)
        candidates = self._whitened(candidates)
        count = max(round(self.share * len(candidates)), MIN_PATCHES, self.neighbors)
        if count <= MIN_PATCHES:  # a moment
            chosen = coreset(candidates, count, self.seed).sort().values
        else:
            with Progress("choosing the bank's patches", min(count, len(candidates)), "patches") as progress:
                chosen = coreset(candidates, count, self.seed, progress.advance).sort().values
        self.bank_, self.owners_ = candidates[chosen], owners[chosen]
        return chosen

    def _search_space(self, centerd: Tensor) -> Tensor:
        """What turns patches (n, d), as they are, into those that are compared, as a matrix from the right."""
        return whitening(centerd) if self.whiten else torch.eye(centerd.shape[1])

    def distances(self, vectors: Tensor) -> Tensor:
        flat = vectors.flatten(0, 2)
        return self._judge(flat, *self._nearest(flat)).view(vectors.shape[:3])

    def _judge(self, vectors: Tensor, distances: Tensor, rows: Tensor) -> Tensor:
        """How strange patches (n, d) are, given their nearest in the bank, both (n, neighbors): (n,)."""
        return distances.mean(1)

    def _nearest(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Distances and rows of the nearest in the bank, (n, neighbors) each, of patches (n, d)."""
        if "_index" not in vars(self):
            self._index = Index.build(self.bank_.numpy(), metric="l2", kind="flat")
        found = self._index.search(self._whitened(vectors).numpy(), min(self.neighbors, len(self.bank_)))
        return torch.from_numpy(found.distances), torch.from_numpy(found.ids)

    def _nearest_without(self, vectors: Tensor, own: int) -> tuple[Tensor, Tensor]:
        """The same among patches that are not of the normal `own`."""
        vectors, rows = self._whitened(vectors), torch.nonzero(self.owners_ != own)[:, 0]
        others = self.bank_[rows]
        found = squared_distances(vectors, others).topk(min(self.neighbors, len(others)), largest=False).indices
        return (others[found] - vectors[:, None]).norm(dim=2), rows[found]

    def _candidates(self, normals: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Patches (n, d), and the number of the normal that each is of (n,)."""
        generator = torch.Generator().manual_seed(self.seed)
        each = max(1, MAX_CANDIDATES // len(normals))
        parts = []
        for views in self._views_of_normals(normals):
            for patches in views.flatten(1, 3):  # (m rows columns, d)
                parts.append(patches[torch.randperm(len(patches), generator=generator)[:each]])
        return torch.cat(parts), torch.arange(len(parts)).repeat_interleave(len(parts[0]))

    def _left_out(self, normals: Sequence[Tensor]) -> list[int]:
        """Which normals are scored without themselves: none where there is only one."""
        some = torch.linspace(0, len(normals) - 1, min(len(normals), MAX_LEFT_OUT)).long().tolist()
        return some if len(normals) > 1 else []

    def _each_left_out(self, normals: Sequence[Tensor], some: Sequence[int]) -> Tensor:
        """Distances of patches (n, rows, columns) of some normals, each to the bank without its own patches."""
        maps = [self.places_.new_empty(0, *self.places_.shape[:2])]
        for start in range(0, len(some), LEARNING_BATCH):
            owners = some[start : start + LEARNING_BATCH]
            vectors = self.patches(torch.stack([normals[i] for i in owners]))
            for patches, own in zip(vectors.flatten(1, 2), owners, strict=True):
                judged = self._judge(patches, *self._nearest_without(patches, own))
                maps.append(judged.view(1, *vectors.shape[1:3]))
        return torch.cat(maps)

    def _whitened(self, vectors: Tensor) -> Tensor:
        return (vectors - self.center_) @ self.whitening_

    def _forget(self) -> None:
        super()._forget()
        vars(self).pop("_index", None)

    def _make_patches(self, encoder: Encoder) -> Patches:
        reduced = {"dimensions": self.dimensions, "reduction": "orthogonal", "seed": self.seed}
        return Patches(encoder, self.levels, grid=self.grid, neighborhood=self.neighborhood, **reduced)


def whitening(vectors: Tensor) -> Tensor:
    """What gives centerd vectors (n, d) the same spread in all directions, uncorrelated: (d, d), from the right."""
    covariance = (vectors.T @ vectors).double() / len(vectors)
    variance = covariance.diagonal().mean().clamp(min=1e-12)
    identity = torch.eye(len(covariance), dtype=torch.float64)
    factor = torch.linalg.cholesky(covariance + FLOOR * variance * identity)
    return torch.linalg.solve_triangular(factor, identity, upper=False).T.float()
