"""Contrast between positions: a feature map at one position must be the same in two views of it, and different
from the map at every other position, and at the same one with a synthetic anomaly.

SimCLR contrasts whole images, and learns to overlook what is local; defects are local. Here two views show the SAME
crop in other colors, so that a spot of the product is found again at the same position of the map (Wang et al. 2021,
https://arxiv.org/abs/2011.09157, find it by similarity instead). Negatives by synthetic anomalies follow SPD (Zou et
al. 2022, https://arxiv.org/abs/2207.14315), there of whole images.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.loss import Contrast, nt_xent
from pretrain.random_numbers import uniforms
from pretrain.training.device import transferred

# Of each image, on each level. All positions of a batch would make the matrix of logits a thousand times larger.
POSITIONS_ANYWHERE = 8
POSITIONS_IN_MASK = 4


class Positions:
    """Which positions of a map take part: as many of every image, so that ranks bring equal batches."""

    def __init__(self, seed: int, step: int, positions: Sequence[int] | np.ndarray, device: torch.device) -> None:
        # The key is a part of the stream: spelled otherwise, every seed would contrast other positions.
        chance = uniforms(positions, POSITIONS_ANYWHERE, seed, step, "places")
        self.chance = transferred(torch.from_numpy(chance), device)  # (b, POSITIONS_ANYWHERE)

    def anywhere(self, count: int) -> Tensor:
        """(b, p) indices below `count`, drawn at random."""
        return (self.chance * count).long()

    def in_masks(self, masks: Tensor, shape: tuple[int, int]) -> Tensor:
        """(b, k) indices of the positions that a mask covers most; one that covers few has them repeated."""
        cover = F.adaptive_avg_pool2d(masks[:, None].float(), shape).flatten(1)  # (b, h w)
        most, indices = cover.topk(min(POSITIONS_IN_MASK, cover.shape[1]), dim=1)
        return torch.where(most >= 0.5 * most[:, :1], indices, indices[:, :1])


class DenseContrast(nn.Module):
    """A projection of each of some feature levels, and NT-Xent between their positions."""

    def __init__(self, channels: Mapping[str, int], width: int = 256, dimensions: int = 64) -> None:
        super().__init__()
        self.projections = nn.ModuleDict(
            {
                level: nn.Sequential(
                    nn.Conv2d(count, width, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, dimensions, 1)
                )
                for level, count in channels.items()
            }
        )

    def forward(
        self, features: Mapping[str, Tensor], masks: Tensor | None, drawn: Positions, temperature: float
    ) -> Contrast:
        """Mean over the levels.

        `features` of two views of the same b crops, and of the second one with synthetic anomalies if there are
        `masks`, one after another: (2b or 3b, c, h, w). `masks` bool (b, H, W).
        """
        contrasts = []
        for level, projection in self.projections.items():
            maps = projection(features[level]).flatten(2)  # (2b or 3b, d, h w)
            maps = maps.to(torch.promote_types(maps.dtype, torch.float32))  # not half, but float64 stays
            views = maps.unflatten(0, (-1, len(drawn.chance)))  # (2 or 3, b, d, h w)
            chosen = drawn.anywhere(maps.shape[-1])  # (b, p)
            if masks is not None:
                anomalous = drawn.in_masks(masks, features[level].shape[-2:])  # (b, k)
                chosen = torch.cat([chosen, anomalous], dim=1)
                negatives = _rows(views[2], anomalous)
            first, second = _rows(views[0], chosen), _rows(views[1], chosen)  # (b (p + k), d)
            contrasts.append(nt_xent(first, second, temperature, None if masks is None else negatives))
        loss, accuracy = (torch.stack(part).mean() for part in zip(*contrasts, strict=True))
        return Contrast(loss, accuracy)


def _rows(maps: Tensor, indices: Tensor) -> Tensor:
    """The vectors at `indices` (b, n) of maps (b, d, h w) -> (b n, d)."""
    picked = maps.gather(2, indices[:, None].expand(-1, maps.shape[1], -1))  # (b, d, n)
    return picked.transpose(1, 2).flatten(0, 1)
