"""Several scales: each member is a method of its own, and all count alike on what normals show."""

import pytest
import torch
from method_suite import predict
from torch.nn import functional as F

from baselines.contract.method import Images
from downstream.methods.ensemble import Ensemble, Scaled, seen_at, shares_of
from downstream.methods.padim import PaDiM
from downstream.methods.patchcore import PatchCore
from pretrain.command import UserError
from pretrain.data.dataset import load

TINY = {"encoder": "random", "architecture": "timm/test_resnet"}
SMALL = {"grid": 8, "levels": ("level1", "level2"), "dimensions": 12}
SCALES = (0.5, 1.0)


@pytest.fixture(scope="module")
def nuts(demo_folder) -> list[torch.Tensor]:
    return list(Images(load(demo_folder, 64).of("hazelnut")))


@pytest.mark.parametrize("name", ["padim", "patchcore"])
def test_scores_and_maps_are_means_of_the_members_in_units_of_left_out_normals(name, nuts):
    both = Ensemble(method=name, options=SMALL, scales=SCALES, **TINY).fit([]).refer(nuts[:8])
    found = predict(both, nuts[8:11])
    scores, maps = [], []
    for scale in SCALES:
        cls = {"padim": PaDiM, "patchcore": PatchCore}[name]
        alone = cls(**SMALL, **TINY).fit([]).refer(Scaled(nuts[:8], scale))
        of_member = predict(alone, Scaled(nuts[8:11], scale))
        scores.append(of_member.scores / alone.normal_scores_.mean())
        resized = F.interpolate(of_member.maps[:, None], (64, 64), mode="bilinear")[:, 0]
        maps.append(resized / alone.normal_scores_.mean())  # the mean of the maps' highest values
    torch.testing.assert_close(found.scores, torch.stack(scores).mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.maps, torch.stack(maps).mean(0), rtol=1e-4, atol=1e-5)
    assert len(both.normal_scores_) == len(both.normal_peaks_) == 8
    assert float(both.normal_scores_.mean()) == pytest.approx(1, rel=1e-5)


def test_normal_peaks_are_those_of_the_fused_maps(nuts):
    """As if each normal had been left out of a fit to the others."""
    both = Ensemble(method="patchcore", options=SMALL, **TINY).fit([]).refer(nuts[:4])
    without = Ensemble(method="patchcore", options=SMALL, **TINY).fit([]).refer(nuts[1:4])
    for one, other in zip(both._members, without._members, strict=True):
        # The same space and coreset but for what is left out: then the same distances.
        other.coreset_, other.spacing_ = one.coreset_[one.owners_ != 0], one.spacing_[one.owners_ != 0]
        other.center_, other.axes_ = one.center_, one.axes_
        other.channel_mean_, other.channel_spread_ = one.channel_mean_, one.channel_spread_
        vars(other).pop("_index", None)
    without.score_units_, without.map_units_ = both.score_units_, both.map_units_
    alone = predict(without, nuts[:1])
    assert float(both.normal_peaks_[0]) == pytest.approx(float(alone.maps.max()), rel=1e-4)
    assert float(both.normal_scores_[0]) == pytest.approx(float(alone.scores), rel=1e-4)


def test_normal_peaks_are_the_same_of_maps_that_come_in_parts_and_lie_on_disk(nuts, monkeypatch, tmp_path):
    """As those of many large normals do."""
    whole = Ensemble(method="patchcore", options=SMALL, **TINY).fit([]).refer(nuts[:5])
    monkeypatch.setattr("downstream.methods.patch_method.MAX_MAP_PIXELS", 2 * 64 * 64)
    in_parts = Ensemble(method="patchcore", options=SMALL, **TINY).fit([]).refer(nuts[:5])
    assert torch.equal(in_parts.normal_peaks_, whole.normal_peaks_)
    monkeypatch.setattr("downstream.methods.ensemble.MAX_KEPT_BYTES", 3 * 64 * 64 * 4)
    monkeypatch.setenv("HELDOUT_CACHE", str(tmp_path / "cache"))
    on_disk = Ensemble(method="patchcore", options=SMALL, **TINY).fit([]).refer(nuts[:5])
    assert torch.equal(on_disk.normal_peaks_, whole.normal_peaks_)
    assert (tmp_path / "cache").is_dir() and not list((tmp_path / "cache").iterdir())
    (tmp_path / "file").touch()
    monkeypatch.setenv("HELDOUT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="the maps of good images.* cannot be kept in .*or give fewer images"):
        Ensemble(method="patchcore", options=SMALL, **TINY).fit([]).refer(nuts[:5])


def test_nothing_outside_of_a_region_of_interest_counts_at_any_scale(nuts):
    roi = torch.zeros(64, 64, dtype=torch.bool)
    roi[12:50, 10:40] = True
    method = Ensemble(method="padim", options=SMALL, **TINY).look_within(roi).fit([]).refer(nuts[:6])
    image = nuts[8]
    changed = torch.where(roi, image, torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)))
    before, after = predict(method, [image]), predict(method, [changed])
    assert not before.maps[0][~roi].any() and before.maps[0][roi].any()
    assert torch.equal(before.scores, after.scores) and torch.equal(before.maps, after.maps)
    alone = PaDiM(**SMALL, **TINY).look_within(roi)
    assert torch.equal(alone.roi_, method.look_within(roi).roi_) and not hasattr(method.look_within(None), "roi_")


def test_a_rectangle_is_seen_at_shares_of_its_sides():
    seen = seen_at(torch.rand(2, 3, 64, 48), 0.5)
    assert seen.shape == (2, 3, 32, 24)  # multiples of 8
    image = torch.rand(1, 3, 64, 48)
    assert seen_at(image, 1.0) is image


def test_of_bytes_each_channel_is_made_smaller_alone_and_is_the_same():
    """Large images are bytes: as floats, all channels at once take gigabytes."""
    generator = torch.Generator().manual_seed(0)
    parts = torch.randint(0, 256, (1, 6, 64, 48), generator=generator, dtype=torch.uint8)
    roi = torch.rand(64, 48, generator=generator) > 0.5
    for light in (0, 1):
        for region in (None, roi):
            floats = seen_at(parts.float() / 255, 0.5, region, light)
            torch.testing.assert_close(seen_at(parts, 0.5, region, light), floats, rtol=1e-5, atol=1e-6)
        assert torch.equal(seen_at(parts, 1.0, roi, light), parts[:, 3 * light : 3 * light + 3])


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda: shares_of(["1"]), "scales of 1 cannot be fused: give two or more"),
        (lambda: shares_of(["1", "1"]), "scales of 1,1 cannot be fused"),
        (lambda: shares_of(["0.5", "2"]), "at most 1"),
        (lambda: shares_of(["nan", "1"]), "scales of nan,1"),
        (lambda: shares_of(["half", "1"]), "--scales half,1 are no numbers"),
        (lambda: Ensemble(method="residual").fit([]), "residual cannot look at several scales or lights; choose"),
        (lambda: Ensemble(method="padin").fit([]), "did you mean padim"),
        (lambda: Ensemble(**TINY).fit([]).refer([]), "no normal images"),
        (lambda: Ensemble(options={"reference_views": "flips"}).look_within(torch.ones(8, 8)), "reference_views flip"),
    ],
)
def test_mistakes_are_one_sentence(use, words):
    with pytest.raises(UserError, match=words):
        use()
