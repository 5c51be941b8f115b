"""SimCLR's contrastive views: two random versions of one image, which the encoder must recognize as the same.

`Strengths` (config.py) says how far they may differ, `draw` turns that into one row of numbers for each image, and
`render` turns pixels and numbers into images, by the five augmentations below. The numbers depend on nothing but seed,
step, view and an image's position in the global batch, so a resumed run, two ranks or another device see the same
views.

Color, gray and blur are kornia's, in one batch on the GPU. On a CPU `views_cpu.py` does them several times faster.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from kornia import color, enhance
from kornia.filters import filter2d_separable, get_gaussian_kernel1d
from torch import Tensor

from pretrain.config import Strengths
from pretrain.random_numbers import uniforms
from pretrain.training.device import transferred
from pretrain.views_cpu import blur_separably, crop_by_loop, recolor

BACKENDS = ("fast", "kornia")
CROP_ATTEMPTS = 10


class Draws(NamedTuple):
    """What happens to each image of a batch, one row an image: drawn on the CPU, whatever the images' device."""

    crop: Tensor  # (b, 4) float32: top, left, height, width as shares of the image
    flip_horizontal: Tensor  # (b,) bool
    flip_vertical: Tensor  # (b,) bool
    brightness: Tensor  # (b,) float32 factor, 1 leaves the image as it is; so do contrast and saturation
    contrast: Tensor
    saturation: Tensor
    hue_turns: Tensor  # (b,) float32, 0 leaves the image as it is
    gray: Tensor  # (b,) bool
    blur_sigma_px: Tensor  # (b,) float32 in pixels of the view, 0 for none

    def on(self, device: torch.device) -> "Draws":
        """The same on a device, in one transfer. `blur_sigma_px` stays in main memory: how many images are blurred, and
        how widely, decides shapes, and to ask a GPU for them would be to wait for it."""
        if device.type == "cpu":
            return self
        flags = (self.flip_horizontal, self.flip_vertical, self.gray)
        factors = (self.brightness, self.contrast, self.saturation, self.hue_turns)
        columns = [column.float()[:, None] for column in (*factors, *flags)]
        crop, *moved = transferred(torch.cat([self.crop, *columns], dim=1), device).split([4, *[1] * len(columns)], 1)
        *factors, across, down, gray = (column[:, 0] for column in moved)
        return Draws(crop, across > 0, down > 0, *factors, gray > 0, self.blur_sigma_px)


Augmentation = Callable[[Tensor, Draws], Tensor]


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
    `draw(..., view=0)` show the same crop in other colors, as dense contrast needs.
    """
    count = len(positions)
    geometry = uniforms(
        positions, 4 * CROP_ATTEMPTS + 2, seed, step, "geometry", view if geometry_view is None else geometry_view
    )
    # Keys are a part of the stream: spelled otherwise, every seed would see other views.
    tone = uniforms(positions, 8, seed, step, "colour", view)
    geometry, tone = torch.from_numpy(geometry), torch.from_numpy(tone)
    jittered = tone[:, 0] < strengths.jitter_probability
    swing = (2 * tone[:, 1:5] - 1) * jittered[:, None]
    lowest, highest = strengths.blur_sigma_px
    sigma_px = lowest + (highest - lowest) * tone[:, 7]
    return Draws(
        crop=_crops(strengths, geometry[:, 2:].reshape(count, CROP_ATTEMPTS, 4)),
        flip_horizontal=geometry[:, 0] < strengths.flip_horizontal_probability,
        flip_vertical=geometry[:, 1] < strengths.flip_vertical_probability,
        brightness=(1 + strengths.brightness * swing[:, 0]).clamp_(min=0),
        contrast=(1 + strengths.contrast * swing[:, 1]).clamp_(min=0),
        saturation=(1 + strengths.saturation * swing[:, 2]).clamp_(min=0),
        hue_turns=strengths.hue_turns * swing[:, 3],
        gray=tone[:, 5] < strengths.gray_probability,
        blur_sigma_px=torch.where(tone[:, 6] < strengths.blur_probability, sigma_px, 0.0),
    )


def draw_pair(
    strengths: Strengths, seed: int, step: int, positions: Sequence[int] | np.ndarray, same_crop: bool = False
) -> tuple[Draws, Draws]:
    """The numbers of both views. With `same_crop` they show one crop in two colorings: only then does a position
    of the one show what the same position of the other does."""
    second = draw(strengths, seed, step, positions, view=1, geometry_view=0 if same_crop else None)
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
def render(
    pixels: Tensor,
    draws: Draws,
    size_px: int,
    backend: str | None = None,
    augmentations: Sequence[Augmentation] | None = None,
) -> Tensor:
    """Make one view of every image, on the images' device.

    pixels uint8 (b, h, w, 3) -> float32 (b, 3, size_px, size_px) in [0, 1]. Without `backend`: "fast" on the CPU,
    "kornia" elsewhere. An image's view does not depend on the rest of the batch.
    """
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3 or len(pixels) != len(draws.crop):
        raise ValueError(f"pixels must be uint8 ({len(draws.crop)}, h, w, 3), got {pixels.dtype} {tuple(pixels.shape)}")
    backend = backend or ("fast" if pixels.device.type == "cpu" else "kornia")
    if backend not in BACKENDS:
        raise ValueError(f"no backend {backend!r}; there are {', '.join(BACKENDS)}")
    crop, *others = augmentations or AUGMENTATIONS
    # Half precision is for the network: the training loop's autocast would round every product of matrices here.
    with torch.autocast(pixels.device.type, enabled=False):
        draws = draws.on(pixels.device)
        images = crop(pixels, draws, size_px)
        for augment in _fused(others) if backend == "fast" else others:
            images = augment(images, draws)
    return images


def crop_and_resize(pixels: Tensor, draws: Draws, size_px: int) -> Tensor:
    """uint8 (b, h, w, 3) -> float32 (b, 3, size_px, size_px): kornia's own crop loops, or aliases."""
    boxes = _boxes(draws.crop, *pixels.shape[1:3])
    return (crop_by_loop if pixels.device.type == "cpu" else _crop_by_matrices)(pixels, boxes, size_px)


def flip(images: Tensor, draws: Draws) -> Tensor:
    """Left to right, and for products top to bottom too."""
    for dimension, chosen in ((3, draws.flip_horizontal), (2, draws.flip_vertical)):
        if chosen.device.type == "cpu":
            flipped = torch.nonzero(chosen)[:, 0]
            images[flipped] = images[flipped].flip(dimension)
        else:  # how many there are a GPU would have to be asked
            images = torch.where(chosen[:, None, None, None], images.flip(dimension), images)
    return images


def jitter_color(images: Tensor, draws: Draws) -> Tensor:
    """torchvision's and PIL's formulas; hue by way of HSV, which takes most of the time on a CPU."""
    images = enhance.adjust_brightness_accumulative(images, draws.brightness)
    images = enhance.adjust_contrast_with_mean_subtraction(images, draws.contrast)
    images = enhance.adjust_saturation_with_gray_subtraction(images, draws.saturation)
    return enhance.adjust_hue(images, 2 * math.pi * draws.hue_turns)


def drop_color(images: Tensor, draws: Draws) -> Tensor:
    return torch.where(draws.gray[:, None, None, None], color.rgb_to_grayscale(images), images).clamp_(0, 1)


def blur(images: Tensor, draws: Draws) -> Tensor:
    """A Gaussian; not all images are blurred, and the others cost nothing."""
    return _where_blurred(images, draws, _blur_by_kornia)


# The paper's, in its order (appendix A).
AUGMENTATIONS = (crop_and_resize, flip, jitter_color, drop_color, blur)


def _fused(augmentations: Sequence[Augmentation]) -> list[Augmentation]:
    """The same for a CPU: jitter and gray in one, and a faster blur."""
    fused: list[Augmentation] = []
    for augment in augmentations:
        if augment is drop_color and fused and fused[-1] is jitter_color:
            fused[-1] = lambda images, draws: recolor(
                images, draws.brightness, draws.contrast, draws.saturation, draws.hue_turns, draws.gray
            )
        elif augment is blur:
            fused.append(lambda images, draws: _where_blurred(images, draws, blur_separably))
        else:
            fused.append(augment)
    return fused


def _where_blurred(images: Tensor, draws: Draws, blur_all: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    blurred = torch.nonzero(draws.blur_sigma_px)[:, 0]
    if len(blurred):
        chosen = transferred(blurred, images.device)
        images[chosen] = blur_all(images[chosen], draws.blur_sigma_px[blurred])
    return images


def _boxes(crop: Tensor, height_px: int, width_px: int) -> Tensor:
    """Crops in whole pixels: (b, 4) shares -> (b, 4) int64 top, left, height, width."""
    corners, sides = [], []
    for start, share, extent_px in ((crop[:, 0], crop[:, 2], height_px), (crop[:, 1], crop[:, 3], width_px)):
        side = (share * extent_px).round().long().clamp_(min=1)
        corners.append(torch.minimum((start * extent_px).round().long(), extent_px - side))
        sides.append(side)
    return torch.stack((*corners, *sides), dim=1)


def _crop_by_matrices(pixels: Tensor, boxes: Tensor, size_px: int) -> Tensor:
    """Two products of matrices for the whole batch, without a loop that a GPU would wait for: rows, then columns."""
    count, height_px, width_px, _ = pixels.shape
    top, left, height, width = boxes.unbind(1)
    rows = _resize_matrix(top, height, height_px, size_px)
    columns = _resize_matrix(left, width, width_px, size_px)
    images = rows @ pixels.reshape(count, height_px, width_px * 3).float()  # (b, size, w * 3)
    images = images.view(count, size_px, width_px, 3).permute(0, 3, 1, 2).reshape(count, 3 * size_px, width_px)
    images = (images @ columns.transpose(1, 2)).div_(255).clamp_(0, 1)  # (b, 3 * size, size)
    return images.view(count, 3, size_px, size_px)


def _resize_matrix(start: Tensor, length: Tensor, extent_px: int, size_px: int) -> Tensor:
    """Weights (b, size, extent) of the triangle filter that takes `length` pixels from `start` to `size_px` pixels."""
    scale = (length / size_px)[:, None, None]
    target = torch.arange(size_px, device=start.device)[None, :, None]
    source = torch.arange(extent_px, device=start.device)[None, None, :] - start[:, None, None]
    distance = (source + 0.5 - (target + 0.5) * scale).abs()
    weights = (1 - distance / scale.clamp(min=1)).clamp_(min=0)
    weights *= (source >= 0) & (source < length[:, None, None])
    return weights / weights.sum(dim=2, keepdim=True)


def _blur_by_kornia(images: Tensor, sigma_px: Tensor) -> Tensor:
    # Five sigma of the widest leave out less than 1e-6, so that the widest does not show in the others.
    radius_px = min(math.ceil(5 * float(sigma_px.max())), images.shape[-1] - 1)
    kernels = transferred(get_gaussian_kernel1d(2 * radius_px + 1, sigma_px[:, None]), images.device)  # (b, taps)
    return filter2d_separable(images, kernels, kernels, border_type="reflect")  # as in gaussian_blur2d
