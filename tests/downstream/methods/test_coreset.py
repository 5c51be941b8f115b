"""The coreset against the slow way, one vector at a time."""

import pytest
import torch

from downstream.methods import coreset as module
from downstream.methods.coreset import coreset, squared_distances


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
