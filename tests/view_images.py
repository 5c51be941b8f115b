"""Images to make views of, and strengths of views: SimCLR's, and none."""

import torch
import torch.nn.functional as F

from pretrain.config import Strengths

SIMCLR = Strengths()
NOTHING = Strengths(
    crop_area=(1, 1),
    crop_aspect=(1, 1),
    flip_horizontal_probability=0,
    jitter_probability=0,
    gray_probability=0,
    blur_probability=0,
)


def make_images(count: int, height_px: int = 96, width_px: int = 96) -> torch.Tensor:
    """Smooth images with some grain, as muted in color as products are, uint8 (count, h, w, 3)."""
    generator = torch.Generator().manual_seed(7)
    coarse = torch.rand((count, 3, 8, 8), generator=generator)
    coarse = torch.lerp(coarse.mean(dim=1, keepdim=True), coarse, 0.4)
    smooth = F.interpolate(coarse, (height_px, width_px), mode="bicubic")
    grain = 0.1 * (torch.rand(smooth.shape, generator=generator) - 0.5)
    return (smooth + grain).clamp(0, 1).mul(255).byte().permute(0, 2, 3, 1).contiguous()


def as_images(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.permute(0, 3, 1, 2).float() / 255
