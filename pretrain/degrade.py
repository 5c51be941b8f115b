"""Degraded images: blur, loss of resolution, three types of noise and JPEG, in named severities anybody can repeat.

In the order in which a camera does it: optics and motion blur the light, a coarse sensor samples it, photons and
electronics add noise, a codec throws detail away. How much of each an image gets is drawn from the ranges of its
severity, and every draw is a function of the seed and the image's key alone: of no batch, no order, no process.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from hashlib import blake2b
from io import BytesIO
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from kornia.filters import filter2d, filter2d_separable, get_gaussian_kernel1d
from PIL import Image
from torch import Tensor

from pretrain.command import UserError, nearest

Key = int | str | bytes
# Motion blur is a line about one pixel wide with soft edges; correlated noise spreads over a few pixels.
LINE_SIGMA_PX, GRAIN_SIGMA_PX = 0.5, 1.5
MOTION_PROBABILITY = 0.5


@dataclass(frozen=True)
class Severity:
    """Ranges (lowest, highest) from which the amounts of each image are drawn uniformly. Half of the images get a
    Gaussian blur, the other half a motion blur along a line.

    Lengths are in pixels of the image that is degraded; noise is relative to white = 1. `photons` is what a white
    pixel counts, None for a sensor without photon noise; `quality` is JPEG's, None for no compression.
    """

    blur_sigma_px: tuple[float, float] = (0.0, 0.0)
    motion_px: tuple[float, float] = (0.0, 0.0)
    downsampling: tuple[float, float] = (1.0, 1.0)
    photons: tuple[float, float] | None = None
    gaussian_sigma: tuple[float, float] = (0.0, 0.0)
    colored_sigma: tuple[float, float] = (0.0, 0.0)
    quality: tuple[float, float] | None = None


SEVERITIES = {
    "mild": Severity((0.4, 0.8), (1, 3), (1, 1), (2000, 4000), (0.01, 0.02), (0.005, 0.01), (85, 95)),
    "medium": Severity((0.7, 1.2), (3, 6), (1, 1.5), (500, 1000), (0.02, 0.05), (0.01, 0.03), (70, 90)),
    "harsh": Severity((1.0, 1.8), (5, 9), (1.2, 2), (150, 400), (0.05, 0.1), (0.03, 0.06), (40, 70)),
}


class Amounts(NamedTuple):
    """What is done to one image: the fields of `Severity`, each one number; `is_motion` says which of the two blurs."""

    is_motion: bool
    angle: float
    blur_sigma_px: float
    motion_px: float
    downsampling: float
    photons: float
    gaussian_sigma: float
    colored_sigma: tuple[float, float, float]  # red, green, blue
    quality: int


def severity_named(name: str) -> Severity:
    """A severity by its name. Raises UserError for an unknown name."""
    if name not in SEVERITIES:
        raise UserError(f"there is no severity {name!r}; {nearest(name, SEVERITIES)}")
    return SEVERITIES[name]


def describe(name: str) -> str:
    """The ranges of a severity in words, printed with every figure that was measured on it."""
    ranges = {field.name: getattr(severity_named(name), field.name) for field in fields(Severity)}
    low, high = ({what: span and span[end] for what, span in ranges.items()} for end in (0, 1))
    return (
        f"{name}: blur of sigma {low['blur_sigma_px']:g}-{high['blur_sigma_px']:g} px or motion of "
        f"{low['motion_px']:g}-{high['motion_px']:g} px, sampled {low['downsampling']:g}-{high['downsampling']:g} "
        f"times coarser, {low['photons']:g}-{high['photons']:g} photons, Gaussian noise of sigma "
        f"{low['gaussian_sigma']:g}-{high['gaussian_sigma']:g}, colored noise of sigma {low['colored_sigma']:g}-"
        f"{high['colored_sigma']:g}, JPEG quality {low['quality']:g}-{high['quality']:g}"
    )


def draw_amounts(severity: Severity, seed: int, key: Key) -> Amounts:
    """The amounts of one image, a pure function of the arguments."""
    uniform = torch.rand(12, generator=_generator(seed, key, "amounts"), dtype=torch.float64).tolist()

    def within(span: tuple[float, float] | None, fraction: float) -> float:
        return span[0] + (span[1] - span[0]) * fraction if span else 0.0

    colored_sigma = within(severity.colored_sigma, uniform[7])
    return Amounts(
        is_motion=uniform[0] < MOTION_PROBABILITY,
        angle=math.pi * uniform[1],
        blur_sigma_px=within(severity.blur_sigma_px, uniform[2]),
        motion_px=within(severity.motion_px, uniform[3]),
        downsampling=within(severity.downsampling, uniform[4]),
        photons=within(severity.photons, uniform[5]),
        gaussian_sigma=within(severity.gaussian_sigma, uniform[6]),
        # Sensors' color channels differ in noise: each gets 0.5 to 1.5 times the image's sigma.
        colored_sigma=tuple(colored_sigma * (0.5 + number) for number in uniform[8:11]),
        quality=round(within(severity.quality, uniform[11])),
    )


@torch.no_grad()
def degrade(images: Tensor, severity: Severity | str, seed: int, keys: Sequence[Key]) -> Tensor:
    """Degrade a batch on its device.

    float32 RGB (b, 3, h, w) in [0, 1] -> the same shape and range. `keys` identify the images: the number of a training
    sample, or the digest of a test image's content, which is then degraded alike in whatever folder it lies. Raises
    UserError for an unknown severity, ValueError for images that do not fit.
    """
    if images.dtype != torch.float32 or images.ndim != 4 or images.shape[1] != 3 or len(images) != len(keys):
        raise ValueError(f"need float32 ({len(keys)}, 3, h, w), got {images.dtype} {tuple(images.shape)}")
    if isinstance(severity, str):
        severity = severity_named(severity)
    amounts = [draw_amounts(severity, seed, key) for key in keys]
    with torch.autocast(images.device.type, enabled=False):
        images = _blurred(images, severity, amounts)
        images = _resampled(images, amounts)
        images = _noisy(images, amounts, seed, keys)
        return _compressed(images.clamp_(0, 1), amounts)


def _generator(seed: int, key: Key, purpose: str) -> torch.Generator:
    """On the CPU, whatever the images' device: a GPU's generator draws other numbers."""
    digest = blake2b(repr((seed, key, purpose)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def _blurred(images: Tensor, severity: Severity, amounts: Sequence[Amounts]) -> Tensor:
    # One kernel size for a whole severity, so that an image's neighbors in the batch do not change its rounding.
    radius_px = math.ceil(max(3 * severity.blur_sigma_px[1], severity.motion_px[1] / 2 + 2 * LINE_SIGMA_PX))
    radius_px = min(radius_px, min(images.shape[-2:]) - 1)  # reflection needs more pixels than the radius
    if not severity.blur_sigma_px[1] and not severity.motion_px[1] or not radius_px:
        return images.clone()
    kernels = torch.stack([_kernel(amount, radius_px) for amount in amounts])  # (b, 2 radius + 1, 2 radius + 1)
    return filter2d(images, kernels.to(images.device), border_type="reflect")


def _kernel(amount: Amounts, radius_px: int) -> Tensor:
    """(2 radius + 1, 2 radius + 1): a Gaussian about a point, or about a line of the motion's length."""
    axis_px = torch.arange(-radius_px, radius_px + 1, dtype=torch.float32)
    sigma_px, length_px = (LINE_SIGMA_PX, amount.motion_px) if amount.is_motion else (amount.blur_sigma_px, 0.0)
    along = math.cos(amount.angle) * axis_px + math.sin(amount.angle) * axis_px[:, None]
    across = math.cos(amount.angle) * axis_px[:, None] - math.sin(amount.angle) * axis_px
    beyond = (along.abs() - length_px / 2).clamp(min=0)  # distance to the line's end
    kernel = torch.exp(-(beyond.square() + across.square()) / (2 * max(sigma_px, 1e-3) ** 2))
    return kernel / kernel.sum()


def _resampled(images: Tensor, amounts: Sequence[Amounts]) -> Tensor:
    """Down and up again, each image by its own factor."""
    size_px = images.shape[-2:]
    for position, amount in enumerate(amounts):
        coarse_px = [max(1, round(side / amount.downsampling)) for side in size_px]
        if coarse_px != list(size_px):
            coarse = F.interpolate(images[position : position + 1], coarse_px, mode="bicubic", antialias=True)
            images[position] = F.interpolate(coarse, size_px, mode="bicubic")[0]
    return images.clamp_(0, 1)


def _noisy(images: Tensor, amounts: Sequence[Amounts], seed: int, keys: Sequence[Key]) -> Tensor:
    noisy = []
    for image, amount, key in zip(images, amounts, keys, strict=True):
        generator = _generator(seed, key, "noise")
        shot, gaussian, grain = (torch.randn(image.shape, generator=generator).to(image.device) for _ in range(3))
        if amount.photons:
            image = _photon_counts(image * amount.photons, shot) / amount.photons
        colored = image.new_tensor(amount.colored_sigma)[:, None, None] * _correlated(grain)
        noisy.append(image + amount.gaussian_sigma * gaussian + colored)
    return torch.stack(noisy)


def _photon_counts(expected: Tensor, normal: Tensor) -> Tensor:
    """Poisson counts of these expectations, from standard normal numbers, by Anscombe's transform: a mean that is
    exact, and a variance that is the expectation plus at most 5/8. torch.poisson would draw another number of numbers
    on each device."""
    return ((expected + 3 / 8).sqrt() + normal / 2).clamp_(min=0).square().sub(5 / 8).round_().clamp_(min=0)


def _correlated(noise: Tensor) -> Tensor:
    """White noise (3, h, w) -> noise of unit power that is correlated over a few pixels."""
    radius_px = min(math.ceil(3 * GRAIN_SIGMA_PX), min(noise.shape[-2:]) - 1)
    kernel = get_gaussian_kernel1d(2 * radius_px + 1, GRAIN_SIGMA_PX, device=noise.device)
    return filter2d_separable(noise[None], kernel, kernel, border_type="circular")[0] / kernel.square().sum()


def _compressed(images: Tensor, amounts: Sequence[Amounts]) -> Tensor:
    """Through JPEG and back, on the CPU: the same codec, whatever the images' device."""
    for position, amount in enumerate(amounts):
        if amount.quality:
            pixels = images[position].mul(255).round_().to("cpu", torch.uint8).permute(1, 2, 0)  # (h, w, 3)
            file = BytesIO()
            Image.fromarray(pixels.numpy()).save(file, "JPEG", quality=amount.quality)
            decoded = torch.from_numpy(np.array(Image.open(file)))
            images[position] = decoded.permute(2, 0, 1).to(images.device).float().div_(255)
    return images
