"""The views: pure draws, a fixed order, and two backends that agree."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from pretrain.random_numbers import uniforms
from pretrain.views import BACKENDS, Draws, Strengths, _crop_by_loop, _crop_by_matrices, draw, render

SIMCLR = Strengths()
NOTHING = Strengths(
    crop_area=(1, 1),
    crop_aspect=(1, 1),
    flip_horizontal_probability=0,
    jitter_probability=0,
    gray_probability=0,
    blur_probability=0,
)


def make_images(count: int, height_px: int = 96, width_px: int = 96) -> torch.Tensor:
    """Smooth images with some grain, as muted in color as products are, uint8 (count, h, w, 3)."""
    generator = torch.Generator().manual_seed(7)
    coarse = torch.rand((count, 3, 8, 8), generator=generator)
    coarse = torch.lerp(coarse.mean(dim=1, keepdim=True), coarse, 0.4)
    smooth = F.interpolate(coarse, (height_px, width_px), mode="bicubic")
    grain = 0.1 * (torch.rand(smooth.shape, generator=generator) - 0.5)
    return (smooth + grain).clamp(0, 1).mul(255).byte().permute(0, 2, 3, 1).contiguous()


def rows(draws: Draws, chosen: list[int]) -> Draws:
    return Draws(*(column[chosen] for column in draws))


def same(one: Draws, other: Draws) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def as_images(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.permute(0, 3, 1, 2).float() / 255


def test_uniforms_are_uniform_and_independent():
    values = torch.from_numpy(uniforms(range(4000), 8, 1, 2, "test"))
    assert values.min() >= 0 and values.max() < 1
    # Standard errors: the mean 0.0016, the variance 0.0004, a correlation 0.016 per pair.
    assert (values.mean(dim=0) - 0.5).abs().max() < 0.02
    assert (values.var(dim=0) - 1 / 12).abs().max() < 0.005
    assert (torch.corrcoef(values.T) - torch.eye(8)).abs().max() < 0.08
    assert torch.corrcoef(torch.stack((values[:-1, 0], values[1:, 0])))[0, 1].abs() < 0.08


def test_draws_are_a_pure_function_of_seed_step_view_and_position():
    before = torch.get_rng_state()
    whole = draw(SIMCLR, 3, 5, range(32), view=0)
    halves = [draw(SIMCLR, 3, 5, range(start, start + 16), view=0) for start in (0, 16)]
    assert same(whole, Draws(*(torch.cat(columns) for columns in zip(*halves, strict=True))))
    assert same(rows(whole, [31, 4]), draw(SIMCLR, 3, 5, [31, 4], view=0))
    for seed, step, view in ((4, 5, 0), (3, 6, 0), (3, 5, 1)):
        other = draw(SIMCLR, seed, step, range(32), view)
        assert not torch.equal(whole.crop, other.crop) and not torch.equal(whole.brightness, other.brightness)
    render(make_images(32), whole, 32)
    assert torch.equal(before, torch.get_rng_state())


def test_two_views_of_one_crop_share_the_places_only():
    first, second = draw(SIMCLR, 0, 0, range(32), view=0), draw(SIMCLR, 0, 0, range(32), view=1, geometry_view=0)
    assert torch.equal(first.crop, second.crop) and torch.equal(first.flip_horizontal, second.flip_horizontal)
    assert not torch.equal(first.contrast, second.contrast) and not torch.equal(first.gray, second.gray)


def test_draws_keep_to_their_ranges_and_probabilities():
    draws = draw(replace(SIMCLR, flip_vertical_probability=0.3), 0, 0, range(4000), view=0)
    top, left, height, width = draws.crop.unbind(1)
    assert draws.crop.min() >= 0 and (top + height).max() <= 1 + 1e-6 and (left + width).max() <= 1 + 1e-6
    area, aspect = height * width, width / height
    assert area.min() >= 0.0799 and area.min() < 0.1 and area.max() > 0.97
    assert aspect.min() >= 0.749 and aspect.max() <= 1.334
    for factor in (draws.brightness, draws.contrast, draws.saturation):
        assert factor.min() >= 0.2 and factor.min() < 0.25 and 1.75 < factor.max() <= 1.8
    assert 0.19 < draws.hue_turns.max() <= 0.2 and -0.2 <= draws.hue_turns.min() < -0.19
    sigma_px = draws.blur_sigma_px[draws.blur_sigma_px > 0]
    assert 0.1 <= sigma_px.min() < 0.15 and 1.95 < sigma_px.max() <= 2
    expected = {"flip_horizontal": 0.5, "flip_vertical": 0.3, "gray": 0.2}
    for name, probability in expected.items():
        assert getattr(draws, name).float().mean() == pytest.approx(probability, abs=0.035)
    assert (draws.brightness != 1).float().mean() == pytest.approx(0.8, abs=0.03)
    assert (draws.blur_sigma_px > 0).float().mean() == pytest.approx(0.5, abs=0.035)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_strength_returns_the_image(backend):
    pixels = make_images(4)
    draws = draw(NOTHING, 0, 0, range(4), view=0)
    assert torch.allclose(render(pixels, draws, 96, backend), as_images(pixels), atol=1e-5)
    smaller = F.interpolate(as_images(pixels), (48, 48), mode="bilinear", antialias=True)
    # The crop from uint8 is rounded to whole levels.
    assert (render(pixels, draws, 48, backend) - smaller).abs().max() < 1.01 / 255


@pytest.mark.parametrize("backend", BACKENDS)
def test_flips_are_exact(backend):
    pixels = make_images(4, 64, 80)
    plain = render(pixels, draw(NOTHING, 0, 0, range(4), view=0), 48, backend)
    sideways = draw(replace(NOTHING, flip_horizontal_probability=1), 0, 0, range(4), view=0)
    upside_down = draw(replace(NOTHING, flip_vertical_probability=1), 0, 0, range(4), view=0)
    # The fast backend's mean of the image, whose weight is then 0, may differ in the last bit.
    assert torch.allclose(render(pixels, sideways, 48, backend), plain.flip(3), atol=1e-7)
    assert torch.allclose(render(pixels, upside_down, 48, backend), plain.flip(2), atol=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gray_has_equal_channels(backend):
    draws = draw(replace(SIMCLR, gray_probability=1), 0, 0, range(8), view=0)
    red, green, blue = render(make_images(8), draws, 48, backend).unbind(1)
    assert torch.allclose(red, green, atol=1e-6) and torch.allclose(red, blue, atol=1e-6)
    assert red.std() > 0.05


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_view_does_not_depend_on_the_rest_of_the_batch(backend):
    pixels, draws = make_images(24), draw(SIMCLR, 0, 0, range(24), view=0)
    together = render(pixels, draws, 48, backend)
    assert together.dtype == torch.float32 and together.shape == (24, 3, 48, 48)
    assert together.min() >= 0 and together.max() <= 1
    for index in range(24):
        alone = render(pixels[[index]], rows(draws, [index]), 48, backend)
        assert torch.allclose(alone[0], together[index], atol=1e-6)
    assert torch.equal(together, render(pixels, draws, 48, backend))


def test_the_crop_without_a_loop_equals_torchs():
    pixels = make_images(16, 96, 120)
    draws = draw(replace(SIMCLR, flip_vertical_probability=0.5), 0, 0, range(16), view=0)
    for size_px in (24, 64, 160):  # smaller, about equal, larger than the crops
        difference = _crop_by_loop(pixels, draws, size_px) - _crop_by_matrices(pixels, draws, size_px)
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


def test_wrong_pixels_and_backends_are_refused():
    draws = draw(SIMCLR, 0, 0, range(2), view=0)
    with pytest.raises(ValueError, match="uint8"):
        render(make_images(2).float(), draws, 32)
    with pytest.raises(ValueError, match="no backend 'opencv'"):
        render(make_images(2), draws, 32, "opencv")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_renders_the_same_views():
    pixels, draws = make_images(16), draw(SIMCLR, 0, 0, range(16), view=0)
    for backend in BACKENDS:
        difference = render(pixels.cuda(), draws, 48, backend).cpu() - render(pixels, draws, 48, backend)
        assert difference.abs().mean() < 2 / 255 and difference.abs().max() < 0.05
