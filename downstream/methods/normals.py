"""What normals say of each other: some of them that are spread over all, and how far each lies from the others."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from baselines.contract.method import CPU, LEARNING_BATCH, batches

# Normals that say what channels usually show: 50,000 patches.
MAX_FOR_CHANNELS = 32
# Normals that are scored without their own patches, spread over all.
MAX_LEFT_OUT = 200


def evenly(count: int, most: int) -> list[int]:
    """At most so many of `count` positions, spread over all."""
    return torch.linspace(0, count - 1, min(count, most)).long().tolist()


def spread_over(normals: Sequence[Tensor], most_pixels: int | None) -> Iterator[Tensor]:
    """Batches of up to MAX_FOR_CHANNELS normals, spread over all."""
    some = (normals[i] for i in evenly(len(normals), MAX_FOR_CHANNELS))
    return batches(some, LEARNING_BATCH, CPU, True, most_pixels)


def nearest(vectors: Tensor, others: Tensor) -> Tensor:
    """Distances of vectors (b, d) to the nearest of `others` (n, d): (b,)."""
    return torch.cdist(vectors, others, compute_mode="donot_use_mm_for_euclid_dist").amin(1)


def nearest_other(vectors: Tensor, positions: Sequence[int]) -> Tensor:
    """Distances of the vectors (n, d) at `positions` to the nearest of all others: none where there are no others."""
    if len(vectors) < 2:
        return vectors.new_empty(0)
    distances = torch.cdist(vectors[positions], vectors, compute_mode="donot_use_mm_for_euclid_dist")
    distances[torch.arange(len(positions)), positions] = torch.inf
    return distances.amin(1)


def units_of(highest: Tensor, image_distances: Tensor) -> Tensor:
    """In what units scores of maps and distances of whole images count: their means over left-out normals (n,), as
    (2,). 1 where there are no two."""
    if len(highest) < 2:
        return highest.new_ones(2)
    return torch.stack([highest.mean(), image_distances.mean()]).clamp(min=1e-12)
