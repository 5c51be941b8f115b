"""PaDiM and PatchCore fused: the sum of both, in units of left-out normals; few normals trust the Gaussians less."""

import pytest
import torch

from baselines.contract.method import Images
from downstream.methods.fused import FEW, Fused
from downstream.methods.padim import PaDiM
from downstream.methods.patchcore import PatchCore
from pretrain.command import UserError
from pretrain.data.dataset import load
from pretrain.files import read_tensors

SMALL = {"grid": 8, "levels": ("level1", "level2")}


@pytest.fixture(scope="module")
def nuts(demo_folder) -> list[torch.Tensor]:
    return list(Images(load(demo_folder, 64).of("hazelnut")))


def test_distances_are_those_of_both_in_their_units(nuts):
    fused = Fused(**SMALL).fit([]).refer(nuts[:8])
    padim = PaDiM(**SMALL, dimensions=None, normalize=True).fit([]).refer(nuts[:8])  # whatever the axes, if it has all
    patchcore = PatchCore(**SMALL).fit([]).refer(nuts[:8])
    vectors = fused.patches(torch.stack(nuts[8:12]))
    gaussian, nearest = fused.fusion_
    expected = gaussian * padim.distances(vectors) + nearest * patchcore.distances(vectors)
    torch.testing.assert_close(fused.distances(vectors), expected, rtol=1e-5, atol=0)


def test_left_out_normals_give_each_part_the_mean_that_it_counts(nuts):
    fused = Fused(**SMALL, gaussian_weight=0.6).fit([]).refer(nuts[:8])
    patchcore = PatchCore(**SMALL).fit([]).refer(nuts[:8])
    left_out = patchcore._each_left_out(nuts[:8], range(8))
    assert float(left_out.mean() * fused.fusion_[1]) == pytest.approx(1, rel=1e-5)
    kept = []
    padim = PaDiM(**SMALL, dimensions=None, normalize=True)
    for views in padim._views_of_normals(nuts[:8]):
        padim._add_to_sums(views, kept)
    assert float(padim._fit_gaussians(kept).mean() * fused.fusion_[0]) == pytest.approx(0.6 * 8 / (8 + FEW), rel=1e-5)


def test_of_a_single_normal_only_the_nearest_patch_counts(nuts):
    alone, patchcore = (cls(**SMALL).fit([]).refer(nuts[:1]) for cls in (Fused, PatchCore))
    vectors = alone.patches(torch.stack(nuts[8:10]))
    torch.testing.assert_close(alone.distances(vectors), patchcore.distances(vectors))


def test_further_normals_are_refused(nuts):
    with pytest.raises(UserError, match="refer to all of them"):
        Fused(**SMALL).fit([]).refer(nuts[:4]).add(nuts[4:6])


def test_its_file_lacks_the_sums_that_only_further_normals_would_need(nuts, tmp_path):
    files = []
    for cls in (PaDiM, Fused):
        cls(**SMALL, dimensions=40).fit([]).refer(nuts[:4]).save(tmp_path / cls.__name__)
        files.append(read_tensors(tmp_path / cls.__name__ / "method.safetensors")[0])
    assert "second_" in files[0] and "second_" not in files[1]
    assert "whitening_" in files[1]
