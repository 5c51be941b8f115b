"""A small part of many vectors that leaves none of them far from its nearest member.

The usual way takes the vector farthest from all taken so far, again and again (Gonzalez 1985), and goes over all
vectors for each: hours for a million patches. Here the very same ones are taken, many at a time: distances only ever
fall, so as long as the farthest of a pool is as far as anything outside of it was, it is the farthest of all.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

# Distances within a pool are its square: on a CPU a smaller one takes the same vectors in two thirds to a third of the
# time. A GPU is idle between pools, so it has fewer and larger ones.
POOL, POOL_ON_GPU = 1024, 4096
# Squared distances computed at once, float32: 128 MiB.
MAX_DISTANCES = 2**25
# Of the mean squared length: nearer than this is the same vector, but for rounding.
SAME_VECTOR = 1e-6
# Picks between two looks at how far they were: looking makes a GPU wait, and a pick too many is only left out.
PICKS_AT_ONCE = 32
# Coresets of parts, of each rank, that become one of the next.
MERGED_AT_ONCE = 8


def coreset(
    vectors: Tensor,
    count: int,
    seed: int = 0,
    advance: Callable[[int], None] = lambda taken: None,
    apart: Tensor | None = None,
) -> Tensor:
    """Positions (count,) of vectors float32 (n, d), each the farthest from all before it; the first is drawn, or, with
    squared distances `apart` (n,) from vectors that were taken earlier, the farthest from those.

    Fewer come back where all others are copies of those taken. `advance` is told how many were taken, as they are.
    """
    squares = vectors.square().sum(1)
    same = SAME_VECTOR * float(squares.mean())
    if apart is None:
        chosen = torch.randint(len(vectors), (1,), generator=torch.Generator().manual_seed(seed)).to(vectors.device)
        distances = torch.full_like(squares, torch.inf)
    else:
        chosen, distances = apart.argmax()[None], apart.clone()
    taken = []
    missing, pool_size = min(count, len(vectors)), POOL if vectors.device.type == "cpu" else POOL_ON_GPU
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
        values, pool = distances.topk(min(pool_size + 1, len(vectors)))
        if values[0] <= same:
            break
        bound = max(float(values[-1]), same) if len(vectors) > pool_size else same
        chosen = pool[_farthest(vectors[pool], values, bound, missing)]
    return torch.cat(taken)


class Chosen(NamedTuple):
    """A coreset (k, d) of patches, `looked_at` of them, and the number of the normal that each is of (k,)."""

    vectors: Tensor
    owners: Tensor
    looked_at: int

    def to(self, device: torch.device | str) -> Self:
        return self._replace(vectors=self.vectors.to(device), owners=self.owners.to(device))


class Coresets:
    """Coresets of parts, as they come: MERGED_AT_ONCE become one of `most` vectors, and as many of these again. So
    memory grows with the logarithm of their number, and so does how often a vector is chosen again.

    What is chosen leaves no vector farther away than the sum of what each choice on its way left. So a part has to keep
    as many as the whole: with a tenth of each one's own, far fewer defects were found (docs/scaling.md)."""

    def __init__(self, most: int, seed: int = 0) -> None:
        self._most, self._seed = most, seed
        self._ranks: list[list[Chosen]] = []

    def add(self, chosen: Chosen, rank: int = 0) -> None:
        if rank == len(self._ranks):
            self._ranks.append([])
        self._ranks[rank].append(chosen)
        if len(self._ranks[rank]) == MERGED_AT_ONCE:
            together, self._ranks[rank] = self._ranks[rank], []
            self.add(self._merged(together, self._most), rank + 1)

    @property
    def looked_at(self) -> int:
        """How many patches there were in all."""
        return sum(chosen.looked_at for rank in self._ranks for chosen in rank)

    def merged(self, count: int) -> Chosen:
        """The coreset of all, of so many."""
        return self._merged([chosen for rank in reversed(self._ranks) for chosen in rank], count)

    def _merged(self, together: Sequence[Chosen], count: int) -> Chosen:
        vectors, owners, looked_at = zip(*together, strict=True)
        whole = Chosen(torch.cat(vectors), torch.cat(owners), sum(looked_at))
        if count >= len(whole.vectors):
            return whole
        kept = coreset(whole.vectors, count, self._seed).sort().values
        return whole._replace(vectors=whole.vectors[kept], owners=whole.owners[kept])


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """Between the rows of (n, d) and (m, d): (n, m), by one matrix product, so good to 1e-7 of the squared lengths."""
    products = torch.addmm(second.square().sum(1), first, second.T, alpha=-2)
    return products.add_(first.square().sum(1, keepdim=True)).clamp_(min=0)


def nearest_rows(vectors: Tensor, others: Tensor, count: int) -> Tensor:
    """Rows (n, count) of nearly the nearest of `others` (m, d) to each of the vectors (n, d), by matrix products."""
    step = max(1, MAX_DISTANCES // len(others))
    parts = [squared_distances(part, others).topk(count, largest=False).indices for part in vectors.split(step)]
    return torch.cat(parts)


def _farthest(vectors: Tensor, distances: Tensor, bound: float, limit: int) -> Tensor:
    """Positions in the pool of those that are farthest in turn, until the farthest is nearer than `bound`."""
    between = squared_distances(vectors, vectors)
    distances, limit = distances.clone(), min(limit, len(vectors))
    picks = torch.empty(limit, dtype=torch.long, device=vectors.device)
    reached = torch.empty(limit, device=vectors.device)
    for turn in range(limit):
        torch.max(distances, 0, keepdim=True, out=(reached[turn : turn + 1], picks[turn : turn + 1]))
        pick = picks[turn : turn + 1]
        torch.minimum(distances, between.index_select(0, pick)[0], out=distances)
        distances.index_fill_(0, pick, 0.0)
        if turn + 1 == limit or not (turn + 1) % PICKS_AT_ONCE:
            is_near = (reached[: turn + 1] < bound) | (reached[: turn + 1] <= 0)
            if is_near.any():
                return picks[: int(is_near.int().argmax())]
    return picks
