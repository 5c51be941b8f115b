"""How far a reconstruction is from its image: as a loss to learn from, and as a map to find defects with.

Both are never negative, and the border counts: windows are mirrored there, so that every pixel has a value.
"""

import math
from collections.abc import Callable
from functools import cache

import torch
from kornia.filters import filter2d_separable, get_gaussian_kernel1d
from kornia.metrics import ssim
from torch import Tensor
from torch.nn import functional as F

from pretrain.command import UserError, nearest

# SSIM's window and constants (Wang et al. 2004, doi 10.1109/TIP.2003.819861), for values from 0 to 1.
WINDOW_PX, SIGMA_PX = 11, 1.5
C1, C2 = 0.01**2, 0.03**2
# Wang, Simoncelli and Bovik 2003 (doi 10.1109/ACSSC.2003.1292216), from the finest scale to the coarsest.
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# Structure may be negative, which has no root, and at 0 a root has an infinite slope.
MIN_STRUCTURE = 1e-3
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as PIL's mode L


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
    """1 - MS-SSIM, on as many of the five scales as the window fits into: five from 176 px for 11, three at 64.

    Not torchmetrics': it leaves the border out at every scale, which at 64 px changes the loss by 0.04 and at 256 px by
    0.01, and a defect at the border would not be learned from."""
    check_window(images, window_px)
    scales = min(len(SCALE_WEIGHTS), 1 + int(math.log2(min(images.shape[-2:]) / window_px)))
    weights = torch.tensor(SCALE_WEIGHTS[:scales], device=images.device)
    product = images.new_ones(len(images), images.shape[1])  # (b, channels)
    for scale, weight in enumerate(weights / weights.sum()):  # with fewer scales the rest weighs as much more
        luminance, structure = _luminance_and_structure(restored, images, window_px)
        value = luminance * structure if scale == scales - 1 else structure
        product = product * value.mean((2, 3)).clamp(min=MIN_STRUCTURE) ** weight
        restored, images = F.avg_pool2d(restored, 2), F.avg_pool2d(images, 2)
    return 1 - product.mean(1)


# Each gives one number for an image: (b, channels, h, w) twice -> (b,).
LOSSES: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "mse": mean_squared,
    "l2": sum_of_squares,
    "ssim": half_ssim,
    "mssim": multi_scale,
}
RESIDUALS = ("squared", "absolute", "ssim")


def loss_named(name: str) -> Callable[[Tensor, Tensor, int], Tensor]:
    """A loss by its name. Raises UserError for an unknown name."""
    if name not in LOSSES:
        raise UserError(f"there is no loss {name!r}; {nearest(name, LOSSES)}")
    return LOSSES[name]


def residual_map(restored: Tensor, images: Tensor, residual: str, window_px: int = WINDOW_PX) -> Tensor:
    """Where an image differs, the mean over its channels: (b, channels, h, w) twice -> (b, h, w), 0 or more.

    `residual` is squared, absolute, or ssim for 1 - SSIM. Raises UserError for another one.
    """
    if residual not in RESIDUALS:
        raise UserError(f"there is no residual map {residual!r}; {nearest(residual, RESIDUALS)}")
    if residual == "ssim":
        return (1 - ssim_map(restored, images, window_px)).mean(1).clamp(min=0)
    difference = restored - images
    return (difference.abs() if residual == "absolute" else difference.square()).mean(1)


def ssim_map(restored: Tensor, images: Tensor, window_px: int = WINDOW_PX) -> Tensor:
    """Structural similarity at each pixel, at most 1: (b, channels, h, w) twice -> the same.

    A Gaussian window of sigma 1.5 (Wang et al. 2004). Raises UserError where the window does not fit.
    """
    check_window(images, window_px)
    if images.device.type != "cpu":  # kornia sends its window there each time, which makes a GPU be waited for
        luminance, structure = _luminance_and_structure(restored, images, window_px)
        return luminance * structure
    return ssim(restored, images, window_px, eps=0.0)  # kornia's eps of 1e-12 would leave equal images a hair below 1


def check_window(images: Tensor, window_px: int) -> None:
    """Raise UserError unless SSIM's window has a middle and is no larger than the images (..., h, w)."""
    side = min(images.shape[-2:])
    if window_px % 2 == 0 or not 3 <= window_px <= side:
        raise UserError(
            f"SSIM's window of {window_px} px does not do for images of {side} px: choose an odd one from 3 to "
            f"{side - (side + 1) % 2}, or larger images."
        )


@cache
def _window(side_px: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    return get_gaussian_kernel1d(side_px, SIGMA_PX, dtype=dtype).to(device)


def _luminance_and_structure(restored: Tensor, images: Tensor, window_px: int) -> tuple[Tensor, Tensor]:
    """SSIM's two factors, luminance and contrast with structure: kornia gives their product alone."""
    kernel = _window(window_px, images.device, images.dtype)

    def blurred(values: Tensor) -> Tensor:
        return filter2d_separable(values, kernel, kernel)

    mean_x, mean_y = blurred(restored), blurred(images)
    variances = blurred(restored.square()) - mean_x.square() + blurred(images.square()) - mean_y.square()
    covariance = blurred(restored * images) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x.square() + mean_y.square() + C1)
    return luminance, (2 * covariance + C2) / (variances + C2)
