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
from pretrain.encoder import asked_encoder

SMALL = {"dimensions": 16, "grid": 8, "levels": ("level1", "level2")}
TINY = {"encoder": "random", "architecture": "timm/test_resnet"}


@pytest.fixture(scope="module")
def nuts(demo_folder):
    return load(demo_folder, 64).of("hazelnut")


@pytest.fixture(scope="module")
def normals(nuts) -> list[torch.Tensor]:
    """All 18 good ones."""
    return [Images(nuts)[i] for i, record in enumerate(nuts.records) if not record.is_anomaly]


@pytest.fixture(scope="module")
def defective(nuts) -> list[torch.Tensor]:
    return [Images(nuts)[i] for i, record in enumerate(nuts.records) if record.is_anomaly]


def in_parts(method: InParts, normals: list[torch.Tensor], sizes: list[int]) -> InParts:
    """Fitted by as many as there are sizes, each of which sees its part alone, and merged."""
    space, parts, start = method.space_of(normals), [], 0
    for size in sizes:
        parts.append(method.part_of(normals[start : start + size], space))
        start += size
    assert not [name for name in vars(method) if name.endswith("_")]
    return method.refer_to_parts(parts, space, normals)


@pytest.mark.parametrize(
    ("method_class", "options"),
    [(PaDiM, {}), (PaDiM, {"normalize": True, "reference_views": "flips"}),
     (PatchCore, {"foreground": 0.5, "image_weight": 0.5}), (Fused, {"reference_views": "flips"})],
)  # fmt: skip
def test_normals_fitted_apart_and_merged_are_as_all_at_once(method_class, options, normals, defective):
    """All patches are kept, as there are few, and so what is merged is the same."""
    whole, merged, once = (method_class(**SMALL, **TINY, **options) for _ in range(3))
    in_parts(whole, normals[:16], [16])
    in_parts(merged, normals[:16], [2, 5, 1, 8])
    once.fit([]).refer(normals[:16])
    tested = [*normals[16:], *defective[::3]]
    for other, tolerance in ((whole, 1e-5), (once, 2e-3)):
        torch.testing.assert_close(
            predict(merged, tested).scores, predict(other, tested).scores, rtol=tolerance, atol=0
        )
        torch.testing.assert_close(merged.normal_scores_, other.normal_scores_, rtol=tolerance, atol=0)
    learned = {name: value.dtype for name, value in vars(merged).items() if torch.is_tensor(value)}
    assert torch.float64 not in learned.values() and vars(merged).keys() == vars(once).keys()


@pytest.fixture
def keeps_a_tenth(monkeypatch) -> None:
    """Else all patches of a few small images are kept."""
    monkeypatch.setattr("downstream.methods.patchcore.MIN_PATCHES", 32)
    monkeypatch.setattr("downstream.methods.patchcore.MAX_CANDIDATES", 768)


def test_a_coreset_of_coresets_finds_as_many_defects_as_one(keeps_a_tenth, demo_folder):
    """Measured, over two seeds: .88 and .87; .61 where parts keep a tenth of their own instead of as many as all."""
    bottles, encoder = load(demo_folder, 64).of("bottle"), asked_encoder("imagenet")
    normals = [Images(bottles)[i] for i, record in enumerate(bottles.records) if record.split == "train"]
    tested = bottles.subset([i for i, record in enumerate(bottles.records) if record.split == "test"])
    labels, found = np.array([record.is_anomaly for record in tested.records]), {"merged": [], "once": []}
    for seed in (0, 1):
        once, merged = (PatchCore(**SMALL, encoder=encoder, seed=seed) for _ in range(2))
        once.fit([]).refer(normals)
        in_parts(merged, normals, [3] * 4)
        assert len(merged.coreset_) == len(once.coreset_) == 77 and not torch.equal(merged.coreset_, once.coreset_)
        assert 0.9 < merged.normal_scores_.mean() / once.normal_scores_.mean() < 1.1
        for name, method in (("merged", merged), ("once", once)):
            scores = predict(method, list(Images(tested))).scores.numpy()
            found[name].append(image_figures(labels, scores, 1.0).auroc)
    assert np.mean(found["merged"]) > np.mean(found["once"]) - 0.08 and np.mean(found["once"]) > 0.8


def test_each_patch_is_of_the_normal_that_it_is_said_to_be_of(keeps_a_tenth, normals):
    """Else normals would be left out of what was learned of others."""
    normals = normals[:16]
    merged = in_parts(PatchCore(**SMALL, **TINY), normals, [1] * 9 + [7])  # some are chosen three times
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

    in_parts(merged := PaDiM(**SMALL, **TINY), Seen(normals[:16]), [8, 8])
    assert [each for each in seen if isinstance(each, int)] == [0, 5, 10, 15] and len(merged.normal_scores_) == 4


def test_a_merged_method_takes_in_more_and_is_loaded_as_it_was(normals, tmp_path):
    merged = in_parts(Fused(**SMALL, **TINY), normals[:12], [6, 6])
    merged.save(tmp_path)
    loaded = Fused.load(tmp_path).remember(tmp_path)
    assert torch.equal(predict(loaded, normals[12:]).scores, predict(merged, normals[12:]).scores)
    assert len(loaded.add(normals[12:16]).normal_scores_) == 16


def test_parts_of_other_sizes_or_with_shared_gaussians_are_refused(normals, monkeypatch):
    def make() -> PaDiM:
        return PaDiM(**SMALL | TINY | {"grid": None})

    parts = [make().part_of(some, {}) for some in (normals[:2], [image[:, :32, :32] for image in normals[:2]])]
    with pytest.raises(UserError, match="give them one size"):
        make().refer_to_parts(parts, {}, normals[:4])
    monkeypatch.setattr("downstream.methods.padim.MAX_GAUSSIAN_BYTES", 2**12)
    with pytest.raises(UserError, match="share Gaussians, which are not merged"):
        make().part_of(normals[:2], {})
