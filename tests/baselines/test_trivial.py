"""Trivial baselines: the mean image by hand, and a frame that sees light and nothing of an image's middle."""

import pytest
import torch

from baselines.contract.method import NotFitted
from baselines.trivial import FrameColor, MeanImage
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
    darkened = [image.clone() for image in images]
    for image in darkened:
        image[:, 4:-4, 4:-4] = 0
    assert torch.equal(scores(method, images), scores(method, darkened))


def test_every_side_is_seen(method):
    before = scores(method, [lit(20, 0.4)])
    for side in ((slice(0, 4), slice(None)), (slice(-4, None), slice(None)), (slice(None), slice(0, 4))):
        image = lit(20, 0.4)
        image[:, side[0], side[1]] = 1
        assert scores(method, [image]) > 2 * before


def test_a_copy_of_a_normal_is_at_no_distance_and_its_own_score_is_not(method):
    assert scores(method, [lit(0, 0.4)]) == 0
    assert (method.normal_scores_ > 0).all()


def test_no_normals_is_refused():
    with pytest.raises(UserError, match="give at least one"):
        FrameColor().fit([]).refer([])


def test_mean_image_scores_by_hand():
    normals = [torch.full((3, 8, 8), level) for level in (0.2, 0.4, 0.6)]
    method = MeanImage(size_px=4).fit([]).refer(normals)
    (prediction,) = method.predict([torch.full((3, 8, 8), 0.9)])
    torch.testing.assert_close(prediction.scores, torch.tensor([0.25]))
    torch.testing.assert_close(prediction.maps, torch.full((1, 8, 8), 0.25))
    # Left out one by one, the others' means are 0.5, 0.4 and 0.3.
    torch.testing.assert_close(method.normal_scores_, torch.tensor([0.09, 0.0, 0.09]))


def test_mean_image_without_normals_says_so():
    with pytest.raises(UserError, match="at least one"):
        MeanImage().fit([]).refer([])


@pytest.mark.parametrize("make", [MeanImage, FrameColor])
def test_fit_forgets_earlier_normals_and_their_scores(make):
    method = make().refer([lit(seed, 0.4) for seed in range(3)]).fit([])
    assert vars(method).keys() == vars(make()).keys()
    with pytest.raises(NotFitted):
        list(method.predict([lit(0, 0.4)]))
