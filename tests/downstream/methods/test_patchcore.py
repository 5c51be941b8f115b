"""PatchCore against brute force over all patches, with and without whitening."""

import pytest
import torch

from baselines.contract.method import Images
from downstream.methods import patchcore
from downstream.methods.patchcore import PatchCore, whitening
from pretrain.data.dataset import load

SMALL = {"dimensions": 16, "grid": 8, "levels": ("level1", "level2")}


@pytest.fixture(scope="module")
def nuts(demo_folder) -> list[torch.Tensor]:
    return list(Images(load(demo_folder, 64).of("hazelnut")))


@pytest.mark.parametrize("options", [{}, {"num_neighbors": 3}, {"whiten": True}])
def test_distances_are_to_the_nearest_of_all_patches(options, nuts):
    """So few normals that the coreset keeps every patch."""
    method = PatchCore(**SMALL, **options).fit([]).refer(nuts[:6])
    assert len(method.coreset_) == 6 * 64
    known, asked = (method.patches(torch.stack(images)).flatten(0, 2) for images in (nuts[:6], nuts[6:8]))
    center = known.mean(0)
    matrix = whitening(known - center) if method.whiten else torch.eye(16)
    apart = torch.cdist((asked - center).double() @ matrix.double(), (known - center).double() @ matrix.double())
    expected = apart.topk(method.num_neighbors, largest=False).values.mean(1)
    found = method.distances(method.patches(torch.stack(nuts[6:8]))).flatten()
    # faiss gives squares of distances to 1e-7 of the vectors' squared lengths.
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3 * float(expected.mean()))


def test_the_coreset_is_a_share_of_the_patches(nuts, monkeypatch):
    monkeypatch.setattr(patchcore, "MIN_PATCHES", 8)
    method = PatchCore(**SMALL, coreset_ratio=0.1).fit([]).refer(nuts[:6])
    assert len(method.coreset_) == round(0.1 * 6 * 64) == len(method.owners_)
    assert set(method.owners_.tolist()) <= set(range(6))


def test_whitened_vectors_are_uncorrelated_and_alike():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(4000, 5, generator=generator) @ (torch.eye(5) + 0.3 * torch.rand(5, 5, generator=generator))
    vectors -= vectors.mean(0)
    white = vectors @ whitening(vectors)
    torch.testing.assert_close(white.T.cov(), torch.eye(5), rtol=0, atol=0.15)
