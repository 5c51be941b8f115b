"""Mutual scores against a naive form over all pairs, and the rule by which outliers are left out."""

import numpy as np
import pytest
import torch

from baselines.contract.method import Images
from downstream.methods.mutual import Mutual, check_contamination, clear_outliers, nearest_patch
from pretrain.command import UserError
from pretrain.data.dataset import load

SMALL = {"encoder": "random", "architecture": "timm/test_resnet", "grid": 4, "levels": ("level1", "level2")}


@pytest.fixture(scope="module")
def nuts(demo_folder) -> list[torch.Tensor]:
    return list(Images(load(demo_folder, 64).of("hazelnut")))[:12]


def blotched(image: torch.Tensor) -> torch.Tensor:
    image = image.clone()
    image[:, 16:32, 16:32] = torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1)
    return image


def left_out(method, images):
    batches = list(method.fit([]).refer(images).each_left_out(images))
    return torch.cat([batch.scores for batch in batches]), torch.cat([batch.maps for batch in batches])


def test_a_score_is_the_mean_over_the_lowest_share_of_images(nuts):
    method = Mutual(**SMALL, lowest_share=0.4, blur=1e-6).fit([]).refer(nuts)
    patches = [method._projected(method.patches(image[None])[0].flatten(0, 1)).double() for image in nuts]
    for own in (0, 11):
        apart = torch.stack([torch.cdist(patches[own], p).amin(1) for i, p in enumerate(patches) if i != own])
        expected = apart.sort(dim=0).values[:4].mean(0)  # 0.4 of 11
        number = method.compared_.index(own)
        found = method._mutual(patches[own].float(), number).double()
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_distances_are_to_the_nearest(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    patches, others = torch.randn(7, 5, generator=generator), torch.randn(9, 5, generator=generator)
    expected = (patches[:, None] - others).norm(dim=2).amin(1)
    torch.testing.assert_close(nearest_patch(patches, others), expected, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr("downstream.methods.mutual.PRODUCTS_AT_ONCE", 20)  # two at a time
    torch.testing.assert_close(nearest_patch(patches, others), expected, rtol=1e-4, atol=1e-4)


def test_two_copies_of_a_defect_do_not_vouch_for_each_other(nuts):
    images = [*nuts, blotched(nuts[0]), blotched(nuts[0])]
    scores, maps = left_out(Mutual(**SMALL), images)
    assert set(scores.argsort(descending=True)[:2].tolist()) == {12, 13}
    row, column = divmod(int(maps[12].argmax()), 64)
    assert 12 <= row < 36 and 12 <= column < 36
    # With the nearest image alone each of them is as normal as can be.
    nearest, _ = left_out(Mutual(**SMALL, lowest_share=0.01), images)
    assert nearest[12:].max() < nearest[1:12].min()


def test_memory_is_that_of_the_images_compared_with(nuts):
    method = Mutual(**SMALL, against=5)
    scores, _ = left_out(method, [*nuts, blotched(nuts[0])])
    assert method.patches_.shape[:2] == (5, 16) and len(scores) == 13
    assert scores.argmax() == 12


def test_what_is_left_out_is_clear_and_at_most_the_share():
    generator = np.random.default_rng(0)
    scores = np.append(generator.lognormal(0, 0.1, 94), [3.0, 5.0, 4.0, 6.0, 7.0, 8.0])
    assert clear_outliers(scores, 0.03) == [99, 98, 97]
    assert set(clear_outliers(scores, 0.2)[:6]) == set(range(94, 100)) and len(clear_outliers(scores, 0.2)) <= 7
    assert clear_outliers(scores, 0.0) == []
    falsely = [len(clear_outliers(generator.lognormal(0, 0.3, 200), 0.2)) for _ in range(200)]
    assert np.mean(falsely) < 1  # of 200, where none is an outlier


@pytest.mark.parametrize("share", [-1, 0.5, 0.6, float("nan")])
def test_a_share_from_half_on_is_a_mistake(share):
    check_contamination(0.49)
    with pytest.raises(UserError, match="--allow-contamination .* cannot be: give 0 or more"):
        check_contamination(share)


def test_what_lies_outside_of_a_region_of_interest_is_not_compared(nuts):
    roi = torch.zeros(64, 64, dtype=torch.bool)
    roi[:, 32:] = True  # the blot is at the left
    images = [*nuts, blotched(nuts[0])]
    scores, maps = left_out(Mutual(**SMALL).look_within(roi), images)
    assert scores[12] < scores[:12].max() and not maps[:, :, :32].any()
