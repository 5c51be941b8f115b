"""Divisive normalization: lengths saturate, levels weigh alike, and what the scale of a channel was does not matter."""

import torch
from torch import Tensor

from pretrain.normalization import channel_statistics, normalized

CHANNELS = (8, 32)


def patches(seed: int = 0) -> Tensor:
    return torch.randn(4, 5, 5, 40, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def lengths(vectors: Tensor) -> list[Tensor]:
    return [part.norm(dim=-1) for part in vectors.split(list(CHANNELS), dim=-1)]


def test_a_usual_patch_has_length_one_half_on_every_level():
    vectors = patches()
    for length in lengths(normalized(vectors, *channel_statistics([vectors]), CHANNELS)):
        assert abs(float(length.mean()) - 0.5) < 0.02


def test_lengths_grow_with_strength_and_never_reach_one():
    vectors = patches()
    mean, spread = channel_statistics([vectors])
    usual, strong, glaring = (
        lengths(normalized(mean + factor * (vectors - mean), mean, spread, CHANNELS)) for factor in (1, 10, 1000)
    )
    for level in range(2):
        assert (usual[level] < strong[level]).all() and (strong[level] < glaring[level]).all()
        assert (glaring[level] < 1).all()


def test_directions_stay():
    vectors = patches()
    mean, spread = channel_statistics([vectors])
    before = ((vectors - mean) / spread).split(list(CHANNELS), dim=-1)
    after = normalized(vectors, mean, spread, CHANNELS).split(list(CHANNELS), dim=-1)
    for first, second in zip(before, after, strict=True):
        torch.testing.assert_close(torch.cosine_similarity(first, second, dim=-1), torch.ones(4, 5, 5))


def test_the_unit_and_the_zero_of_a_channel_do_not_matter():
    vectors = patches()
    scale, shift = torch.rand(40) + 0.5, torch.randn(40)
    others = vectors * scale + shift
    first, second = (normalized(v, *channel_statistics([v]), CHANNELS) for v in (vectors, others))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


def test_statistics_are_of_all_batches_and_a_constant_channel_is_not_enlarged():
    vectors = patches()
    vectors[..., 3] = 7
    mean, spread = channel_statistics(vectors.split(1))
    torch.testing.assert_close(mean, vectors.flatten(0, 2).mean(0))
    assert float(spread[3]) > 0.05 * float(spread.mean())
    constant = torch.ones(1, 2, 2, 40)
    assert normalized(constant, *channel_statistics([constant]), CHANNELS).isfinite().all()
