"""Sums against whole data: scikit-learn's Ledoit-Wolf, a loop over positions, and fits that really leave one out."""

import pytest
import torch
from sklearn.covariance import LedoitWolf

from downstream.methods.gaussians import FLOOR, Moments, fit_gaussians

POSITIONS, DIMENSIONS = 7, 5


def vectors(count: int, offset: float = 0.0, seed: int = 0) -> torch.Tensor:
    """(count, POSITIONS, DIMENSIONS), correlated, each position in its own way."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(POSITIONS, DIMENSIONS, DIMENSIONS, generator=generator)
    drawn = torch.randn(count, POSITIONS, DIMENSIONS, generator=generator)
    return torch.einsum("npd,pde->npe", drawn, mixing) + offset


def moments_of(drawn: torch.Tensor, batch: int = 4) -> Moments:
    moments = Moments.about(drawn[:batch])
    for part in drawn.split(batch):
        moments.add(part)
    return moments


@pytest.mark.parametrize("count", [2, 6, 40])
def test_shrinkage_is_that_of_scikit_learn(count):
    drawn = vectors(count, offset=30.0)
    mean, covariance, amount, multiple = moments_of(drawn).covariances(slice(None), None)
    for position in range(POSITIONS):
        theirs = LedoitWolf().fit(drawn[:, position].double().numpy())
        ours = (1 - amount) * covariance + amount * multiple * torch.eye(DIMENSIONS, dtype=torch.float64)
        assert float(amount[position]) == pytest.approx(theirs.shrinkage_, rel=1e-4, abs=1e-5)
        torch.testing.assert_close(ours[position], torch.from_numpy(theirs.covariance_), rtol=1e-4, atol=1e-4)
    shifted = moments_of(drawn).shift + mean
    torch.testing.assert_close(shifted, drawn.double().mean(0), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("sizes", [[5] * 8, [1, 30, 2, 7]])
def test_parts_merged_are_one(sizes):
    """Whatever their sizes and order, in float64 to 1e-9: sums, and what is made of them."""
    drawn = vectors(sum(sizes), offset=30.0).double()
    whole, parts = moments_of(drawn), [moments_of(part) for part in drawn.split(sizes)]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merged(part)
    backwards = parts[-1]
    for part in parts[-2::-1]:
        backwards = backwards.merged(part)
    for ours in (merged.about_shift(whole.shift), backwards.about_shift(whole.shift)):
        for name, expected in vars(whole).items():
            torch.testing.assert_close(
                getattr(ours, name), expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max())
            )
    ours, theirs = (sums.about_shift(whole.shift).covariances(slice(None), None) for sums in (merged, whole))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_distances_are_those_of_a_loop_over_positions():
    drawn, asked = vectors(30), vectors(4, seed=1)
    gaussians, _ = fit_gaussians(moments_of(drawn), 0.1, drawn[:, None])
    variance = drawn.double().var(0, correction=0).mean()
    for position in range(POSITIONS):
        known = drawn[:, position].double()
        covariance = 0.9 * known.T.cov(correction=0)
        covariance += ((0.1 + FLOOR) * known.var(0, correction=0).mean() + FLOOR * variance) * torch.eye(DIMENSIONS)
        apart = asked[:, position].double() - known.mean(0)
        expected = torch.einsum("ni,ij,nj->n", apart, covariance.inverse(), apart).sqrt()
        torch.testing.assert_close(gaussians.distances(asked)[:, position].double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [2, 3, 9])
def test_leaving_one_out_is_fitting_without_it(count):
    drawn = vectors(count)
    moments = moments_of(drawn)
    _, left_out = fit_gaussians(moments, 0.2, drawn[:, None])
    assert left_out.shape == (count, POSITIONS)
    for one in range(count):
        others = moments_of(torch.cat([drawn[:one], drawn[one + 1 :]]))
        # Amount and floor are those of all; everything else is fitted again.
        _, covariance, _, _ = others.covariances(slice(None), 0.2)
        _, _, amount, multiple = moments.covariances(slice(None), 0.2)
        diagonal = ((amount + FLOOR) * multiple + FLOOR * moments.variance()) * torch.eye(
            DIMENSIONS, dtype=torch.float64
        )
        apart = (drawn[one] - fit_gaussians(others, 0.2, drawn[:0, None])[0].mean).double()
        inverse = ((1 - amount) * covariance + diagonal).inverse()
        expected = torch.einsum("pi,pij,pj->p", apart, inverse, apart).sqrt()
        torch.testing.assert_close(left_out[one].double(), expected, rtol=1e-4, atol=1e-5)


def test_a_normal_is_left_out_with_all_its_views():
    """Three views of each of six normals: as a fit on the other five, in whole."""
    drawn = vectors(18).view(6, 3, POSITIONS, DIMENSIONS)
    moments = moments_of(drawn.flatten(0, 1))
    _, left_out = fit_gaussians(moments, 0.2, drawn)
    floor = FLOOR * moments.variance()
    for one in range(6):
        others = drawn[[i for i in range(6) if i != one]].flatten(0, 1).double()
        for position in range(POSITIONS):
            mean, covariance = others[:, position].mean(0), others[:, position].T.cov(correction=0)
            multiple = moments.covariances(slice(position, position + 1), 0.2)[3]
            inverse = (0.8 * covariance + ((0.2 + FLOOR) * multiple[0] + floor) * torch.eye(DIMENSIONS)).inverse()
            apart = drawn[one, 0, position].double() - mean
            expected = (apart @ inverse @ apart).sqrt()
            torch.testing.assert_close(left_out[one, position].double(), expected, rtol=1e-4, atol=1e-5)


def test_batches_and_their_order_hardly_matter():
    drawn, asked = vectors(24, offset=100.0), vectors(3, offset=100.0, seed=2)
    once, _ = fit_gaussians(moments_of(drawn, 24), None, drawn[:, None])
    again, _ = fit_gaussians(moments_of(drawn.flip(0), 5), None, drawn[:, None])
    torch.testing.assert_close(once.distances(asked), again.distances(asked), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("drawn", [vectors(1), vectors(1).expand(6, -1, -1), torch.ones(3, POSITIONS, DIMENSIONS)])
def test_one_normal_and_equal_normals_give_finite_distances_that_grow(drawn):
    gaussians, left_out = fit_gaussians(moments_of(drawn), None, drawn[:, None])
    near, far = (gaussians.distances(drawn[:1] + apart) for apart in (0.1, 1.0))
    assert left_out.isfinite().all()
    assert near.isfinite().all()
    assert (far > near).all()
    assert len(left_out) == (0 if len(drawn) == 1 else len(drawn))


@pytest.mark.parametrize("count", [2, 3])
def test_few_normals_of_many_dimensions_can_be_factored_whatever_their_scale(count):
    """Of rank count - 1 in 200 dimensions, some a thousand times as wide as others: rounding alone decides."""
    generator = torch.Generator().manual_seed(0)
    wide = 10 ** torch.linspace(-3, 3, 40)[:, None]
    for seed in range(5):
        generator.manual_seed(seed)
        drawn = wide * torch.randn(count, 40, 200, generator=generator) + 5 * wide
        gaussians, left_out = fit_gaussians(moments_of(drawn), None, drawn[:, None])
        assert left_out.isfinite().all()
        assert gaussians.distances(drawn + wide).isfinite().all()
