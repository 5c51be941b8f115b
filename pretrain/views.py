"""SimCLR's contrastive views: two random versions of one image, which the encoder must recognize as the same.

A view is made in a fixed order: crop and resize, flip, color jitter, gray, blur (Chen et al. 2020, appendix A).
`Strengths` says how strongly, `draw` turns it into one row of numbers for each image, `render` turns pixels and
numbers into images. The numbers depend on nothing but seed, step, view and an image's position in the global batch,
so a resumed run, two ranks or another device see the same views.

Two backends read the same numbers. "kornia" does color, gray and blur as torchvision and PIL define them. "fast" folds
contrast, saturation, hue and gray into one matrix per image, with hue as a rotation about the gray axis; on two CPU
cores it is several times faster. What is learned must not depend on the choice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.random_numbers import uniforms

BACKENDS = ("fast", "kornia")
CROP_ATTEMPTS = 10
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Strengths:
    """How far two views of an image may differ; the defaults are SimCLR's for ImageNet.

    Industrial defects are local and often a matter of color: a strong crop or jitter teaches the encoder to overlook
    them. Ranges are (lowest, highest); brightness, contrast and saturation 0.8 mean a factor in [0.2, 1.8].
    """

    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip_horizontal_probability: float = 0.5
    flip_vertical_probability: float = 0.0
    jitter_probability: float = 0.8
    brightness: float = 0.8
    contrast: float = 0.8
    saturation: float = 0.8
    hue_turns: float = 0.2
    gray_probability: float = 0.2
    blur_probability: float = 0.5
    blur_sigma_px: tuple[float, float] = (0.1, 2.0)


class Draws(NamedTuple):
    """What happens to each image of a batch: CPU tensors, one row an image."""

    crop: Tensor  # (b, 4) float32: top, left, height, width as shares of the image
    flip_horizontal: Tensor  # (b,) bool
    flip_vertical: Tensor  # (b,) bool
    brightness: Tensor  # (b,) float32 factor, 1 leaves the image as it is; so do contrast and saturation
    contrast: Tensor
    saturation: Tensor
    hue_turns: Tensor  # (b,) float32, 0 leaves the image as it is
    gray: Tensor  # (b,) bool
    blur_sigma_px: Tensor  # (b,) float32 in pixels of the view, 0 for none


def draw(
    strengths: Strengths,
    seed: int,
    step: int,
    positions: Sequence[int] | np.ndarray,
    view: int,
    geometry_view: int | None = None,
) -> Draws:
    """The numbers of one view for the images at `positions` of the global batch.

    `geometry_view` takes crop and flips from another view: `draw(..., view=1, geometry_view=0)` and
    `draw(..., view=0)` show the same places in other colors, as dense contrast needs.
    """
    count = len(positions)
    geometry = uniforms(
        positions, 4 * CROP_ATTEMPTS + 2, seed, step, "geometry", view if geometry_view is None else geometry_view
    )
    color = uniforms(positions, 8, seed, step, "color", view)
    geometry, color = torch.from_numpy(geometry), torch.from_numpy(color)
    jittered = color[:, 0] < strengths.jitter_probability
    swing = (2 * color[:, 1:5] - 1) * jittered[:, None]
    lowest, highest = strengths.blur_sigma_px
    sigma_px = lowest + (highest - lowest) * color[:, 7]
    return Draws(
        crop=_crops(strengths, geometry[:, 2:].reshape(count, CROP_ATTEMPTS, 4)),
        flip_horizontal=geometry[:, 0] < strengths.flip_horizontal_probability,
        flip_vertical=geometry[:, 1] < strengths.flip_vertical_probability,
        brightness=(1 + strengths.brightness * swing[:, 0]).clamp_(min=0),
        contrast=(1 + strengths.contrast * swing[:, 1]).clamp_(min=0),
        saturation=(1 + strengths.saturation * swing[:, 2]).clamp_(min=0),
        hue_turns=strengths.hue_turns * swing[:, 3],
        gray=color[:, 5] < strengths.gray_probability,
        blur_sigma_px=torch.where(color[:, 6] < strengths.blur_probability, sigma_px, 0.0),
    )


def draw_pair(
    strengths: Strengths, seed: int, step: int, positions: Sequence[int] | np.ndarray, same_places: bool = False
) -> tuple[Draws, Draws]:
    """The numbers of both views. With `same_places` they show one crop in two colorings: only there can a place of
    the one be looked for in the other."""
    second = draw(strengths, seed, step, positions, view=1, geometry_view=0 if same_places else None)
    return draw(strengths, seed, step, positions, view=0), second


def _crops(strengths: Strengths, chance: Tensor) -> Tensor:
    """The first attempt that fits into the image, or all of it, as torchvision draws crops.

    chance (b, attempts, 4) -> (b, 4): top, left, height, width.
    """
    smallest, largest = strengths.crop_area
    narrow, wide = (math.log(aspect) for aspect in strengths.crop_aspect)
    area = smallest + (largest - smallest) * chance[..., 0]
    aspect = torch.exp(narrow + (wide - narrow) * chance[..., 1])
    height, width = (area / aspect).sqrt(), (area * aspect).sqrt()
    crops = torch.stack(((1 - height) * chance[..., 2], (1 - width) * chance[..., 3], height, width), dim=-1)
    fits = (height <= 1) & (width <= 1)
    first = crops[torch.arange(len(crops)), fits.int().argmax(dim=1)]
    return torch.where(fits.any(dim=1, keepdim=True), first, torch.tensor([0.0, 0.0, 1.0, 1.0]))


@torch.no_grad()
def render(pixels: Tensor, draws: Draws, size_px: int, backend: str | None = None) -> Tensor:
    """Make one view of every image, on the images' device.

    pixels uint8 (b, h, w, 3) -> float32 (b, 3, size_px, size_px) in [0, 1]. Without `backend`: "fast" on the CPU,
    "kornia" elsewhere. An image's view does not depend on the rest of the batch.
    """
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3 or len(pixels) != len(draws.crop):
        raise ValueError(f"pixels must be uint8 ({len(draws.crop)}, h, w, 3), got {pixels.dtype} {tuple(pixels.shape)}")
    on_cpu = pixels.device.type == "cpu"
    backend = backend or ("fast" if on_cpu else "kornia")
    if backend not in BACKENDS:
        raise ValueError(f"no backend {backend!r}; there are {', '.join(BACKENDS)}")
    # Half precision is for the network: the training loop's autocast would round every product of matrices here.
    with torch.autocast(pixels.device.type, enabled=False):
        images = (_crop_by_loop if on_cpu else _crop_by_matrices)(pixels, draws, size_px)
        images = _color_by_kornia(images, draws) if backend == "kornia" else _color_by_matrix(images, draws)
        blurred = torch.nonzero(draws.blur_sigma_px)[:, 0]
        if len(blurred):
            blur = _blur_by_kornia if backend == "kornia" else _blur_by_rows_and_columns
            on_device = blurred.to(images.device)
            images[on_device] = blur(images[on_device], draws.blur_sigma_px[blurred])
    return images


# Crop, resize and flip: the same for both backends, since kornia's own crop either loops and convolves or aliases.


def _boxes(crop: Tensor, height_px: int, width_px: int) -> Tensor:
    """Crops in whole pixels: (b, 4) shares -> (b, 4) int64 top, left, height, width."""
    extent = torch.tensor([height_px, width_px])
    sides = (crop[:, 2:] * extent).round().long().clamp_(min=1)
    corner = (crop[:, :2] * extent).round().long()
    return torch.cat((torch.minimum(corner, extent - sides), sides), dim=1)


def _crop_by_loop(pixels: Tensor, draws: Draws, size_px: int) -> Tensor:
    """torch's antialiased resize for uint8, once per image: on a CPU at least four times faster than matrices."""
    images = pixels.permute(0, 3, 1, 2)  # (b, 3, h, w), in memory channels last
    views = torch.empty((len(pixels), 3, size_px, size_px), dtype=torch.uint8).contiguous(
        memory_format=torch.channels_last
    )
    for index, (top, left, height, width) in enumerate(_boxes(draws.crop, *pixels.shape[1:3]).tolist()):
        part = images[index : index + 1, :, top : top + height, left : left + width]
        views[index] = F.interpolate(part, (size_px, size_px), mode="bilinear", antialias=True)[0]
    views = views.contiguous()  # from here on channels first
    for dimension, flip in ((3, draws.flip_horizontal), (2, draws.flip_vertical)):
        flipped = torch.nonzero(flip)[:, 0]
        views[flipped] = views[flipped].flip(dimension)
    return views.float().div_(255)


def _crop_by_matrices(pixels: Tensor, draws: Draws, size_px: int) -> Tensor:
    """The same as two products of matrices for the whole batch, without a loop: rows first, then columns."""
    count, height_px, width_px, _ = pixels.shape
    top, left, height, width = _boxes(draws.crop, height_px, width_px).to(pixels.device).unbind(1)
    rows = _resize_matrix(top, height, height_px, size_px, draws.flip_vertical.to(pixels.device))
    columns = _resize_matrix(left, width, width_px, size_px, draws.flip_horizontal.to(pixels.device))
    images = rows @ pixels.reshape(count, height_px, width_px * 3).float()  # (b, size, w * 3)
    images = images.view(count, size_px, width_px, 3).permute(0, 3, 1, 2).reshape(count, 3 * size_px, width_px)
    images = (images @ columns.transpose(1, 2)).div_(255).clamp_(0, 1)  # (b, 3 * size, size)
    return images.view(count, 3, size_px, size_px)


def _resize_matrix(start: Tensor, length: Tensor, extent_px: int, size_px: int, flip: Tensor) -> Tensor:
    """Weights (b, size, extent) of the triangle filter that takes `length` pixels from `start` to `size_px` pixels."""
    scale = (length / size_px)[:, None, None]
    target = torch.arange(size_px, device=start.device).expand(len(start), -1)
    target = torch.where(flip[:, None], size_px - 1 - target, target)[:, :, None]
    source = torch.arange(extent_px, device=start.device)[None, None, :] - start[:, None, None]
    distance = (source + 0.5 - (target + 0.5) * scale).abs()
    weights = (1 - distance / scale.clamp(min=1)).clamp_(min=0)
    weights *= (source >= 0) & (source < length[:, None, None])
    return weights / weights.sum(dim=2, keepdim=True)


# Color and blur, fast.


def _color_by_matrix(images: Tensor, draws: Draws) -> Tensor:
    """Brightness, then contrast, saturation, hue and gray as one 3x3 matrix and an offset for each image."""
    luma = torch.tensor(LUMA, device=images.device)
    brightness, contrast = draws.brightness.to(images.device), draws.contrast.to(images.device)
    flat = images.flatten(2).mul_(brightness[:, None, None]).clamp_(max=1)  # (b, 3, pixels)
    # Contrast moves every color away from or towards the mean luma; saturation, hue and gray leave grays alone.
    offset = (1 - contrast) * (flat.mean(dim=2) @ luma)
    matrix = _color_matrix(draws).to(images.device)
    return torch.bmm(matrix, flat).add_(offset[:, None, None]).clamp_(0, 1).view_as(images)


def _color_matrix(draws: Draws) -> Tensor:
    """(b, 3, 3): contrast, then saturation, then hue, then gray, the last by copying the row of the luma."""
    luma = torch.tensor(LUMA).expand(3, 3)  # every row gives the luma
    saturation, contrast = draws.saturation[:, None, None], draws.contrast[:, None, None]
    saturate = saturation * torch.eye(3) + (1 - saturation) * luma
    angle = 2 * math.pi * draws.hue_turns[:, None, None]
    # Rodrigues' rotation about (1, 1, 1). A third of a turn takes red to green, as a shift of HSV's hue does; between,
    # HSV keeps the largest channel and the rotation keeps the mean.
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    rotate = torch.cos(angle) * torch.eye(3) + torch.sin(angle) * cross + (1 - torch.cos(angle)) / 3
    matrix = rotate @ saturate * contrast
    return torch.where(draws.gray[:, None, None], luma @ matrix, matrix)


def _blur_by_rows_and_columns(images: Tensor, sigma_px: Tensor) -> Tensor:
    """Gaussian blur with reflected borders: images (b, 3, n, n), sigma (b,) -> (b, 3, n, n).

    One convolution along rows and one along columns, each image and channel a group of its own with its own kernel.
    Matrices of weights did the same in up to twice the time.
    """
    count, channels, height_px, width_px = images.shape
    radius_px = min(math.ceil(4 * float(sigma_px.max())), height_px - 1)
    distance = torch.arange(-radius_px, radius_px + 1) / sigma_px[:, None]
    # Every kernel ends at four of its own sigma, so that the widest in the batch does not show in the others.
    kernel = torch.exp(-0.5 * distance**2) * (distance.abs() <= 4)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)[:, None, None]
    kernel = kernel.to(images.device)  # (b * 3, 1, 1, taps)
    images = images.reshape(1, count * channels, height_px, width_px)
    images = F.conv2d(F.pad(images, (radius_px, radius_px, 0, 0), mode="reflect"), kernel, groups=count * channels)
    kernel = kernel.transpose(2, 3)
    images = F.conv2d(F.pad(images, (0, 0, radius_px, radius_px), mode="reflect"), kernel, groups=count * channels)
    return images.view(count, channels, height_px, width_px)


# Color and blur, kornia.


def _color_by_kornia(images: Tensor, draws: Draws) -> Tensor:
    """torchvision's and PIL's formulas; hue by way of HSV, which takes most of the time on a CPU."""
    from kornia import color, enhance

    images = enhance.adjust_brightness_accumulative(images, draws.brightness)
    images = enhance.adjust_contrast_with_mean_subtraction(images, draws.contrast)
    images = enhance.adjust_saturation_with_gray_subtraction(images, draws.saturation)
    images = enhance.adjust_hue(images, 2 * math.pi * draws.hue_turns)
    gray = draws.gray.to(images.device)[:, None, None, None]
    return torch.where(gray, color.rgb_to_grayscale(images), images).clamp_(0, 1)


def _blur_by_kornia(images: Tensor, sigma_px: Tensor) -> Tensor:
    from kornia.filters import gaussian_blur2d

    # Five sigma of the widest leave out less than 1e-6, so that the widest does not show in the others.
    radius_px = min(math.ceil(5 * float(sigma_px.max())), images.shape[-1] - 1)
    return gaussian_blur2d(images, 2 * radius_px + 1, sigma_px[:, None].expand(-1, 2))
