"""Normals looked at in parts: of sums the model of one fit, of coresets one that is nearly as good."""

import numpy as np
import pytest
import torch
from method_suite import predict

from baselines.contract.method import Images
from baselines.contract.metrics import image_figures
from downstream.methods.fused import Fused
from downstream.methods.padim import PaDiM
from downstream.methods.parts import InParts
from downstream.methods.patchcore import PatchCore
from pretrain.command import UserError
from pretrain.data.dataset import load

SMALL = {"dimensions": 16, "grid": 8, "levels": ("level1", "level2")}


@pytest.fixture(scope="module")
def nuts(demo_folder):
    return load(demo_folder, 64).of("hazelnut")


@pytest.fixture(scope="module")
def normals(nuts) -> list[torch.Tensor]:
    return [Images(nuts)[i] for i, record in enumerate(nuts.records) if not record.is_anomaly][:16]


def in_parts(make, normals: list[torch.Tensor], sizes: list[int]) -> InParts:
    """Fitted by as many as there are sizes, each of which sees its part alone, and merged."""
    space, parts, start = make().space_of(normals), [], 0
    for size in sizes:
        parts.append(make().part_of(normals[start : start + size], space))
        start += size
    return make().refer_to_parts(parts, space, normals)


@pytest.mark.parametrize(
    ("method_class", "options"),
    [(PaDiM, {}), (PaDiM, {"normalize": True, "reference_views": "flips"}), (PatchCore, {}),
     (PatchCore, {"foreground": 0.5, "image_weight": 0.5}), (Fused, {}), (Fused, {"reference_views": "flips"})],
)  # fmt: skip
def test_normals_fitted_apart_and_merged_are_as_all_at_once(method_class, options, nuts, normals):
    """All patches are kept, as there are few, and so what is merged is the same."""

    def make() -> InParts:
        return method_class(**SMALL, **options)

    whole, merged = in_parts(make, normals, [16]), in_parts(make, normals, [2, 5, 1, 8])
    once = make().fit([]).refer(normals)
    tested = [Images(nuts)[i] for i in range(0, len(nuts), 4)]
    for other, tolerance in ((whole, 1e-5), (once, 2e-3)):
        torch.testing.assert_close(predict(merged, tested).scores, predict(other, tested).scores, rtol=tolerance, atol=0)
        torch.testing.assert_close(merged.normal_scores_, other.normal_scores_, rtol=tolerance, atol=0)
    learned = {name: value.dtype for name, value in vars(merged).items() if torch.is_tensor(value)}
    assert torch.float64 not in learned.values() and vars(merged).keys() == vars(once).keys() | {"device"}


@pytest.mark.parametrize("method_class", [PatchCore, Fused])
def test_a_coreset_of_coresets_finds_as_many_defects(method_class, nuts, normals, monkeypatch):
    """A tenth of the patches is kept: what is merged is then another coreset, of as many patches."""
    monkeypatch.setattr("downstream.methods.patchcore.MIN_PATCHES", 32)
    once = method_class(**SMALL).fit([]).refer(normals)
    merged = in_parts(lambda: method_class(**SMALL), normals, [4] * 4)
    assert len(merged.coreset_) == len(once.coreset_) == 102
    assert not torch.equal(merged.coreset_, once.coreset_)
    labels = np.array([record.is_anomaly for record in nuts.records])
    found = [image_figures(labels, predict(method, Images(nuts)).scores.numpy(), 1.0).auroc for method in (merged, once)]
    assert found[0] > found[1] - 0.03 and found[1] > 0.8
    # No threshold is the laxer for it.
    ratio = merged.normal_scores_ / once.normal_scores_
    assert 0.8 < ratio.mean() < 1.25


def test_each_patch_is_of_the_normal_that_it_is_said_to_be_of(normals, monkeypatch):
    """Else normals would be left out of what was learned of others."""
    monkeypatch.setattr("downstream.methods.patchcore.MIN_PATCHES", 32)
    merged = in_parts(lambda: PatchCore(**SMALL), normals, [1] * 9 + [7])  # some are chosen three times
    own = merged._projected(merged.patches(torch.stack(normals)).flatten(1, 2))  # (n, p, d)
    apart = (own[merged.owners_] - merged.coreset_[:, None]).norm(dim=2).amin(1)
    assert apart.max() < 1e-3 < own.std() and len(merged.owners_.unique()) > 10


def test_some_that_are_spread_over_all_are_left_out(normals, monkeypatch):
    monkeypatch.setattr("downstream.methods.padim.MAX_LEFT_OUT", 4)
    seen = []

    class Seen(list):
        def __getitem__(self, position):
            seen.append(position)
            return super().__getitem__(position)

    space = PaDiM(**SMALL).space_of(normals)
    parts = [PaDiM(**SMALL).part_of(normals[start : start + 8], space) for start in (0, 8)]
    merged = PaDiM(**SMALL).refer_to_parts(parts, space, Seen(normals))
    assert seen == [0, 5, 10, 15] and len(merged.normal_scores_) == 4


def test_a_merged_method_takes_in_more_and_is_loaded_as_it_was(normals, tmp_path):
    merged = in_parts(lambda: Fused(**SMALL), normals[:12], [6, 6])
    merged.save(tmp_path)
    loaded = Fused.load(tmp_path).remember(tmp_path)
    assert torch.equal(predict(loaded, normals[12:]).scores, predict(merged, normals[12:]).scores)
    assert len(loaded.add(normals[12:]).normal_scores_) == 16


def test_parts_of_other_sizes_or_with_shared_gaussians_are_refused(normals, monkeypatch):
    def make() -> PaDiM:
        return PaDiM(**SMALL | {"grid": None})

    parts = [make().part_of(some, {}) for some in (normals[:2], [image[:, :32, :32] for image in normals[:2]])]
    with pytest.raises(UserError, match="give them one size"):
        make().refer_to_parts(parts, {}, normals[:4])
    monkeypatch.setattr("downstream.methods.padim.MAX_GAUSSIAN_BYTES", 2**12)
    with pytest.raises(UserError, match="share Gaussians, which are not merged"):
        make().part_of(normals[:2], {})
