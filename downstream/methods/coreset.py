"""A small part of many vectors that leaves none of them far from its nearest member.

The usual way takes the vector farthest from all taken so far, again and again (Gonzalez 1985), and goes over all
vectors for each: hours for a million patches. Here the very same ones are taken, many at a time: distances only ever
fall, so as long as the farthest of a pool is as far as anything outside of it was, it is the farthest of all.
"""

from collections.abc import Callable

import torch
from torch import Tensor

POOL = 4096
# Squared distances computed at once, float32: 128 MiB.
MAX_DISTANCES = 2**25
# Of the mean squared length: nearer than this is the same vector, but for rounding.
SAME_VECTOR = 1e-6


def coreset(vectors: Tensor, count: int, seed: int = 0, advance: Callable[[int], None] = lambda taken: None) -> Tensor:
    """Positions (count,) of vectors float32 (n, d), each the farthest from all before it; the first is drawn.

    Fewer come back where all others are copies of those taken. `advance` is told how many were taken, as they are.
    """
    squares = vectors.square().sum(1)
    same = SAME_VECTOR * float(squares.mean())
    chosen = torch.randint(len(vectors), (1,), generator=torch.Generator().manual_seed(seed)).to(vectors.device)
    distances = torch.full_like(squares, torch.inf)
    taken = []
    missing = min(count, len(vectors))
    while True:
        taken.append(chosen)
        missing -= len(chosen)
        advance(len(chosen))
        if not missing:
            break
        step = max(1, MAX_DISTANCES // len(chosen))
        for chunk in (slice(start, start + step) for start in range(0, len(vectors), step)):
            nearest = squared_distances(vectors[chunk], vectors[chosen]).amin(1)
            torch.minimum(distances[chunk], nearest, out=distances[chunk])
        distances[chosen] = 0.0
        values, pool = distances.topk(min(POOL + 1, len(vectors)))
        if values[0] <= same:
            break
        bound = max(float(values[-1]), same) if len(vectors) > POOL else same
        chosen = pool[_farthest(vectors[pool], values, bound, missing)]
    return torch.cat(taken)


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """Between the rows of (n, d) and (m, d): (n, m), by one matrix product, so good to 1e-7 of the squared lengths."""
    products = torch.addmm(second.square().sum(1), first, second.T, alpha=-2)
    return products.add_(first.square().sum(1, keepdim=True)).clamp_(min=0)


def _farthest(vectors: Tensor, distances: Tensor, bound: float, limit: int) -> list[int]:
    """Positions in the pool of those that are farthest in turn, until the farthest is nearer than `bound`."""
    between = squared_distances(vectors, vectors)
    distances, positions = distances.clone(), []
    while len(positions) < limit:
        farthest = int(distances.argmax())
        if distances[farthest] < bound or distances[farthest] <= 0:
            break
        positions.append(farthest)
        torch.minimum(distances, between[farthest], out=distances)
        distances[farthest] = 0.0
    return positions
