"""Which normals are referred to, what is odd among them, and where a threshold comes from."""

import numpy as np
import pytest
import torch

from baselines.contract.threshold import threshold_from_normals
from baselines.trivial import MeanImage
from downstream.methods.references import (
    REFERENCE_VIEWS,
    background,
    draw,
    own_threshold,
    scale_of,
    shots_of,
    spread_elsewhere,
    suspicious,
    views_of,
)
from pretrain.command import UserError


def images(count: int, spread: float = 0.1, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    base = torch.rand(3, 16, 16, generator=generator)
    return [(base + spread * torch.randn(3, 16, 16, generator=generator)).clamp(0, 1) for _ in range(count)]


def test_fewer_shots_are_a_part_of_more_and_another_seed_draws_others():
    drawn = [set(draw(50, shots, seed=3)) for shots in (1, 2, 4, 8, 50)]
    assert [len(some) for some in drawn] == [1, 2, 4, 8, 50]
    assert all(few <= many for few, many in zip(drawn, drawn[1:], strict=False))
    assert draw(50, 8, seed=3) == draw(50, 8, seed=3) != draw(50, 8, seed=4)


@pytest.mark.parametrize(("text", "words"), [("0", "no number"), ("many", "no number"), ("9", "there are 8 normals")])
def test_shots_that_cannot_be_are_mistakes(text, words):
    assert (shots_of("all", 8), shots_of("4", 8), shots_of(8, 8)) == (8, 4, 8)
    with pytest.raises(UserError, match=words):
        shots_of(text, 8)


def test_views_are_distinct_and_each_a_turn_of_the_image():
    image = torch.arange(3 * 4 * 4).float().view(1, 3, 4, 4)
    counts = {views: len(views_of(image, views)) for views in REFERENCE_VIEWS}
    assert counts == {"none": 1, "flips": 4, "rotations": 4, "both": 8}
    views = views_of(image, "both")
    assert len({tuple(view.flatten().tolist()) for view in views}) == 8
    assert all(view.flatten().sort().values.equal(image.flatten()) for view in views)
    with pytest.raises(UserError, match="not square"):
        views_of(image[..., :2], "rotations")
    with pytest.raises(UserError, match="choose from none"):
        views_of(image, "twists")


def test_a_defect_among_the_references_is_suspicious_and_ordinary_ones_are_not():
    generator = np.random.default_rng(0)
    falsely = [len(suspicious(generator.lognormal(0, 0.3, 200))) > 0 for _ in range(200)]
    assert np.mean(falsely) < 0.05
    scores = generator.lognormal(0, 0.3, 30).tolist()
    assert suspicious([*scores, 9.0, 30.0]) == [31, 30]
    assert suspicious([1.0, 1.0, 100.0]) == []


def test_background_is_what_looks_like_the_frame():
    mean_patches = torch.zeros(10, 10, 4) + 0.01 * torch.rand(10, 10, 4, generator=torch.Generator().manual_seed(0))
    mean_patches[3:7, 3:7] = 1.0
    found = background(mean_patches)
    assert not found[3:7, 3:7].any()
    assert found.float().mean() > 0.7
    textured = torch.rand(28, 28, 4, generator=torch.Generator().manual_seed(1))
    assert not background(textured).any()


def test_of_a_large_grid_means_of_neighbors_tell_the_background(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    mean_patches = 0.01 * torch.rand(60, 90, 4, generator=generator)
    mean_patches[18:42, 27:63] = 1.0
    whole = background(mean_patches)
    monkeypatch.setattr("downstream.methods.references.MAX_COMPARED", 20 * 30)
    found = background(mean_patches)
    assert found.shape == whole.shape and found.dtype == torch.bool
    assert not found[18:42, 27:63].any() and not whole[18:42, 27:63].any()
    assert found.float().mean() > 0.6 and (found == whole).float().mean() > 0.8


def test_enough_references_give_their_own_threshold():
    method = MeanImage().fit([]).refer(normals := images(12))
    threshold = own_threshold(method, normals, 0.2, {"other": images(20, seed=1)}, seed=0)
    assert threshold == threshold_from_normals(method.normal_scores_.numpy(), 0.2)


@pytest.mark.parametrize("shots", [1, 2, 4])
def test_few_references_borrow_the_spread_of_other_categories(shots):
    """Of two other categories, one whose normals differ more: its scale takes that out again. Over many draws of the
    references the rate of false alarms is about the one asked for; a single one cannot tell how others differ."""
    calibration = {"alike": images(30, 0.05, seed=1), "varied": images(30, 0.2, seed=2)}
    normals, rates = images(80), []
    for seed in range(16):
        chosen = [normals[i] for i in draw(40, shots, seed)]
        method = MeanImage().fit([]).refer(chosen)
        threshold = own_threshold(method, chosen, 0.2, calibration, seed)
        fresh = torch.cat([part.scores for part in method.predict(normals[40:])])
        rates.append(float((fresh > threshold.value).float().mean()))
    assert set(spread_elsewhere(method, shots, calibration, seed=0)) == {"alike", "varied"}
    assert "training categories" in threshold.why
    assert scale_of(method, chosen) > 0
    assert threshold.value > 0
    if shots > 1:
        assert 0.05 < np.mean(rates) < 0.4


@pytest.mark.parametrize("shots", [1, 2])
def test_references_that_score_nothing_are_no_unit_and_enough_of_them_need_none(shots):
    """As a network of residuals may find nothing in the only image, moved by a pixel."""
    flat = [torch.full((3, 16, 16), 0.5)] * 8
    method = MeanImage().fit([]).refer(flat[:shots])
    with pytest.raises(UserError, match="0 by MeanImage, which tells no unit .*: give 8 good images"):
        own_threshold(method, flat[:shots], 0.1, {"other": images(20)}, seed=0)
    assert own_threshold(method.refer(flat), flat, 0.1, {"other": images(20)}, seed=0).value == 0
    usual = own_threshold(method.refer(images(shots)), images(shots), 0.1, {"other": images(20, seed=1)}, seed=0)
    with_flat = {"flat": flat, "other": images(20, seed=1)}
    assert own_threshold(method, images(shots), 0.1, with_flat, seed=0) == usual


def test_without_more_normals_elsewhere_few_references_speak_for_themselves():
    method = MeanImage().fit([]).refer(normals := images(4))
    threshold = own_threshold(method, normals, 0.1, {"other": images(4, seed=1)}, seed=0)
    assert threshold == threshold_from_normals(method.normal_scores_.numpy(), 0.1)
    alone = own_threshold(method.refer(normals[:1]), normals[:1], 0.1, {}, seed=0)
    assert alone.count == 1 and "moved" in alone.why
    (itself,) = (part.scores for part in method.predict(normals[:1]))
    assert float(itself[0]) < alone.value
