"""Augmentation: within its limits, and a function of seed, step and position alone."""

import math

import pytest
import torch

from baselines.autoencoders.augmentation import AUGMENTATIONS, affine, check_augmentation, flips, standard_normal
from pretrain.command import UserError


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_function_of_seed_step_and_position(name):
    images = torch.rand(6, 3, 32, 32)
    augment = AUGMENTATIONS[name]
    first = augment(images, 1, 2)
    torch.manual_seed(9)
    assert torch.equal(first, augment(images, 1, 2))
    assert first.shape == images.shape and first.dtype == torch.float32 and 0 <= first.min() <= first.max() <= 1
    torch.testing.assert_close(augment(images[:3], 1, 2), first[:3], atol=1e-6, rtol=0)
    if name != "none":
        assert not torch.equal(first, augment(images, 1, 3)) and not torch.equal(first, augment(images, 2, 2))


def test_affine_stays_within_its_limits():
    """A bright dot in the middle goes 5 % of the side far along each axis, then turned, and no farther."""
    dots = torch.zeros(200, 1, 101, 101)
    dots[..., 49:52, 49:52] = 1
    shown = affine(dots, 0, 0)
    weight = shown / shown.sum((2, 3), keepdim=True)
    position = torch.arange(101.0)
    down, across = (weight * position[:, None]).sum((1, 2, 3)) - 50, (weight * position).sum((1, 2, 3)) - 50
    farthest = 5.05 * (math.cos(math.radians(10)) + math.sin(math.radians(10)))
    assert 4 < down.abs().max() < farthest and 4 < across.abs().max() < farthest
    flat = affine(torch.full((200, 1, 8, 8), 0.5), 0, 0).mean((1, 2, 3)) / 0.5
    assert 0.95 <= flat.min() < 0.96 and 1.04 < flat.max() <= 1.0501


def test_affine_rotates_by_ten_degrees_at_most():
    lines = torch.zeros(200, 1, 101, 101)
    lines[..., 50, :] = 1
    shown = affine(lines, 0, 0)[:, 0]
    left, right = (shown[:, :, column].argmax(1) for column in (20, 80))
    degrees = torch.atan2((right - left).float(), torch.tensor(60.0)).rad2deg()
    assert 8 < degrees.max() < 11 and -11 < degrees.min() < -8


def test_flips_show_all_eight_ways():
    image = torch.zeros(1, 8, 8)
    image[0, 0, 1] = 1
    shown = flips(image.expand(200, 1, 8, 8), 0, 0)
    corners = {int(whole_image.argmax()) for whole_image in shown}
    assert corners == {1, 6, 8, 15, 48, 55, 57, 62}


def test_numbers_are_standard_normal_and_a_row_is_its_position_s_own():
    numbers = standard_normal(range(50), 400, 3, "x")
    assert abs(float(numbers.mean())) < 0.03 and abs(float(numbers.std()) - 1) < 0.03 and numbers.isfinite().all()
    assert torch.equal(standard_normal([7], 400, 3, "x")[0], numbers[7])


def test_an_unknown_name():
    with pytest.raises(UserError, match="did you mean affine"):
        check_augmentation("afine")
