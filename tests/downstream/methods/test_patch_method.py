"""What patch methods share: pooled vectors, the encoder of a method, and what counts of images that are not large."""

import pytest
import torch
from method_suite import predict
from torch.nn import functional as F

from baselines.contract.method import Images
from downstream.methods.maps import upsampling_matrix
from downstream.methods.padim import PaDiM
from pretrain.command import UserError
from pretrain.data.dataset import load
from pretrain.encoder import Encoder

SMALL = {"dimensions": 16, "grid": 8, "levels": ("level1", "level2")}


@pytest.fixture(scope="module")
def nuts(demo_folder) -> list[torch.Tensor]:
    return list(Images(load(demo_folder, 64).of("hazelnut")))


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


def test_a_model_of_large_images_that_was_fitted_before_they_were_judged_as_now_is_refused(nuts, tmp_path, monkeypatch):
    PaDiM(**SMALL).fit([]).refer(nuts[:4]).save(tmp_path)
    monkeypatch.setattr("downstream.methods.maps.LARGE_PX", 32)  # as if it had been of large ones, and had not said so
    with pytest.raises(UserError, match="judged images above 640 px otherwise: fit it again"):
        PaDiM.load(tmp_path)
    PaDiM(**SMALL).fit([]).refer(nuts[:4]).save(tmp_path)
    assert predict(PaDiM.load(tmp_path), nuts[4:6]).scores.shape == (2,)
