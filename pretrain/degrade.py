"""Degraded images: blur, loss of resolution, three kinds of noise and JPEG, in named levels that anybody can repeat.

In the order in which a camera does it: optics and motion blur the light, a coarse sensor samples it, photons and
electronics add noise, a codec throws detail away. How much of each an image gets is drawn from its level's ranges, and
everything drawn is a function of the seed and the image's key alone: of no batch, no order, no process.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from hashlib import blake2b
from io import BytesIO
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.command import UserError, nearest

Key = int | str | bytes
# A line one pixel wide, and the spread of the correlated noise, with soft edges.
LINE_SIGMA_PX, GRAIN_SIGMA_PX = 0.5, 1.5
HALF = 0.5


@dataclass(frozen=True)
class Level:
    """Ranges (lowest, highest), from which each image draws evenly. Half of the images are blurred alike in all
    directions, the other half along a line.

    Lengths are in pixels of the image that is degraded; noise is in units of white. `photons` are what a white pixel
    counts, none for a sensor without photon noise; `quality` is JPEG's, none for an image that is not packed.
    """

    blur_sigma_px: tuple[float, float] = (0.0, 0.0)
    motion_px: tuple[float, float] = (0.0, 0.0)
    shrinkage: tuple[float, float] = (1.0, 1.0)
    photons: tuple[float, float] | None = None
    gaussian_sigma: tuple[float, float] = (0.0, 0.0)
    colored_sigma: tuple[float, float] = (0.0, 0.0)
    quality: tuple[float, float] | None = None


LEVELS = {
    "mild": Level((0.4, 0.8), (1, 3), (1, 1), (2000, 4000), (0.01, 0.02), (0.005, 0.01), (85, 95)),
    "medium": Level((0.7, 1.2), (3, 6), (1, 1.5), (500, 1000), (0.02, 0.05), (0.01, 0.03), (70, 90)),
    "harsh": Level((1.0, 1.8), (5, 9), (1.2, 2), (150, 400), (0.05, 0.1), (0.03, 0.06), (40, 70)),
}


class Amounts(NamedTuple):
    """What happens to one image: Level's names, each a number; `is_motion` says which of the two blurs."""

    is_motion: bool
    angle: float
    blur_sigma_px: float
    motion_px: float
    shrinkage: float
    photons: float
    gaussian_sigma: float
    colored_sigma: tuple[float, float, float]  # red, green, blue
    quality: int


def level_named(name: str) -> Level:
    """A level by its name. Raises UserError for a name that is none."""
    if name not in LEVELS:
        raise UserError(f"there is no level of degradation {name!r}; {nearest(name, LEVELS)}")
    return LEVELS[name]


def in_words(name: str) -> str:
    """A level's blur and noise, to be said with every figure that was measured on it."""
    shown = {field.name: getattr(level_named(name), field.name) for field in fields(Level)}
    low, high = ({kind: span and span[end] for kind, span in shown.items()} for end in (0, 1))
    return (
        f"{name}: blur of sigma {low['blur_sigma_px']:g}-{high['blur_sigma_px']:g} px or motion of "
        f"{low['motion_px']:g}-{high['motion_px']:g} px, sampled {low['shrinkage']:g}-{high['shrinkage']:g} times "
        f"coarser, {low['photons']:g}-{high['photons']:g} photons, Gaussian noise of sigma "
        f"{low['gaussian_sigma']:g}-{high['gaussian_sigma']:g}, colored noise of sigma {low['colored_sigma']:g}-"
        f"{high['colored_sigma']:g}, JPEG quality {low['quality']:g}-{high['quality']:g}"
    )


def draw(level: Level, seed: int, key: Key) -> Amounts:
    """The amounts of one image, a pure function of the arguments."""
    chance = torch.rand(13, generator=_generator(seed, key, "amounts"), dtype=torch.float64).tolist()

    def within(span: tuple[float, float] | None, place: float) -> float:
        return span[0] + (span[1] - span[0]) * place if span else 0.0

    colored = within(level.colored_sigma, chance[7])
    return Amounts(
        is_motion=chance[0] < HALF,
        angle=math.pi * chance[1],
        blur_sigma_px=within(level.blur_sigma_px, chance[2]),
        motion_px=within(level.motion_px, chance[3]),
        shrinkage=within(level.shrinkage, chance[4]),
        photons=within(level.photons, chance[5]),
        gaussian_sigma=within(level.gaussian_sigma, chance[6]),
        colored_sigma=tuple(colored * (HALF + part) for part in chance[8:11]),
        quality=round(within(level.quality, chance[11])),
    )


@torch.no_grad()
def degrade(images: Tensor, level: Level | str, seed: int, keys: Sequence[Key]) -> Tensor:
    """Degrade a batch on its device.

    float32 RGB (b, 3, h, w) in [0, 1] -> the same shape and range. `keys` name the images: a number of a training
    sample, or a digest of a test image's content, which is then degraded alike wherever it lies. Raises UserError for
    an unknown level, ValueError for images that do not fit.
    """
    if images.dtype != torch.float32 or images.ndim != 4 or images.shape[1] != 3 or len(images) != len(keys):
        raise ValueError(f"need float32 ({len(keys)}, 3, h, w), got {images.dtype} {tuple(images.shape)}")
    if isinstance(level, str):
        level = level_named(level)
    amounts = [draw(level, seed, key) for key in keys]
    with torch.autocast(images.device.type, enabled=False):
        images = _blurred(images, level, amounts)
        images = _coarsened(images, amounts)
        images = _noisy(images, amounts, seed, keys)
        return _packed(images.clamp_(0, 1), amounts)


def _generator(seed: int, key: Key, what: str) -> torch.Generator:
    """Of the CPU, whatever the device: another one would draw other numbers."""
    digest = blake2b(repr((seed, key, what)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def _blurred(images: Tensor, level: Level, amounts: Sequence[Amounts]) -> Tensor:
    from kornia.filters import filter2d

    # One size of kernel for a level, so that an image's neighbors do not change its rounding.
    radius_px = math.ceil(max(3 * level.blur_sigma_px[1], level.motion_px[1] / 2 + 2 * LINE_SIGMA_PX))
    radius_px = min(radius_px, min(images.shape[-2:]) - 1)
    if not level.blur_sigma_px[1] and not level.motion_px[1] or not radius_px:
        return images.clone()
    kernels = torch.stack([_kernel(amount, radius_px) for amount in amounts])
    return filter2d(images, kernels.to(images.device), border_type="reflect")


def _kernel(amount: Amounts, radius_px: int) -> Tensor:
    """(2 radius + 1, 2 radius + 1): a Gaussian about a point, or about a line of the motion's length."""
    place = torch.arange(-radius_px, radius_px + 1, dtype=torch.float32)
    sigma_px, length_px = (LINE_SIGMA_PX, amount.motion_px) if amount.is_motion else (amount.blur_sigma_px, 0.0)
    along = math.cos(amount.angle) * place + math.sin(amount.angle) * place[:, None]
    across = math.cos(amount.angle) * place[:, None] - math.sin(amount.angle) * place
    beyond = (along.abs() - length_px / 2).clamp(min=0)
    kernel = torch.exp(-(beyond.square() + across.square()) / (2 * max(sigma_px, 1e-3) ** 2))
    return kernel / kernel.sum()


def _coarsened(images: Tensor, amounts: Sequence[Amounts]) -> Tensor:
    """Down and up again, each image by its own factor."""
    size_px = images.shape[-2:]
    for position, amount in enumerate(amounts):
        coarse_px = [max(1, round(side / amount.shrinkage)) for side in size_px]
        if coarse_px != list(size_px):
            coarse = F.interpolate(images[position : position + 1], coarse_px, mode="bicubic", antialias=True)
            images[position] = F.interpolate(coarse, size_px, mode="bicubic")[0]
    return images.clamp_(0, 1)


def _noisy(images: Tensor, amounts: Sequence[Amounts], seed: int, keys: Sequence[Key]) -> Tensor:
    noisy = []
    for image, amount, key in zip(images, amounts, keys, strict=True):
        generator = _generator(seed, key, "noise")
        counted, plain, grain = (torch.randn(image.shape, generator=generator).to(image.device) for _ in range(3))
        if amount.photons:
            image = _counted(image * amount.photons, counted) / amount.photons
        colored = image.new_tensor(amount.colored_sigma)[:, None, None] * _grainy(grain)
        noisy.append(image + amount.gaussian_sigma * plain + colored)
    return torch.stack(noisy)


def _counted(expected: Tensor, normal: Tensor) -> Tensor:
    """Poisson counts of these expectations, from standard normal numbers, by Anscombe's transform: a mean that is
    exact, and a variance that is the expectation plus at most 5/8. torch.poisson would draw another number of numbers
    on each device."""
    return ((expected + 3 / 8).sqrt() + normal / 2).clamp_(min=0).square().sub(5 / 8).round_().clamp_(min=0)


def _grainy(noise: Tensor) -> Tensor:
    """White noise (3, h, w) -> noise of unit power that goes together over a few pixels."""
    from kornia.filters import filter2d_separable, get_gaussian_kernel1d

    radius_px = min(math.ceil(3 * GRAIN_SIGMA_PX), min(noise.shape[-2:]) - 1)
    kernel = get_gaussian_kernel1d(2 * radius_px + 1, GRAIN_SIGMA_PX, device=noise.device)
    return filter2d_separable(noise[None], kernel, kernel, border_type="circular")[0] / kernel.square().sum()


def _packed(images: Tensor, amounts: Sequence[Amounts]) -> Tensor:
    """Through JPEG and back; the codec works on the CPU."""
    if not any(amount.quality for amount in amounts):
        return images
    import numpy as np
    from PIL import Image

    for position, amount in enumerate(amounts):
        if amount.quality:
            pixels = images[position].mul(255).round_().to("cpu", torch.uint8).permute(1, 2, 0)
            file = BytesIO()
            Image.fromarray(pixels.numpy()).save(file, "JPEG", quality=amount.quality)
            unpacked = torch.from_numpy(np.array(Image.open(file)))
            images[position] = unpacked.permute(2, 0, 1).to(images.device).float().div_(255)
    return images
