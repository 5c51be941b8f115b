"""A Gaussian for every place of a grid, from sums alone: pictures are taken in as they come and need not be kept.

Sums are about a shift, the mean of the first batch, so that float32 loses nothing by cancellation. Besides sum z and
sum z z^T, the shrinkage of Ledoit and Wolf (2004) needs sum |z|^2 z and sum |z|^4.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

# Places whose matrices are factored at once, in float64: 40 MB for 100 dimensions.
PLACES_AT_ONCE = 512
# Of the mean variance of all places, added everywhere: a place where all normals are equal stays usable.
FLOOR = 1e-3


@dataclass
class Moments:
    """Sums over `count` pictures, float32, at each of p places, of d dimensions. `count` is a tensor, to be saved."""

    count: Tensor  # ()
    shift: Tensor  # (p, d)
    first: Tensor  # (p, d): sum z, where z = x - shift
    second: Tensor  # (p, d, d): sum z z^T
    third: Tensor  # (p, d): sum |z|^2 z
    fourth: Tensor  # (p,): sum |z|^4

    @classmethod
    def about(cls, vectors: Tensor) -> Self:
        """Empty sums about the mean of some vectors (b, p, d)."""
        _, places, dimensions = vectors.shape
        first, third = vectors.new_zeros(2, places, dimensions)
        second, fourth = vectors.new_zeros(places, dimensions, dimensions), vectors.new_zeros(places)
        return cls(torch.tensor(0), vectors.mean(0), first, second, third, fourth)

    def add(self, vectors: Tensor) -> None:
        """Take in the vectors (b, p, d) of b more pictures."""
        shifted = (vectors - self.shift).transpose(0, 1)  # (p, b, d)
        squares = shifted.square().sum(2, keepdim=True)  # (p, b, 1)
        self.count = self.count + len(vectors)
        self.first += shifted.sum(1)
        self.second.baddbmm_(shifted.mT, shifted)
        self.third += (squares * shifted).sum(1)
        self.fourth += squares.square().sum((1, 2))

    def variance(self) -> Tensor:
        """Mean over dimensions and places, (); where pictures do not differ, of the places instead; never 0."""
        mean = (self.first / self.count).double()
        within = self.second.diagonal(dim1=1, dim2=2).double().mean() / self.count - mean.square().mean()
        between = (self.shift + mean).var(0, correction=0).mean()
        # What is left of equal numbers by rounding is no variance.
        return next((value for value in (within, between) if value > 1e-9 * self.shift.square().mean()), between + 1)

    def covariances(self, places: slice, shrinkage: float | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """float64, of some places: the mean about the shift (p, d), the biased covariance (p, d, d), how much it is to
        be shrunk towards a multiple of the identity (p, 1, 1), and that multiple (p, 1, 1). `shrinkage` from 0 to 1, or
        none for the best amount after Ledoit and Wolf, as scikit-learn computes it."""
        count, dimensions = int(self.count), self.shift.shape[1]
        mean, second = self.first[places].double() / count, self.second[places].double()
        covariance = second / count - mean[:, :, None] * mean[:, None, :]
        multiple = covariance.diagonal(dim1=1, dim2=2).mean(1)  # (p,)
        amount = torch.full_like(multiple, shrinkage or 0)
        if shrinkage is None:
            length = mean.square().sum(1)
            fourth = (  # sum |x - mean|^4, by expansion about the shift
                self.fourth[places].double()
                - 4 * (self.third[places].double() * mean).sum(1)
                + 4 * torch.einsum("pi,pij,pj->p", mean, second, mean)
                + 2 * length * second.diagonal(dim1=1, dim2=2).sum(1)
                - 3 * count * length.square()
            )
            norm = covariance.square().sum((1, 2))
            noise = (fourth / count - norm).clamp(min=0) / (dimensions * count)
            spread = norm / dimensions - multiple.square()
            amount = torch.where(spread > noise, noise / spread, torch.ones_like(spread))
        return mean, covariance, amount[:, None, None], multiple[:, None, None]


class Gaussians(NamedTuple):
    """`whitening` lower triangular (p, d, d): |whitening (x - mean)| is the Mahalanobis distance of x at a place."""

    mean: Tensor
    whitening: Tensor

    def distances(self, vectors: Tensor) -> Tensor:
        """Mahalanobis distances of vectors (b, p, d): (b, p)."""
        centred = (vectors - self.mean).permute(1, 2, 0)  # (p, d, b)
        return torch.bmm(self.whitening, centred).square().sum(1).sqrt().T


def fitted(moments: Moments, shrinkage: float | None, members: Tensor) -> tuple[Gaussians, Tensor]:
    """The Gaussians of all pictures taken in, and for `members` (n, p, d), some of them, each one's distances (n, p) to
    the Gaussians of all others: (0, p) where there are no others. Leaving one out is a change of rank one, so nothing
    is fitted again (Sherman and Morrison 1950); only the amount of shrinkage and the floor stay those of all."""
    count, (places, dimensions) = int(moments.count), moments.shift.shape
    gaussians = Gaussians(torch.empty_like(moments.shift), torch.empty_like(moments.second))
    left_out = members.new_empty(len(members) if count > 1 else 0, places)
    floor = FLOOR * moments.variance()
    identity = torch.eye(dimensions, dtype=torch.float64, device=members.device)
    for start in range(0, places, PLACES_AT_ONCE):
        some = slice(start, start + PLACES_AT_ONCE)
        mean, covariance, amount, multiple = moments.covariances(some, shrinkage)
        target = (amount * multiple + floor) * identity
        gaussians.mean[some] = (moments.shift[some] + mean).float()
        gaussians.whitening[some] = _whitening((1 - amount) * covariance + target).float()
        if count > 1:
            # The others' mean lies at -u / (n - 1) for u, this one's deviation; their sum of squares is smaller by
            # n / (n - 1) u u^T, their number by 1.
            others = _whitening((1 - amount) * covariance * count / (count - 1) + target)
            deviations = (members[:, some].double() - moments.shift[some] - mean).permute(1, 2, 0)  # (p, d, n)
            squares = torch.bmm(others, deviations).square().sum(1)  # (p, n)
            squares /= 1 - (1 - amount[:, 0]) * count / (count - 1) ** 2 * squares
            left_out[:, some] = (squares.sqrt() * count / (count - 1)).T.float()
    return gaussians, left_out


def _whitening(covariance: Tensor) -> Tensor:
    """Inverse of the Cholesky factor: lower triangular (p, d, d), float64."""
    factor = torch.linalg.cholesky(covariance)
    identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device).expand_as(factor)
    return torch.linalg.solve_triangular(factor, identity, upper=False)
