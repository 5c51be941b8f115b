"""Degraded images and their clean ones, on disk and in memory."""

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from baselines.restoration.pair_folder import CLEAN, DEGRADED, MASKS


def smooth(count: int, height: int, width: int, seed: int = 0) -> list[torch.Tensor]:
    """Images with broad structure, float32 (3, h, w)."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return list(F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1))


def folder_of_pairs(folder, count: int = 4, size=(40, 56), masks: bool = True):
    """Real pairs in the original's layout, of two categories."""
    for category in ("bolt", "nut"):
        for number, clean in enumerate(smooth(count, *size)):
            degraded = (clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(number))).clamp(
                0, 1
            )
            mask = np.zeros(size, np.uint8)
            mask[5:15, 6:20] = 255
            for part, pixels, name in (
                (DEGRADED, degraded, f"{number:03d}.png"),
                (CLEAN, clean, f"{number:03d}.png"),
                (MASKS, mask, f"{number:03d}_mask.png"),
            ):
                if part == MASKS and not masks:
                    continue
                path = folder / category / part / "cut" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if part != MASKS:
                    pixels = (pixels * 255).round().byte().permute(1, 2, 0).numpy()
                Image.fromarray(pixels).save(path)
    return folder
