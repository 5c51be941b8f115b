"""How little an image resembles the others of a folder, where nobody knows which of them are good.

Mutual scores as in MuSc (Li et al. 2024, https://arxiv.org/abs/2401.16753): a normal patch has a near one in most other
images, the patch of a defect only in the few with the same defect. So a patch is compared with each other image apart,
and its score is the mean over the share of them that come nearest. With the nearest of all patches, as PatchCore has
it, two defects of a kind would vouch for each other.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.contract.method import LEARNING_BATCH, Prediction, at_once
from downstream.methods.patchcore import PatchCore
from downstream.methods.references import draw, suspicious
from embeddings.patches import Band
from pretrain.command import UserError

MIN_TO_COMPARE = 3
# From half on nothing says which half is the product.
MAX_CONTAMINATION = 0.5
# In robust standard deviations of the logarithm, as `suspicious` has them: of a normal distribution one image in 740 is
# above. Less than is suspicious by itself, as somebody has said that there are defects.
CLEAR_DEVIATIONS = 3.0
# Products of patches that are made at once: 64 MiB. Of two images of 384 px it is a fiftieth of that.
PRODUCTS_AT_ONCE = 2**24


@dataclass(kw_only=True, eq=False, repr=False)
class Mutual(PatchCore):
    """Compares patches with those of each of `against` images, drawn once for all: so time grows with the number of
    images, not with its square, and memory with `against` alone. A score is the mean distance to the nearest patch of
    `lowest_share` of them. The `grid` is coarse, as all pairs of patches are compared.
    """

    grid: int | None = 24
    against: int = 60
    lowest_share: float = 0.3

    def _learn(self, normals: Sequence[Tensor]) -> None:
        self.compared_ = draw(len(normals), min(self.against, len(normals)), self.seed)
        normals = self._views_of_normals([normals[i] for i in self.compared_])
        bands = [[self._projected(self.region.inside(band)[:, 0]) for band in of_batch] for of_batch in normals]
        self.patches_ = torch.cat([torch.cat(of_batch, dim=1) for of_batch in bands])  # (m, p, k)
        self.normal_scores_ = self.patches_.new_empty(0)  # `each_left_out` gives them, as they take long

    def _distances(self, bands: Iterable[Band]) -> Tensor:
        of_bands = (self._projected(self.region.inside(band)) for band in bands)
        return torch.cat([torch.stack([self._mutual(patches) for patches in images]) for images in of_bands], dim=1)

    def each_left_out(self, normals: Sequence[Tensor]) -> Iterator[Prediction]:
        """Scores (b,) and maps (b, h, w) of the images that were referred to, each compared with the others alone."""
        number_of = {position: number for number, position in enumerate(self.compared_)}
        count = at_once(LEARNING_BATCH, self.size_px_, self.most_pixels)
        for start in range(0, len(normals), count):
            positions = range(start, min(start + count, len(normals)))
            images = torch.stack([normals[i] for i in positions])
            vectors = self.patches(images)
            inside = self._projected(self.region.within(vectors))  # (b, p, k)
            distances = [self._mutual(patches, number_of.get(i)) for i, patches in zip(positions, inside, strict=True)]
            maps = self._maps(self.region.spread(torch.stack(distances), vectors.shape[1:3]), images.shape[-2:])
            yield Prediction(self._highest(maps), maps)

    def _mutual(self, patches: Tensor, own: int | None = None) -> Tensor:
        """The score of each projected patch (p, k) among all images, or all but the one numbered `own`: (p,)."""
        others = [number for number in range(len(self.patches_)) if number != own]
        nearest = torch.stack([nearest_patch(patches, self.patches_[number]) for number in others])  # (m, p)
        count = max(1, round(self.lowest_share * len(others)))
        return nearest.topk(count, dim=0, largest=False).values.mean(0)


def nearest_patch(patches: Tensor, others: Tensor) -> Tensor:
    """Distances of patches (p, k) to the nearest of `others` (q, k): (p,). A product of matrices is ten times as fast
    as differences; what digits it loses is little beside a mean over images."""
    lengths, parts = others.square().sum(1), patches.split(max(1, PRODUCTS_AT_ONCE // len(others)))
    lowest = [torch.addmm(lengths, part, others.T, alpha=-2).amin(1) for part in parts]  # of (p, q)
    return (torch.cat(lowest) + patches.square().sum(1)).clamp(min=0).sqrt()


def clear_outliers(scores: Sequence[float], share: float) -> list[int]:
    """Positions of what is left out of `share`: the worst CLEAR_DEVIATIONS above the median, at most that share of all,
    none where none is so clear. Worst first."""
    return suspicious(scores, CLEAR_DEVIATIONS)[: int(share * len(scores) + 1e-9)]


def check_contamination(share: float) -> None:
    """Raise UserError for a share that cannot be left out."""
    if not 0 <= share < MAX_CONTAMINATION:
        raise UserError(
            f"--allow-contamination {share:g} cannot be: give 0 or more and less than {MAX_CONTAMINATION:g}, such as "
            "0.05; where half of the images are defective, nothing says which half."
        )
