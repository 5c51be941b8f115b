"""PaDiM: normals may come in parts, images have one size, and even positions count less."""

import pytest
import torch
from method_suite import predict

from baselines.contract.method import Images
from downstream.exporting.graph import InspectionGraph
from downstream.methods.fused import Fused
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


@pytest.mark.parametrize("method_class", [PaDiM, Fused])
def test_gaussians_that_would_fill_the_memory_are_shared_and_find_the_defect(method_class, nuts, monkeypatch, tmp_path):
    arguments = SMALL | {"levels": ("level2",), "reference_views": "flips"}
    own = method_class(**arguments).fit([]).refer(nuts[:7])
    assert not hasattr(own, "cells_")
    monkeypatch.setattr("downstream.methods.padim.MAX_GAUSSIAN_BYTES", 2 * 64 * 16**2 * 4 // 3 + 1)
    shared = method_class(**arguments).fit([]).refer(nuts[:7])
    assert shared.cells_.shape == (22, 3) and len(shared.gaussians_.mean) == 22
    assert len(shared.normal_scores_) == len(own.normal_scores_) == 7
    bad = nuts[8].clone()
    bad[:, 24:34, 24:34] = torch.tensor([1.0, 0, 1])[:, None, None]
    good, found = predict(shared, [nuts[8]]), predict(shared, [bad])
    assert found.scores > 1.5 * good.scores and found.scores > shared.normal_scores_.max()
    row, column = divmod(int(found.maps[0].argmax()), 64)
    assert 20 <= row < 38 and 20 <= column < 38
    # A score of a normal is that of a method that never saw it.
    others = method_class(**arguments).fit([]).refer(nuts[1:7])
    ratio = shared.normal_scores_[0] / predict(others, nuts[:1]).scores
    assert 0.8 < ratio < 1.25
    shared.save(tmp_path)
    torch.testing.assert_close(predict(method_class.load(tmp_path), [bad]).maps, found.maps)
    if method_class is Fused:
        with pytest.raises(UserError, match="share Gaussians, and such a model takes in no more"):
            shared.remember(tmp_path)
    with pytest.raises(UserError, match="share Gaussians, which is not exported"):
        InspectionGraph(shared, 64, 1.0)


def test_shared_gaussians_look_within_a_region_and_take_in_more(nuts, monkeypatch):
    monkeypatch.setattr("downstream.methods.padim.MAX_GAUSSIAN_BYTES", 2 * 64 * 16**2 * 4 // 3 + 1)
    roi = torch.zeros(64, 64, dtype=torch.bool)
    roi[8:56, 16:64] = True
    method = PaDiM(**SMALL).fit([]).look_within(roi).refer(nuts[:6])
    assert int(method.cells_.max()) == 35  # 6 x 6 patches
    painted = nuts[8].clone()
    painted[:, ~roi] = 0
    assert torch.equal(predict(method, [painted]).scores, predict(method, [nuts[8]]).scores)
    at_once = PaDiM(**SMALL).fit([]).look_within(roi).refer(nuts[:8])
    method.add(nuts[6:8])
    assert len(method.normal_scores_) == 8
    torch.testing.assert_close(
        predict(method, nuts[8:9]).scores, predict(at_once, nuts[8:9]).scores, rtol=1e-3, atol=1e-3
    )


def test_a_model_of_before_that_summed_all_patches_takes_more(nuts):
    method = PaDiM(**SMALL).fit([]).refer(nuts[:7])
    method.patch_sum_ = torch.ones(8, 8, 40)
    method.add(nuts[7:9])
    assert method.patch_sum_.shape == (8, 8, 0) and len(method.normal_scores_) == 9
