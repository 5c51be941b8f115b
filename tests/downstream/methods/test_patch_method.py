"""What patch methods share: maps against a naive reference, pooled vectors, and the encoder of a method."""

import pytest
import torch
from method_suite import predict
from torch.nn import functional as F

from baselines.contract.method import Images
from downstream.methods import patch_method
from downstream.methods.padim import PaDiM
from downstream.methods.patch_method import counted_share, highest_count, nearest_other, upsampling_matrix
from pretrain.command import UserError
from pretrain.data.dataset import load
from pretrain.encoder import Encoder

SMALL = {"dimensions": 16, "grid": 8, "levels": ("level1", "level2")}


@pytest.fixture(scope="module")
def nuts(demo_folder) -> list[torch.Tensor]:
    return list(Images(load(demo_folder, 64).of("hazelnut")))


@pytest.mark.parametrize("rows_at_once", [1024, 7])
def test_maps_are_enlarged_and_smoothed_as_one_would_by_hand(rows_at_once, monkeypatch):
    monkeypatch.setattr(patch_method, "ROWS_AT_ONCE", rows_at_once)
    upsampling_matrix.cache_clear()
    values = torch.rand(1, 1, 5, 7, generator=torch.Generator().manual_seed(0))
    down, across = (upsampling_matrix(count, 20, 0.1, torch.device("cpu")) for count in (5, 7))
    enlarged = F.interpolate(values, (20, 20), mode="bilinear")[0, 0].double()
    x = torch.arange(20, dtype=torch.float64)
    kernel = torch.exp(-((x[:, None] - x) ** 2) / (2 * 2.0**2))
    kernel /= kernel.sum(1, keepdim=True)
    found = (down @ values[0, 0] @ across.T).double()
    torch.testing.assert_close(found, kernel @ enlarged @ kernel.T, rtol=1e-5, atol=1e-6)


def test_nearest_other_leaves_each_vector_out():
    vectors = torch.tensor([[0.0], [1.0], [5.0]])
    assert nearest_other(vectors, [0, 1, 2]).tolist() == [1.0, 1.0, 4.0]
    assert nearest_other(vectors, [2]).tolist() == [4.0]
    assert len(nearest_other(vectors[:1], [0])) == 0


def test_an_image_level_distance_adds_to_the_score_in_the_units_of_normals(nuts):
    alone, both = (PaDiM(**SMALL, image_weight=w).fit([]).refer(nuts[:8]) for w in (0.0, 0.5))
    (patches, weighted) = (predict(method, nuts[8:12]) for method in (alone, both))
    torch.testing.assert_close(patches.maps, weighted.maps)
    pooled = both.patches(torch.stack(nuts[8:12])).mean((1, 2))
    expected = patches.scores / both.units_[0] + 0.5 * torch.cdist(pooled, both.pooled_).amin(1) / both.units_[1]
    torch.testing.assert_close(weighted.scores, expected, rtol=1e-4, atol=0)


def test_a_prediction_says_how_far_an_image_as_a_whole_lies_from_the_nearest_normal(nuts):
    method = PaDiM(**SMALL).fit([]).refer(nuts[:8])
    (found,) = method.predict(nuts[8:12])
    pooled = method.patches(torch.stack(nuts[8:12])).mean((1, 2))
    torch.testing.assert_close(found.distances, torch.cdist(pooled, method.pooled_).amin(1))


def test_another_encoder_than_the_one_it_was_fitted_with_is_refused(nuts, tmp_path):
    PaDiM(**SMALL).fit([]).refer(nuts[:4]).save(tmp_path)
    PaDiM.load(tmp_path)
    Encoder("resnet18", 99).save(tmp_path / "encoder.safetensors")
    with pytest.raises(UserError, match="is not the encoder that the method"):
        PaDiM.load(tmp_path)


def test_normals_of_two_sizes_are_refused(nuts):
    small = [F.interpolate(image[None], 32)[0] for image in nuts[:16]]
    with pytest.raises(UserError, match="32x32 pixels and 64x64 pixels: give them one size"):
        PaDiM(**SMALL).fit([]).refer([*nuts[:16], *small])


@pytest.mark.parametrize("shape", [(384, 384), (640, 640), (224, 672), (456, 904)])
def test_up_to_the_pixels_of_640_px_maps_and_scores_are_shares_of_the_image(shape):
    method = PaDiM(encoder="random", architecture="timm/test_resnet", dimensions=8).fit([])
    method.refer(torch.rand(3, 3, *shape, generator=torch.Generator().manual_seed(0)))
    assert not hasattr(method, "cells_") and method.patch_sum_.shape[:2] == (28, 28)
    maps = torch.rand(1, *shape, generator=torch.Generator().manual_seed(1))
    expected = maps.flatten().sort().values[-round(0.01 * maps.numel()) :].mean()
    torch.testing.assert_close(method._highest(maps), expected[None])
    point = torch.zeros(1, 28, 28)
    point[0, 14, 14] = 1
    down, across = (upsampling_matrix(28, side, method.blur, torch.device("cpu")) for side in shape)
    assert torch.equal(method._maps(point, shape), down @ point @ across.T)


def test_of_a_larger_image_as_much_counts_as_of_one_of_640_px():
    shape = (1280, 640)
    assert highest_count(0.01, 1280 * 640, shape) == highest_count(0.01, 640**2, (640, 640)) == 4096
    assert counted_share(shape) == pytest.approx(0.5**0.5)
    assert highest_count(0.01, 1000, shape) == 10  # of a small region all


def test_a_model_of_large_images_that_was_fitted_before_they_were_judged_as_now_is_refused(nuts, tmp_path, monkeypatch):
    PaDiM(**SMALL).fit([]).refer(nuts[:4]).save(tmp_path)
    monkeypatch.setattr(patch_method, "LARGE_PX", 32)  # as if it had been of large ones, and had not said so
    with pytest.raises(UserError, match="judged images above 32 px otherwise: fit it again"):
        PaDiM.load(tmp_path)
    PaDiM(**SMALL).fit([]).refer(nuts[:4]).save(tmp_path)
    assert predict(PaDiM.load(tmp_path), nuts[4:6]).scores.shape == (2,)
