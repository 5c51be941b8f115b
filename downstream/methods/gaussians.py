"""A Gaussian for every position of a grid, from sums alone: images are taken in as they come and need not be kept.

Sums are about a shift, the mean of the first batch, so that float32 loses nothing by cancellation. Besides sum z and
sum z z^T, the shrinkage of Ledoit and Wolf (2004) needs sum |z|^2 z and sum |z|^4.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

# Matrices that are factored at once, in float64: 10 MB for 100 dimensions.
POSITIONS_AT_ONCE = 128
# Of a position's own variance, against rounding, and of the mean of all: a position where all normals are equal stays
# usable.
FLOOR = 1e-5
# Below, reading the matrices takes longest, and one product of vectors with them is twice as fast as any other way.
SMALL_BATCH = 4


@dataclass
class Moments:
    """Sums over `count` images, float32, at each of p positions, of d dimensions. Those of parts that are to be merged
    are float64."""

    count: Tensor  # (): a tensor, to be saved; always in main memory
    shift: Tensor  # (p, d)
    first: Tensor  # (p, d): sum z, where z = x - shift
    second: Tensor  # (p, d, d): sum z z^T
    third: Tensor  # (p, d): sum |z|^2 z
    fourth: Tensor  # (p,): sum |z|^4

    @classmethod
    def about(cls, vectors: Tensor) -> Self:
        """Empty sums about the mean of some vectors (b, p, d)."""
        _, positions, dimensions = vectors.shape
        first, third = vectors.new_zeros(2, positions, dimensions)
        second, fourth = vectors.new_zeros(positions, dimensions, dimensions), vectors.new_zeros(positions)
        return cls(torch.tensor(0), vectors.mean(0), first, second, third, fourth)

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        moved = {name: part.to(device) for name, part in vars(self).items() if name != "count"}
        return type(self)(self.count, **moved)

    def part(self, positions: slice) -> Self:
        """The sums at some positions: the same memory, but for the count."""
        return type(self)(self.count, *(part[positions] for name, part in vars(self).items() if name != "count"))

    def without(self, vectors: Tensor) -> Self:
        """Sums without the vectors (b, p, d) of b images that were taken in."""
        others = type(self)(**{name: part.clone() for name, part in vars(self).items()})
        others.add(vectors, times=-1)
        return others

    def add(self, vectors: Tensor, times: int = 1) -> None:
        """Take in the vectors (b, p, d) of b more images."""
        shifted = (vectors - self.shift).transpose(0, 1)  # (p, b, d)
        squares = shifted.square().sum(2, keepdim=True)  # (p, b, 1)
        self.count = self.count + times * len(vectors)
        self.first += times * shifted.sum(1)
        self.second.baddbmm_(shifted.mT, shifted, alpha=times)
        self.third += times * (squares * shifted).sum(1)
        self.fourth += times * squares.square().sum((1, 2))

    def merged(self, other: Self) -> Self:
        """The sums over the images of both, about this one's shift."""
        other = other.about_shift(self.shift)
        return type(self)(
            **{name: part if name == "shift" else part + getattr(other, name) for name, part in vars(self).items()}
        )

    def about_shift(self, shift: Tensor) -> Self:
        """The same images' sums about another shift (p, d): those of z + by, expanded."""
        by, count = self.shift - shift, int(self.count)  # (p, d)
        along, length = (self.first * by).sum(1, keepdim=True), by.square().sum(1, keepdim=True)  # (p, 1)
        second_by = torch.einsum("pij,pj->pi", self.second, by)
        trace = self.second.diagonal(dim1=1, dim2=2).sum(1, keepdim=True)  # sum |z|^2
        crossed = self.first[:, :, None] * by[:, None, :]
        return type(self)(
            self.count,
            shift,
            self.first + count * by,
            self.second + crossed + crossed.mT + count * by[:, :, None] * by[:, None, :],
            self.third + 2 * second_by + length * self.first + (trace + 2 * along + count * length) * by,
            self.fourth
            + (
                4 * (second_by * by).sum(1, keepdim=True)
                + 4 * (self.third * by).sum(1, keepdim=True)
                + 2 * length * trace
                + 4 * length * along
                + count * length.square()
            )[:, 0],
        )

    def in_precision(self, dtype: torch.dtype) -> Self:
        """The same numbers in float32, or float64."""
        return type(self)(**{name: part if name == "count" else part.to(dtype) for name, part in vars(self).items()})

    def variances(self) -> Tensor:
        """Of each position, mean over the dimensions: (p,), float64."""
        mean = (self.first / self.count).double()
        squares = self.second.diagonal(dim1=1, dim2=2).double().mean(1) / self.count
        return (squares - mean.square().mean(1)).clamp(min=0)

    def variance(self) -> Tensor:
        """Mean over dimensions and positions, (); where images do not differ, between positions instead; never 0."""
        within = self.variances().mean()
        between = (self.shift + self.first / self.count).double().var(0, correction=0).mean()
        # What is left of equal numbers by rounding is no variance.
        return next((value for value in (within, between) if value > 1e-9 * self.shift.square().mean()), between + 1)

    def covariances(self, positions: slice, shrinkage: float | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """float64, at a slice of the positions: the mean about the shift (p, d), the biased covariance (p, d, d), how
        much it is to be shrunk towards a multiple of the identity (p, 1, 1), and that multiple (p, 1, 1). `shrinkage`
        from 0 to 1, or none for the best amount after Ledoit and Wolf, as scikit-learn computes it."""
        count, dimensions = int(self.count), self.shift.shape[1]
        mean, second = self.first[positions].double() / count, self.second[positions].double()
        covariance = second / count - mean[:, :, None] * mean[:, None, :]
        multiple = covariance.diagonal(dim1=1, dim2=2).mean(1)  # (p,)
        amount = torch.full_like(multiple, shrinkage or 0)
        if shrinkage is None:
            length = mean.square().sum(1)
            fourth = (  # sum |x - mean|^4, by expansion about the shift
                self.fourth[positions].double()
                - 4 * (self.third[positions].double() * mean).sum(1)
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
    """`whitening` lower triangular (p, d, d): |whitening (x - mean)| is the Mahalanobis distance of x at a position."""

    mean: Tensor
    whitening: Tensor

    def to(self, device: torch.device) -> Self:
        return type(self)(self.mean.to(device), self.whitening.to(device))

    def distances(self, vectors: Tensor) -> Tensor:
        """Mahalanobis distances of vectors (b, p, d): (b, p)."""
        centered = (vectors - self.mean).transpose(0, 1)  # (p, b, d)
        if len(vectors) < SMALL_BATCH:
            return torch.bmm(centered, self.whitening.mT).square().sum(2).sqrt().T
        return torch.bmm(self.whitening, centered.mT).square().sum(1).sqrt().T


def fit_gaussians(
    moments: Moments, shrinkage: float | None, members: Tensor, floor: Tensor | None = None
) -> tuple[Gaussians, Tensor]:
    """The Gaussians of all vectors taken in, and how far each member is from the Gaussians of all others.

    `members` (n, m, p, d) are of the normals that were taken in, m views of each (one, or several flipped and rotated
    ones). A member is left out with all its views, the distance is that of its first: (n, p), or (0, p) where nothing
    is left. Leaving m vectors out is a change of rank m, so nothing is fitted again (Woodbury 1950); only the amount of
    shrinkage and the floor stay those of all. Of some positions among many, `floor` is that of the many.
    """
    count, (positions, dimensions) = int(moments.count), moments.shift.shape
    remaining = count - members.shape[1]
    gaussians = Gaussians(torch.empty_like(moments.shift), torch.empty_like(moments.second))
    left_out = members.new_empty(len(members) if remaining > 0 else 0, positions)
    floor = FLOOR * moments.variance() if floor is None else floor
    identity = torch.eye(dimensions, dtype=torch.float64, device=members.device)
    for start in range(0, positions, POSITIONS_AT_ONCE):
        chunk = slice(start, start + POSITIONS_AT_ONCE)
        mean, covariance, amount, multiple = moments.covariances(chunk, shrinkage)
        target = ((amount + FLOOR) * multiple + floor) * identity
        gaussians.mean[chunk] = (moments.shift[chunk] + mean).float()
        gaussians.whitening[chunk] = _whitening((1 - amount) * covariance + target).float()
        if remaining > 0:
            factor = torch.linalg.cholesky((1 - amount) * covariance * count / remaining + target)
            deviations = (members[:, :, chunk] - moments.shift[chunk] - mean).permute(2, 3, 0, 1)  # (p, d, n, m)
            whitened = torch.linalg.solve_triangular(factor, deviations.flatten(2), upper=False)
            views = whitened.unflatten(2, members.shape[:2]).permute(0, 2, 3, 1)  # (p, n, m, d)
            left_out[:, chunk] = _without_themselves(views, (1 - amount) / remaining, remaining).T.float()
    return gaussians, left_out


def _without_themselves(whitened: Tensor, factor: Tensor, remaining: int) -> Tensor:
    """Distances (p, n) of the first of m views (p, n, m, d), when all m are left out of the mean and the covariance.

    The views U, as deviations from the mean of all, were whitened with all vectors' sum of squares over those that
    remain; without them it is less by U M U^T, M = I + 1/remaining, times `factor` (p, 1, 1), and the mean lies at
    -sum(U)/remaining. All of it is in the span of U, so that m x m matrices will do.
    """
    views = whitened.shape[2]
    products = whitened @ whitened.mT  # (p, n, m, m)
    first = torch.full((views,), 1 / remaining, dtype=whitened.dtype, device=whitened.device)
    first[0] += 1
    along = products @ first  # (p, n, m)
    middle = torch.eye(views, dtype=whitened.dtype, device=whitened.device) - 1 / (remaining + views)  # inverse of M
    correction = torch.linalg.solve(middle - factor[..., None] * products, along)
    return (along @ first + factor[..., 0] * (along * correction).sum(-1)).clamp(min=0).sqrt()


def _whitening(covariance: Tensor) -> Tensor:
    """Inverse of the Cholesky factor: lower triangular (p, d, d), float64."""
    factor = torch.linalg.cholesky(covariance)
    identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device).expand_as(factor)
    return torch.linalg.solve_triangular(factor, identity, upper=False)
