"""The parts of the graph against the methods that they are taken from."""

import pytest
import torch

from baselines.contract.method import Images
from baselines.trivial import MeanImage
from downstream.exporting import graph as module
from downstream.exporting.graph import (
    CoresetDistances,
    FusedDistances,
    GaussianDistances,
    InspectionGraph,
    PatchVectors,
)
from downstream.methods.fused import Fused
from downstream.methods.padim import PaDiM
from downstream.methods.patchcore import PatchCore
from pretrain.command import UserError
from pretrain.data.dataset import load

SMALL = {"dimensions": 15, "grid": 8, "levels": ("level1", "level2")}


@pytest.fixture(scope="module")
def nuts(demo_folder) -> list[torch.Tensor]:
    return list(Images(load(demo_folder, 64).of("hazelnut")))


def test_stripes_of_a_whitening_give_the_same_distances(nuts):
    method = PaDiM(**SMALL, variance_weight=0.0).fit([]).refer(nuts[:8])
    vectors = method.patches(torch.stack(nuts[8:11]))
    torch.testing.assert_close(GaussianDistances(method)(vectors), method.distances(vectors), rtol=1e-4, atol=1e-4)


def test_a_coreset_in_parts_gives_the_same_distances(nuts, monkeypatch):
    method = PatchCore(**SMALL, num_neighbors=3).fit([]).refer(nuts[:8])
    vectors = method.patches(torch.stack(nuts[8:11]))
    for rows in (100, 10_000):
        monkeypatch.setattr(module, "CORESET_ROWS_AT_ONCE", rows)
        distances = CoresetDistances(method)(method._projected(vectors))
        torch.testing.assert_close(distances, method.distances(vectors), rtol=1e-3, atol=1e-3)


def test_what_confirmed_defects_add_is_in_the_graph(nuts):
    method = Fused(**SMALL).fit([]).refer(nuts[:8])
    vectors = method.patches(torch.stack(nuts[8:11]))
    plain = method.distances(vectors)
    method.evidence_weights_ = 20 * torch.randn(2 * 15 + 1, generator=torch.Generator().manual_seed(0))
    method.evidence_weights_[-1] = 0
    method.evidence_range_ = [-1.0, 2.0, 5.0]
    assert (method.distances(vectors) > plain + 1).any()
    torch.testing.assert_close(FusedDistances(method)(vectors), method.distances(vectors), rtol=1e-3, atol=1e-3)


def test_vectors_of_pixels_are_the_methods_own(nuts):
    method = PaDiM(**SMALL).fit([]).refer(nuts[:4])
    pixels = torch.stack(nuts[4:6]).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1)
    with torch.inference_mode():
        found = PatchVectors(method, 64)(pixels)
    torch.testing.assert_close(found, method.patches(torch.stack(nuts[4:6])), rtol=1e-4, atol=1e-4)


def test_a_method_that_compares_no_patches_is_refused():
    with pytest.raises(UserError, match="MeanImage cannot be exported, it compares no patches"):
        InspectionGraph(MeanImage(), 64, 1.0)
