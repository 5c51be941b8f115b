"""Some of the normals, and how far each lies from the others."""

import torch

from downstream.methods.normals import evenly, nearest, nearest_other, spread_over, units_of


def test_nearest_other_leaves_each_vector_out():
    vectors = torch.tensor([[0.0], [1.0], [5.0]])
    assert nearest_other(vectors, [0, 1, 2]).tolist() == [1.0, 1.0, 4.0]
    assert nearest_other(vectors, [2]).tolist() == [4.0]
    assert len(nearest_other(vectors[:1], [0])) == 0


def test_some_are_spread_over_all():
    assert evenly(3, 8) == [0, 1, 2] and evenly(9, 3) == [0, 4, 8]
    images = [torch.full((3, 2, 2), float(number)) for number in range(65)]
    seen = torch.cat(list(spread_over(images, None)))[:, 0, 0, 0]
    assert len(seen) == 32 and seen[0] == 0 and seen[-1] == 64 and (seen.diff() >= 2).all()


def test_distances_count_in_units_of_several_normals_and_as_they_are_of_one():
    assert nearest(torch.tensor([[0.0]]), torch.tensor([[3.0], [-2.0]])).tolist() == [2.0]
    assert units_of(torch.tensor([1.0, 3.0]), torch.tensor([4.0, 6.0])).tolist() == [2.0, 5.0]
    assert units_of(torch.tensor([7.0]), torch.tensor([])).tolist() == [1.0, 1.0]
