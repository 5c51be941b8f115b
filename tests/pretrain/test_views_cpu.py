"""The fast augmentations are those of kornia, but for rounding and hue."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from view_images import NOTHING, SIMCLR, as_images, make_images

from pretrain.views import BACKENDS, _boxes, _crop_by_matrices, draw, render
from pretrain.views_cpu import crop_by_loop


def test_the_crop_without_a_loop_equals_torchs():
    pixels = make_images(16, 96, 120)
    draws = draw(replace(SIMCLR, flip_vertical_probability=0.5), 0, 0, range(16), view=0)
    for size_px in (24, 64, 160):  # smaller, about equal, larger than the crops
        boxes = _boxes(draws.crop, *pixels.shape[1:3])
        difference = crop_by_loop(pixels, boxes, size_px) - _crop_by_matrices(pixels, boxes, size_px)
        assert difference.abs().max() < 1.51 / 255  # torch rounds to whole levels after each direction


# kornia clips after every step, the fast way before contrast and at the end: the luma of a clipped color differs.
# Without clipping in between only rounding and the blur's reach differ, four sigma here and five in kornia.
@pytest.mark.parametrize(
    ("name", "mean_tolerance"), [("brightness", 1e-5), ("contrast", 1e-3), ("saturation", 1e-3), ("blur", 1e-5)]
)
def test_each_step_is_the_same_in_both_backends(name, mean_tolerance):
    alone = {"brightness": 0, "contrast": 0, "saturation": 0, "hue_turns": 0, "gray_probability": 0.2}
    if name == "blur":
        strengths = replace(SIMCLR, **alone, blur_probability=1)
    else:
        strengths = replace(SIMCLR, **alone | {name: 0.8}, blur_probability=0)
    draws = draw(strengths, 0, 0, range(32), view=0)
    difference = (render(make_images(32), draws, 48, "fast") - render(make_images(32), draws, 48, "kornia")).abs()
    assert difference.mean() < mean_tolerance and difference.quantile(0.99) < 20 * mean_tolerance


def test_hue_turns_like_hsv_by_thirds_and_roughly_between():
    pixels = make_images(8)
    draws = draw(NOTHING, 0, 0, range(8), view=0)
    third = draws._replace(hue_turns=torch.full((8,), 1 / 3))
    for backend in BACKENDS:  # a third of a turn permutes the channels
        turned = render(pixels, third, 96, backend)
        assert torch.allclose(turned, as_images(pixels).roll(1, dims=1), atol=1e-5)
    tenth = draws._replace(hue_turns=torch.full((8,), 0.1))
    # HSV keeps the largest channel, the rotation the mean; they agree on the direction of the color.
    directions = [
        (image - image.mean(dim=1, keepdim=True)).flatten(2)
        for image in (render(pixels, draws, 96), render(pixels, tenth, 96, "fast"), render(pixels, tenth, 96, "kornia"))
    ]
    unturned, fast, kornia = directions
    assert F.cosine_similarity(fast, kornia, dim=1).mean() > 0.98
    assert F.cosine_similarity(unturned, kornia, dim=1).mean() < 0.85  # cos(36 degrees) is 0.81


def test_both_backends_are_alike_in_their_statistics():
    def statistics(images: torch.Tensor) -> torch.Tensor:
        gradient = images.diff(dim=3).square().mean() + images.diff(dim=2).square().mean()
        return torch.cat((images.mean((0, 2, 3)), images.var((0, 2, 3)), gradient[None]))

    pixels = make_images(64)
    every = {
        backend: torch.stack(
            [statistics(render(pixels, draw(SIMCLR, 0, step, range(64), 0), 32, backend)) for step in range(6)]
        )
        for backend in BACKENDS
    }
    fast, kornia = (every[backend].mean(dim=0) for backend in BACKENDS)
    # The same draws, so sampling does not blur the comparison. What is left is hue: HSV keeps the largest channel, the
    # rotation keeps the mean.
    assert (fast[:3] - kornia[:3]).abs().max() < 0.02
    assert (fast[3:] / kornia[3:] - 1).abs().max() < 0.1
