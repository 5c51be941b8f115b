"""The coreset against the slow way, one vector at a time."""

import pytest
import torch

from downstream.methods import coreset as module
from downstream.methods.coreset import Chosen, Coresets, coreset, squared_distances


def clustered(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centers = 3 * torch.randn(12, 6, generator=generator)
    return centers[torch.randint(12, (count,), generator=generator)] + torch.randn(count, 6, generator=generator)


def slowly(vectors: torch.Tensor, count: int, first: int) -> list[int]:
    taken = [first]
    while len(taken) < count:
        distances = torch.cdist(vectors.double(), vectors[taken].double()).amin(1)
        taken.append(int(distances.argmax()))
    return taken


@pytest.mark.parametrize("pool", [4, 32, 4096])
def test_takes_what_the_slow_way_takes(pool, monkeypatch):
    monkeypatch.setattr(module, "POOL", pool)
    vectors = clustered(600)
    taken = coreset(vectors, 80).tolist()
    assert taken == slowly(vectors, 80, taken[0])


def test_all_are_taken_where_all_are_asked_for():
    vectors = clustered(50)
    assert sorted(coreset(vectors, 1000).tolist()) == list(range(50))


def test_copies_are_taken_once():
    vectors = clustered(20).repeat(5, 1)
    assert len(coreset(vectors, 60)) == 20


def test_tells_how_far_it_is_and_depends_on_its_seed_alone():
    told = []
    vectors = clustered(300)
    torch.manual_seed(1)
    first = coreset(vectors, 70, seed=3, advance=told.append)
    torch.manual_seed(2)
    assert torch.equal(first, coreset(vectors, 70, seed=3))
    assert sum(told) == 70
    assert not torch.equal(first, coreset(vectors, 70, seed=4))


def test_squared_distances_are_those_of_a_subtraction():
    first, second = clustered(30), clustered(20, seed=1)
    expected = (first[:, None] - second).square().sum(2)
    torch.testing.assert_close(squared_distances(first, second), expected, rtol=1e-4, atol=1e-4)


def test_what_was_taken_earlier_counts():
    """Chosen in two steps is chosen in one, but for the first."""
    vectors = torch.randn(300, 5, generator=torch.Generator().manual_seed(0))
    whole = coreset(vectors, 40)
    earlier, rest = vectors[whole[:10]], torch.tensor([i for i in range(300) if i not in set(whole[:10].tolist())])
    apart = squared_distances(vectors[rest], earlier).amin(1)
    assert rest[coreset(vectors[rest], 30, apart=apart)].tolist() == whole[10:].tolist()


def radius(vectors: torch.Tensor, chosen: torch.Tensor) -> float:
    """How far the farthest of all lies from the nearest chosen one."""
    return float(torch.cdist(vectors, chosen).amin(1).max())


@pytest.mark.parametrize("parts", [1, 4, 20])
def test_a_coreset_of_coresets_leaves_little_more_uncovered_than_one(parts, monkeypatch):
    """20 of them are chosen from three times. Chosen at random, as many leave half as much again."""
    vectors = clustered(6000)
    owners = torch.arange(6000) // 10
    coresets, apart = Coresets(200), []
    for some, of in zip(vectors.chunk(parts), owners.chunk(parts), strict=True):
        kept = coreset(some, 200)
        apart.append(radius(some, some[kept]))
        coresets.add(Chosen(some[kept], of[kept], len(some)))
    merged = coresets.merged(200)
    assert len(merged.vectors) == 200 and merged.looked_at == 6000
    is_same = (vectors[:, None] == merged.vectors).all(2)  # (6000, 200)
    assert torch.equal(owners[is_same.int().argmax(0)], merged.owners) and is_same.any(0).all()
    once, drawn = radius(vectors, vectors[coreset(vectors, 200)]), radius(vectors, vectors[:200])
    found = radius(vectors, merged.vectors)
    assert found <= 1.3 * once < drawn and found < drawn
    assert parts > 1 or found == once


def test_few_coresets_are_kept_at_once_however_many_come():
    coresets, most = Coresets(10), 0
    for number in range(600):
        coresets.add(Chosen(torch.full((10, 2), float(number)), torch.zeros(10), 10))
        most = max(most, sum(len(rank) for rank in coresets._ranks))
    assert most <= 7 * 4
