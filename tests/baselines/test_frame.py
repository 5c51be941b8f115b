"""A frame tells how an image was lit, and nothing of what is in its middle."""

import pytest
import torch

from baselines.frame import FrameColor
from pretrain.command import UserError


def lit(seed: int, brightness: float) -> torch.Tensor:
    noise = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(seed))
    return (brightness + 0.1 * noise).clamp(0, 1)


def scores(method: FrameColor, images: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([prediction.scores for prediction in method.predict(images)])


@pytest.fixture
def method() -> FrameColor:
    return FrameColor().fit([]).refer([lit(seed, 0.4) for seed in range(12)])


def test_other_light_scores_higher(method):
    same, other = (scores(method, [lit(seed, b) for seed in range(20, 30)]) for b in (0.4, 0.5))
    assert other.min() > 3 * same.max()


def test_the_middle_is_not_seen(method):
    images = [lit(seed, 0.4) for seed in range(20, 24)]
    spoilt = [image.clone() for image in images]
    for image in spoilt:
        image[:, 4:-4, 4:-4] = 0
    assert torch.equal(scores(method, images), scores(method, spoilt))


def test_every_side_is_seen(method):
    before = scores(method, [lit(20, 0.4)])
    for side in ((slice(0, 4), slice(None)), (slice(-4, None), slice(None)), (slice(None), slice(0, 4))):
        image = lit(20, 0.4)
        image[:, side[0], side[1]] = 1
        assert scores(method, [image]) > 2 * before


def test_a_copy_of_a_normal_is_at_no_distance_and_its_own_score_is_not(method):
    assert scores(method, [lit(0, 0.4)]) == 0
    assert (method.normal_scores_ > 0).all()


def test_no_normals_is_a_mistake():
    with pytest.raises(UserError, match="give at least one"):
        FrameColor().fit([]).refer([])
