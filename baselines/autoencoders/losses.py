"""How far a reconstruction is from its image: as one number to learn from, and as a map to find defects with.

Both are never negative, and the border counts: windows are mirrored there, so that every pixel has a value.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain.command import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW_PX, SIGMA_PX = 11, 1.5
C1, C2 = 0.01**2, 0.03**2
# Wang, Simoncelli and Bovik 2003, from the finest scale to the coarsest.
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# What is below it has no power of its own: structure may be negative, and a root's slope at 0 is infinite.
LEAST_STRUCTURE = 1e-3
LUMA = (0.299, 0.587, 0.114)


def gray(images: Tensor) -> Tensor:
    """RGB (b, 3, h, w) -> brightness (b, 1, h, w)."""
    return (images * images.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def mean_squared(restored: Tensor, images: Tensor, window_px: int) -> Tensor:
    return (restored - images).square().mean((1, 2, 3))


def sum_of_squares(restored: Tensor, images: Tensor, window_px: int) -> Tensor:
    return (restored - images).square().sum((1, 2, 3))


def half_ssim(restored: Tensor, images: Tensor, window_px: int) -> Tensor:
    """(1 - SSIM) / 2, from 0 to 1."""
    return (1 - ssim_map(restored, images, window_px).mean((1, 2, 3))) / 2


def multi_scale(restored: Tensor, images: Tensor, window_px: int) -> Tensor:
    """1 - MS-SSIM, on as many of the five scales as the window fits into: five from 176 px for 11, three at 64."""
    check_window(images, window_px)
    scales = min(len(SCALE_WEIGHTS), 1 + int(math.log2(min(images.shape[-2:]) / window_px)))
    weights = torch.tensor(SCALE_WEIGHTS[:scales], device=images.device)
    product = images.new_ones(len(images), images.shape[1])  # (b, channels)
    for scale, weight in enumerate(weights / weights.sum()):
        luminance, structure = _parts(restored, images, window_px)
        value = luminance * structure if scale == scales - 1 else structure
        product = product * value.mean((2, 3)).clamp(min=LEAST_STRUCTURE) ** weight
        restored, images = F.avg_pool2d(restored, 2), F.avg_pool2d(images, 2)
    return 1 - product.mean(1)


# Each gives one number for an image: (b, channels, h, w) twice -> (b,).
LOSSES: "dict[str, Callable[[Tensor, Tensor, int], Tensor]]" = {
    "mse": mean_squared,
    "l2": sum_of_squares,
    "ssim": half_ssim,
    "mssim": multi_scale,
}
RESIDUALS = ("squared", "absolute", "ssim")


def loss_named(name: str) -> "Callable[[Tensor, Tensor, int], Tensor]":
    """A loss by its name. Raises UserError for a name that is none."""
    if name not in LOSSES:
        raise UserError(f"there is no loss {name!r}; {nearest(name, LOSSES)}")
    return LOSSES[name]


def residual_map(restored: Tensor, images: Tensor, kind: str, window_px: int = WINDOW_PX) -> Tensor:
    """Where an image differs, the mean over its channels: (b, channels, h, w) twice -> (b, h, w), 0 or more.

    squared or absolute differences, or 1 - SSIM. Raises UserError for another kind.
    """
    if kind not in RESIDUALS:
        raise UserError(f"there is no residual map {kind!r}; {nearest(kind, RESIDUALS)}")
    if kind == "ssim":
        return (1 - ssim_map(restored, images, window_px)).mean(1).clamp(min=0)
    difference = restored - images
    return (difference.abs() if kind == "absolute" else difference.square()).mean(1)


def ssim_map(restored: Tensor, images: Tensor, window_px: int = WINDOW_PX) -> Tensor:
    """Structural similarity at each pixel, at most 1: (b, channels, h, w) twice -> the same.

    A Gaussian window of sigma 1.5 (Wang et al. 2004). Raises UserError where the window does not fit.
    """
    from kornia.metrics import ssim

    check_window(images, window_px)
    return ssim(restored, images, window_px, eps=0.0)


def check_window(images: Tensor, window_px: int) -> None:
    """Raise UserError unless SSIM's window has a middle and is no larger than the images (..., h, w)."""
    side = min(images.shape[-2:])
    if window_px % 2 == 0 or not 3 <= window_px <= side:
        raise UserError(
            f"SSIM's window of {window_px} px does not do for images of {side} px: choose an odd one from 3 to "
            f"{side - (side + 1) % 2}, or larger images."
        )


def _parts(restored: Tensor, images: Tensor, window_px: int) -> tuple[Tensor, Tensor]:
    """SSIM's two factors, luminance and contrast with structure: kornia gives their product alone."""
    from kornia.filters import filter2d_separable, get_gaussian_kernel1d

    kernel = get_gaussian_kernel1d(window_px, SIGMA_PX, device=images.device, dtype=images.dtype)

    def blurred(values: Tensor) -> Tensor:
        return filter2d_separable(values, kernel, kernel)

    mean, other = blurred(restored), blurred(images)
    variances = blurred(restored.square()) - mean.square() + blurred(images.square()) - other.square()
    covariance = blurred(restored * images) - mean * other
    luminance = (2 * mean * other + C1) / (mean.square() + other.square() + C1)
    return luminance, (2 * covariance + C2) / (variances + C2)
