"""The augmentations of views.py on a CPU: the same views but for rounding and hue, several times faster.

Contrast, saturation, hue and gray are folded into one 3 x 3 matrix for each image. At 64 px two cores make 5 to 14
thousand views a second so, and 1.4 to 1.6 thousand by kornia. What is learned must not depend on it: a test compares.
"""

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain.training.device import transferred

LUMA = (0.299, 0.587, 0.114)


def crop_by_loop(pixels: Tensor, boxes: Tensor, size_px: int) -> Tensor:
    """torch's antialiased resize for uint8, once per image: on a CPU at least four times faster than matrices."""
    images = pixels.permute(0, 3, 1, 2)  # (b, 3, h, w), in memory channels last
    views = torch.empty((len(pixels), 3, size_px, size_px), dtype=torch.uint8).contiguous(
        memory_format=torch.channels_last
    )
    for index, (top, left, height, width) in enumerate(boxes.tolist()):
        part = images[index : index + 1, :, top : top + height, left : left + width]
        views[index] = F.interpolate(part, (size_px, size_px), mode="bilinear", antialias=True)[0]
    return views.contiguous().float().div_(255)  # from here on channels first


def recolor(
    images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue_turns: Tensor, gray: Tensor
) -> Tensor:
    """Brightness, then contrast, saturation, hue and gray as one 3x3 matrix and an offset for each image."""
    luma, *_ = _constants(images.device)
    flat = images.flatten(2).mul_(brightness[:, None, None]).clamp_(max=1)  # (b, 3, pixels)
    # Contrast moves every color away from or towards the mean luma; saturation, hue and gray leave grays alone.
    offset = (1 - contrast) * (flat.mean(dim=2) @ luma)
    matrix = _color_matrix(contrast, saturation, hue_turns, gray)
    return torch.bmm(matrix, flat).add_(offset[:, None, None]).clamp_(0, 1).view_as(images)


def _color_matrix(contrast: Tensor, saturation: Tensor, hue_turns: Tensor, gray: Tensor) -> Tensor:
    """(b, 3, 3): contrast, then saturation, then hue, then gray, the last by copying the row of the luma."""
    luma, unit, cross = _constants(contrast.device)
    luma = luma.expand(3, 3)  # every row gives the luma
    saturation, contrast = saturation[:, None, None], contrast[:, None, None]
    saturate = saturation * unit + (1 - saturation) * luma
    angle = 2 * math.pi * hue_turns[:, None, None]
    # Rodrigues' rotation about (1, 1, 1). A third of a turn takes red to green, as a shift of HSV's hue does; between,
    # HSV keeps the largest channel and the rotation keeps the mean.
    rotate = torch.cos(angle) * unit + torch.sin(angle) * cross + (1 - torch.cos(angle)) / 3
    matrix = rotate @ saturate * contrast
    return torch.where(gray[:, None, None], luma @ matrix, matrix)


@cache
def _constants(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Luma (3,), the unit matrix, and the cross product with (1, 1, 1) / sqrt(3). Once: what is made of numbers is sent
    to a GPU while the CPU waits."""
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    return torch.tensor(LUMA).to(device), torch.eye(3).to(device), cross.to(device)


def blur_separably(images: Tensor, sigma_px: Tensor) -> Tensor:
    """Gaussian blur with reflected borders: images (b, 3, n, n), sigma (b,) -> (b, 3, n, n).

    One convolution along rows and one along columns, each image and channel a group of its own with its own kernel.
    Matrices of weights did the same in up to twice the time.
    """
    count, channels, height_px, width_px = images.shape
    radius_px = min(math.ceil(4 * float(sigma_px.max())), height_px - 1)
    distance = torch.arange(-radius_px, radius_px + 1) / sigma_px[:, None]  # sigma is in main memory
    # Every kernel ends at four of its own sigma, so that the widest in the batch does not show in the others.
    kernel = torch.exp(-0.5 * distance**2) * (distance.abs() <= 4)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)[:, None, None]
    kernel = transferred(kernel, images.device)  # (b * 3, 1, 1, taps)
    images = images.reshape(1, count * channels, height_px, width_px)
    images = F.conv2d(F.pad(images, (radius_px, radius_px, 0, 0), mode="reflect"), kernel, groups=count * channels)
    kernel = kernel.transpose(2, 3)
    images = F.conv2d(F.pad(images, (0, 0, radius_px, radius_px), mode="reflect"), kernel, groups=count * channels)
    return images.view(count, channels, height_px, width_px)
