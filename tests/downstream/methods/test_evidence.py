"""A head that tells defects of one product: it learns them from drawings or without, and adds within its reach."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from downstream.methods.evidence import Evidence, Patches, inputs_of, learn_evidence, logistic, peak

PATCHES, CHANNELS = 100, 6


def images(count: int, seed: int, defect: float = 0.0, drawn: bool = False) -> Patches:
    """Patches of noise; of each image six in a row that are `defect` higher in channel 2, drawn or not."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, PATCHES, CHANNELS, generator=generator)
    places = torch.zeros(count, PATCHES, dtype=torch.bool)
    for image, start in enumerate(torch.randint(0, PATCHES - 6, (count,), generator=generator)):
        places[image, start : start + 6] = True
    inputs[..., 2] += defect * places
    return Patches(inputs, inputs[..., 2] + torch.randn(count, PATCHES, generator=generator), places & drawn)


@pytest.mark.parametrize("drawn", [True, False])
def test_it_finds_what_was_marked_in_images_that_it_has_not_seen(drawn):
    good, defective = images(20, 0), images(8, 1, defect=4, drawn=drawn)
    evidence, added = learn_evidence(good, defective, reach=2.0, seed=0)
    assert added.shape == (20, PATCHES) and added.max() <= 2 and (added == 0).float().mean() > 0.9
    later = images(30, 2, defect=4)
    found = peak(evidence.of(later.inputs)) > peak(evidence.of(images(30, 3).inputs)).quantile(0.9)
    assert found.float().mean() > 0.9


def test_where_nothing_tells_them_apart_nothing_is_added():
    evidence, added = learn_evidence(images(20, 0), images(8, 1), reach=2.0, seed=0)
    assert evidence is None and not added.any()
    assert learn_evidence(images(20, 0), images(2, 1, defect=9), 2.0, 0)[0] is None  # too few


def test_it_adds_more_for_more_within_its_reach():
    evidence = Evidence(torch.tensor([1.0, 0.0, 0.5]), low=1.0, high=3.0, reach=4.0)
    inputs = torch.tensor([[-9.0, 1], [0.5, 1], [1.5, 7], [2.5, 0], [99, 1]])
    assert evidence.of(inputs).tolist() == [0, 0, 2, 4, 4]


def test_inputs_are_what_is_left_without_the_nearest():
    assert inputs_of(torch.tensor([[1.0, 2]]), torch.tensor([[3.0, 1]])).tolist() == [[-2, 1, 2, 1]]


def test_the_head_is_a_logistic_regression():
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(300, 4)) * [1, 5, 0.1, 2] + [0, 9, 1, 0]
    labels = inputs[:, 0] + inputs[:, 1] / 5 + generator.normal(size=300) > 1.8
    weights = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())
    ours = logistic(*(torch.tensor(part).float() for part in (inputs, labels, weights)), ridge=0.01)
    scaled = (inputs - inputs.mean(0)) / inputs.std(0, ddof=1)
    theirs = LogisticRegression(C=100, tol=1e-8).fit(scaled, labels, weights)
    said = torch.tensor(inputs).float() @ ours[:-1] + ours[-1]
    assert np.abs(said.numpy() - theirs.decision_function(scaled)).max() < 0.01
