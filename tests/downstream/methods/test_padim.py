"""PaDiM: normals may come in parts, images have one size, and even positions count less."""

import pytest
import torch
from method_suite import predict

from baselines.contract.method import Images
from downstream.methods.padim import PaDiM
from pretrain.command import UserError
from pretrain.data.dataset import load

SMALL = {"dimensions": 16, "grid": 8, "levels": ("level1", "level2")}


@pytest.fixture(scope="module")
def nuts(demo_folder) -> list[torch.Tensor]:
    return list(Images(load(demo_folder, 64).of("hazelnut")))


def test_normals_in_parts_are_as_all_at_once(nuts):
    once = PaDiM(**SMALL).fit([]).refer(nuts[:12])
    parts = PaDiM(**SMALL).fit([]).refer(nuts[:7]).add(nuts[7:12])
    torch.testing.assert_close(predict(parts, nuts[12:]).scores, predict(once, nuts[12:]).scores, rtol=1e-4, atol=1e-4)
    assert len(parts.normal_scores_) == len(once.normal_scores_) == 12


def test_images_of_another_size_are_refused(nuts):
    method = PaDiM(**SMALL | {"grid": None}).fit([]).refer(nuts[:4])
    with pytest.raises(UserError, match="another size than the normals, 64x64"):
        predict(method, [nuts[5][:, :32, :32]])


def test_positions_where_normals_hardly_vary_count_less(nuts):
    """By the formula, and with --options variance_weight=0, as published, all count alike."""
    weighted = PaDiM(**SMALL).fit([]).refer(nuts[:12])
    variances = weighted.moments_.variances()
    expected = (variances / (variances + variances.mean())).sqrt().float().view(8, 8)
    torch.testing.assert_close(weighted.position_weights_, expected)
    assert weighted.position_weights_.min() < weighted.position_weights_.max() < 1
    published = PaDiM(**SMALL, variance_weight=0.0).fit([]).refer(nuts[:12])
    assert (published.position_weights_ == 1).all()


def test_gaussians_that_fill_the_memory_are_refused(nuts, monkeypatch):
    monkeypatch.setattr("downstream.methods.padim.MAX_GAUSSIAN_BYTES", 2 * 64 * 16**2 * 4 - 1)
    with pytest.raises(UserError, match="16 dimensions at 64 positions .*grid=64.*patchcore"):
        PaDiM(**SMALL).fit([]).refer(nuts[:4])
    monkeypatch.setattr("downstream.methods.padim.MAX_GAUSSIAN_BYTES", 2 * 64 * 16**2 * 4)
    PaDiM(**SMALL).fit([]).refer(nuts[:4])


def test_a_model_of_before_that_summed_all_patches_takes_more(nuts):
    method = PaDiM(**SMALL).fit([]).refer(nuts[:7])
    method.patch_sum_ = torch.ones(8, 8, 40)
    method.add(nuts[7:9])
    assert method.patch_sum_.shape == (8, 8, 0) and len(method.normal_scores_) == 9
