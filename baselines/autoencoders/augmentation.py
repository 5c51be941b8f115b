"""Augmentations of good images, so that an auto-encoder does not learn its few images by heart.

What happens to an image is a pure function of seed, step and its position in the batch, as a run that resumes needs it.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain.command import UserError, nearest
from pretrain.random_numbers import uniforms

DEGREES, SHIFT, BRIGHTNESS = 10.0, 0.05, 0.05
# Of `flips`: the probability of each change, and how strong it then is at most.
CONTRAST_CHANCE, CONTRAST, NOISE_CHANCE, NOISE = 0.3, 0.2, 0.2, (0.01, 0.03)


def affine(images: Tensor, seed: int, step: int) -> Tensor:
    """Rotated by up to 10 degrees, shifted by up to 5 % along either side, 0.95 to 1.05 times as bright."""
    chance = _chances(images, 4, seed, step, "moved")  # a part of the seed: another word, other models
    swing = 2 * chance - 1  # (b, 4) from -1 to 1
    angle = swing[:, 0] * math.radians(DEGREES)
    across, down = swing[:, 1] * 2 * SHIFT, swing[:, 2] * 2 * SHIFT  # the grid goes from -1 to 1
    rows = (torch.stack([angle.cos(), -angle.sin(), across], 1), torch.stack([angle.sin(), angle.cos(), down], 1))
    grid = F.affine_grid(torch.stack(rows, dim=1), images.shape, align_corners=False)
    rotated = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return (rotated * (1 + BRIGHTNESS * swing[:, 3])[:, None, None, None]).clamp(0, 1)


def flips(images: Tensor, seed: int, step: int) -> Tensor:
    """Flipped and rotated by quarters, all eight ways as often; 30 % with other brightness and contrast, 20 % noisy."""
    chance = _chances(images, 8, seed, step, "flipped")
    rotated = torch.stack([
        (image.flip(-1) if flip < 0.5 else image).rot90(int(4 * turn), (-2, -1))
        for image, flip, turn in zip(images, chance[:, 0].tolist(), chance[:, 1].tolist(), strict=True)
    ])  # fmt: skip
    is_changed = (chance[:, 2] < CONTRAST_CHANCE).to(images.dtype)[:, None, None, None]
    swing = (2 * chance[:, 3:5] - 1)[..., None, None, None] * CONTRAST
    changed = rotated * (1 + swing[:, 1] * is_changed) + swing[:, 0] * is_changed
    low, high = NOISE
    deviation = torch.where(chance[:, 5] < NOISE_CHANCE, low + (high - low) * chance[:, 6], 0.0)
    noise = standard_normal(range(len(images)), images[0].numel(), seed, step, "noise").view(images.shape)
    return (changed + deviation[:, None, None, None] * noise.to(images.device)).clamp(0, 1)


def unchanged(images: Tensor, seed: int, step: int) -> Tensor:
    return images


AUGMENTATIONS = {"none": unchanged, "affine": affine, "flips": flips}


def check_augmentation(name: str) -> None:
    """Raise UserError for a name that is none."""
    if name not in AUGMENTATIONS:
        raise UserError(f"there is no augmentation {name!r}; {nearest(name, AUGMENTATIONS)}")


def standard_normal(positions: Sequence[int], columns: int, *key: int | str) -> Tensor:
    """Standard normal float32 (n, columns): row i is a pure function of `key` and positions[i]."""
    chance = torch.from_numpy(uniforms(positions, columns, *key)).clamp(min=2**-25)  # in [0, 1 - 2^-24]
    return torch.special.ndtri(chance)


def _chances(images: Tensor, columns: int, *key: int | str) -> Tensor:
    return torch.from_numpy(uniforms(range(len(images)), columns, *key)).to(images.device)
