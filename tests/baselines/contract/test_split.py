"""Who is held out of labeled images: stratified, disjoint, copies on one side."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from baselines.contract.method import Sample
from baselines.contract.split import split_samples
from pretrain.command import UserError


def sample(number: int, defect: str, category: str = "nut", copy_of: int | None = None) -> Sample:
    """Gray noise, a function of its number."""
    generator = torch.Generator().manual_seed(number if copy_of is None else copy_of)
    path = Path(f"data/{category}/test/{defect}/{number:03}.png")
    return Sample(torch.rand(3, 8, 8, generator=generator), int(defect != "good"), None, category, path)


@pytest.fixture(scope="module")
def training() -> list[Sample]:
    return [sample(i, "good") for i in range(40)] + [sample(100 + i, "spot") for i in range(20)]


def test_held_out_part_is_stratified_and_disjoint(training):
    others = [sample(200 + i, "good", "bolt") for i in range(20)]
    everything = [*training, *others]
    parts = split_samples(everything, seed=0)
    assert not set(parts.train) & set(parts.validation)
    assert sorted([*parts.train, *parts.validation]) == list(range(80))
    held = Counter((everything[i].category, everything[i].path.parent.name) for i in parts.validation)
    assert held == {("nut", "good"): 7, ("nut", "spot"): 4, ("bolt", "good"): 4}
    assert parts.labels.tolist() == [float(one.label) for one in everything]


def test_another_seed_holds_out_others(training):
    first, again, other = (split_samples(training, seed).validation for seed in (0, 0, 1))
    assert first == again != other


def test_copies_are_on_one_side(training):
    copies = [sample(300 + i, "good", copy_of=i) for i in range(40)]
    held = set(split_samples([*training, *copies], seed=0).validation)
    assert held & set(range(40))
    assert all((i in held) == (60 + i in held) for i in range(40))


def test_good_ones_alone_are_refused():
    with pytest.raises(UserError, match="no good ones or no defective ones"):
        split_samples([sample(i, "good") for i in range(10)], seed=0)
