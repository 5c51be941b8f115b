"""SSIM and its relatives against a naive reference, and what every loss and map promises."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d

from baselines.autoencoders.losses import (
    LOSSES,
    RESIDUALS,
    SCALE_WEIGHTS,
    gray,
    loss_named,
    multi_scale,
    residual_map,
    ssim_map,
)
from pretrain.command import UserError


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 48, 48, generator=generator)
    images = torch.nn.functional.avg_pool2d(images, 5, 1, 2)  # not mere noise
    return (images + 0.1 * torch.randn(images.shape, generator=generator)).clamp(0, 1), images


def naive_parts(x: np.ndarray, y: np.ndarray, window_px: int = 11) -> tuple[np.ndarray, np.ndarray]:
    """Luminance and structure of one channel (h, w), by their definition, mirrored at the border."""
    offset = np.arange(window_px) - window_px // 2
    weights = np.exp(-(offset**2) / (2 * 1.5**2))
    weights /= weights.sum()

    def mean(values):
        return correlate1d(correlate1d(values, weights, 0, mode="mirror"), weights, 1, mode="mirror")

    mean_x, mean_y = mean(x), mean(y)
    spread_x, spread_y, joint = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2, mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
    return luminance, (2 * joint + 0.03**2) / (spread_x + spread_y + 0.03**2)


def test_ssim_is_the_naive_one(pair):
    restored, images = pair
    maps = ssim_map(restored, images)
    for sample in range(2):
        for channel in range(3):
            luminance, structure = naive_parts(restored[sample, channel].double().numpy(),
                                               images[sample, channel].double().numpy())  # fmt: skip
            np.testing.assert_allclose(maps[sample, channel].numpy(), luminance * structure, atol=2e-4)
    torch.testing.assert_close(LOSSES["ssim"](restored, images, 11), (1 - maps.mean((1, 2, 3))) / 2)
    torch.testing.assert_close(residual_map(restored, images, "ssim"), 1 - maps.mean(1))


def test_multi_scale_is_the_naive_one(pair):
    restored, images = (part[:1, :1] for part in pair)
    x, y = (part[0, 0].double().numpy() for part in (restored, images))
    weights = np.array(SCALE_WEIGHTS[:3]) / sum(SCALE_WEIGHTS[:3])  # 48, 24 and 12 px hold a window of 11
    product = 1.0
    for scale in range(3):
        luminance, structure = naive_parts(x, y)
        value = (luminance * structure if scale == 2 else structure).mean()
        product *= max(value, 1e-3) ** weights[scale]
        x, y = (part.reshape(len(part) // 2, 2, -1, 2).mean((1, 3)) for part in (x, y))
    assert float(multi_scale(restored, images, 11)) == pytest.approx(1 - product, abs=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_0_for_the_image_itself_and_each_image_s_own(name, pair):
    restored, images = pair
    loss = loss_named(name)
    torch.testing.assert_close(loss(images, images, 11), torch.zeros(2), atol=1e-6, rtol=0)
    values = loss(restored, images, 11)
    assert values.shape == (2,) and (values > 1e-4).all()
    torch.testing.assert_close(loss(restored[1:], images[1:], 11), values[1:])


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_even_of_opposites(name):
    images = torch.rand(1, 3, 48, 48)
    restored = (1 - images).requires_grad_()
    loss_named(name)(restored, images, 11).sum().backward()
    assert restored.grad.isfinite().all()


def test_squares_by_hand():
    images, restored = torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.5)
    assert float(LOSSES["mse"](restored, images, 3)) == 0.25
    assert float(LOSSES["l2"](restored, images, 3)) == 0.25 * 3 * 64


@pytest.mark.parametrize("residual", RESIDUALS)
def test_maps_are_never_negative_and_count_the_border(residual):
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    for value in (0.0, 1.0):  # darker and brighter than it should be
        restored = images.clone()
        restored[..., :3, :3] = value
        residuals = residual_map(restored, images, residual)
        assert residuals.shape == (1, 32, 32) and residuals.min() >= 0
        assert residuals[0, 0, 0] > 0.01 and residuals[0, 0, 0] > 5 * residuals[0, 20:, 20:].max()


def test_a_window_that_does_not_fit_is_refused():
    images = torch.rand(1, 1, 10, 10)
    for loss in ("ssim", "mssim"):
        with pytest.raises(UserError, match="window of 11 px .* from 3 to 9"):
            LOSSES[loss](images, images, 11)
    with pytest.raises(UserError, match="an odd one"):
        ssim_map(images, images, 4)
    with pytest.raises(UserError, match="did you mean mssim"):
        loss_named("msssim")
    with pytest.raises(UserError, match="no residual map"):
        residual_map(images, images, "signed")


def test_gray_is_brightness():
    image = torch.stack([torch.full((4, 4), level) for level in (1.0, 0.5, 0.0)])[None]
    torch.testing.assert_close(gray(image), torch.full((1, 1, 4, 4), 0.299 + 0.587 / 2))
