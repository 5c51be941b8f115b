"""The views: pure draws, a fixed order, and two backends that agree."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from view_images import NOTHING, SIMCLR, as_images, make_images

from pretrain.views import BACKENDS, Draws, draw, render


def rows(draws: Draws, chosen: list[int]) -> Draws:
    return Draws(*(column[chosen] for column in draws))


def same(one: Draws, other: Draws) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


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


def test_two_views_of_one_crop_share_the_geometry_only():
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
