"""Divisive normalization of patch vectors: how a patch looks counts, how strongly it does counts less and less.

Distances between features are ruled by the few channels and patches that are strong: a glossy edge is farther from
another glossy edge than a scratch is from a smooth surface. So each channel is brought to one spread, and each level's
part of a patch is divided by its length plus the usual length, as neurons of the visual cortex divide by the activity
around them (Carandini and Heeger 2012, https://doi.org/10.1038/nrn3136). All levels then weigh alike.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

# Of the channels' mean spread: a channel that hardly varies is mostly rounding, and is not enlarged to what others are.
MIN_SPREAD = 0.1


def channel_statistics(vectors: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and spread of each channel (d,) over batches of patches (..., d)."""
    flat = torch.cat([batch.flatten(0, -2) for batch in vectors])
    spread = flat.std(0, correction=0)
    return flat.mean(0), spread.clamp(min=float(MIN_SPREAD * spread.mean()) or 1.0)


def normalized(vectors: Tensor, mean: Tensor, spread: Tensor, channels: Sequence[int]) -> Tensor:
    """Patches (..., d) of levels with so many `channels` each, which add up to d -> the same shape. Each level's part
    has a length of 1/2 where it is as strong as usual, and of 1 at most."""
    parts = ((vectors - mean) / spread).split(list(channels), dim=-1)
    return torch.cat([part / (part.norm(dim=-1, keepdim=True) + part.shape[-1] ** 0.5) for part in parts], dim=-1)
