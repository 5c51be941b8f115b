"""Pairs to learn from and to evaluate on."""

import pytest
import torch
from pair_folders import smooth

from baselines.contract.method import Pair
from baselines.restoration.pairs import CroppedPairs, DegradedImages, SyntheticPairs, check_pair, good_images, shuffled
from pretrain.command import UserError
from pretrain.data.dataset import load


def test_synthetic_pairs_have_the_defect_in_the_clean_image():
    pairs = SyntheticPairs(smooth(3, 48, 48), "mild", 32, 10, 0, "cpu")
    degraded, clean, masks = pairs.batch(range(6))
    assert degraded.shape == clean.shape == (6, 3, 32, 32) and masks.shape == (6, 32, 32)
    assert masks.any(dim=(1, 2)).all() and not torch.equal(degraded, clean)
    # Good images here are smooth: a mask's edge is a jump that they do not have.
    again = SyntheticPairs(smooth(3, 48, 48), "mild", 32, 10, 0, "cpu")
    for position in (0, 5):
        for one, part in zip(again[position], (degraded, clean, masks), strict=True):
            torch.testing.assert_close(one, part[position])
    assert len(pairs) == 10
    with pytest.raises(IndexError):
        pairs[10]


def test_every_epoch_sees_every_image_and_no_pair_comes_twice():
    pairs = SyntheticPairs(smooth(5, 32, 32), "mild", 32, 100, 0, "cpu")
    assert sorted(shuffled(i, 5, 0) for i in range(5)) == list(range(5))
    assert [shuffled(i, 5, 0) for i in range(50)] != [shuffled(i + 5, 5, 0) for i in range(50)]
    clean = pairs.batch(range(20)).clean.flatten(1)
    assert (torch.cdist(clean, clean) + torch.eye(20) > 0).all()


def test_crops_must_fit_and_there_must_be_images():
    with pytest.raises(UserError, match="choose crop_px from 32 to 40"):
        SyntheticPairs(smooth(1, 40, 50), "mild", 48, 10, 0, "cpu")
    with pytest.raises(UserError, match="no good images"):
        SyntheticPairs([], "mild", 32, 10, 0, "cpu")
    with pytest.raises(UserError, match="no pairs"):
        CroppedPairs([], 32, 0)


def test_crops_of_a_pair_are_of_the_same_position():
    image = smooth(1, 50, 60)[0]
    mask = image[0] > 0.5
    batch = CroppedPairs([Pair(image, image, mask)], 32, 0).batch(range(8))
    assert torch.equal(batch.degraded, batch.clean)
    assert torch.equal(batch.masks, batch.clean[:, 0] > 0.5)
    assert len({tuple(part.flatten()[:4].tolist()) for part in batch.clean}) == 8


def test_test_images_are_degraded_by_their_content_and_keep_their_masks(demo_folder):
    images = load(demo_folder, 64, ("bottle",))
    tests = images.subset([i for i, record in enumerate(images.records) if record.split == "test"])
    first = list(DegradedImages(tests, "medium"))
    turned = list(DegradedImages(tests.subset(range(len(tests))[::-1]), "medium"))[::-1]
    for one, other, record in zip(first, turned, tests.records, strict=True):
        assert one.name == other.name and (demo_folder / one.name).with_suffix(".png") == record.path
        assert torch.equal(one.pair.degraded, other.pair.degraded)
        assert one.pair.mask.any() == record.is_anomaly  # a good image has an empty mask, not an unknown one
    assert not torch.equal(DegradedImages(tests, "medium", 1)[0].pair.degraded, first[0].pair.degraded)
    assert len(good_images(images)) == 18


def test_masks_of_another_size_are_refused():
    image = torch.rand(3, 10, 12)
    with pytest.raises(UserError, match="mask is 10x12 and its image 12x10"):
        check_pair(Pair(image, image, torch.zeros(12, 10, dtype=torch.bool)), "a")
