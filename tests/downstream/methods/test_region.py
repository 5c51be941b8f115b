"""A region of interest: what lies outside of it changes nothing, whatever happens there."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from baselines.contract.method import Sample
from downstream.exporting.graph import InspectionGraph
from downstream.methods.fused import Fused
from downstream.methods.padim import PaDiM
from downstream.methods.patchcore import PatchCore
from downstream.methods.references import spread_elsewhere
from downstream.methods.region import painted, positions_inside, spread
from downstream.methods.residual import Residual
from pretrain.command import UserError

SIDE_PX = 64
ROI = torch.zeros(SIDE_PX, SIDE_PX, dtype=torch.bool)
ROI[8:40, 16:56] = True
SMALL = {"encoder": "random", "architecture": "timm/test_resnet", "levels": ["level1", "level2"], "dimensions": 12}
METHODS = {"padim": PaDiM, "patchcore": PatchCore, "fused": Fused, "residual": Residual}


def scenes(count: int, seed: int, background_seed: int) -> list[torch.Tensor]:
    """A product of one texture in the region, with a little noise, before a background that is never the same."""
    rng, behind = np.random.default_rng(seed), np.random.default_rng(background_seed)
    texture = np.kron(np.random.default_rng(0).random((3, 8, 8)), np.ones((1, 8, 8))) * 0.5
    images = []
    for _ in range(count):
        coarse = behind.random((3, 16, 16)) * behind.random()
        background = torch.from_numpy(np.kron(coarse, np.ones((1, 4, 4)))).float()
        product = torch.from_numpy(texture + 0.05 * rng.random(texture.shape)).float()
        images.append(torch.where(ROI, product, background))
    return images


def referred(name: str, normals: list[torch.Tensor], **more: object):
    method = METHODS[name](**{**SMALL, **({} if name != "residual" else {"dimensions": None}), **more})
    lessons = [Sample(image, 0, None, "another", "x.png") for image in scenes(6, 3, 3)] if name == "residual" else []
    return method.fit(lessons).look_within(ROI).refer(normals)


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("name", METHODS)
def test_what_lies_outside_changes_not_a_bit(name):
    first, second = (referred(name, scenes(9, 1, behind)) for behind in (10, 11))
    assert torch.equal(first.normal_scores_, second.normal_scores_)
    (one,), (other,) = (method.predict(scenes(3, 2, behind)) for method, behind in ((first, 12), (second, 13)))
    assert torch.equal(one.scores, other.scores) and torch.equal(one.maps, other.maps)
    assert not one.maps[:, ~ROI].any() and (one.maps[:, ROI] > 0).any()


@pytest.mark.parametrize("name", ["padim", "patchcore", "fused"])
def test_a_moving_background_hides_defects_unless_the_region_leaves_it_out(name):
    normals = [torch.where(ROI, image, 0.2) for image in scenes(12, 1, 20)]  # it stood still then
    good, bad = scenes(12, 2, 21), scenes(12, 3, 22)
    for image in bad:
        image[:, 20:28, 30:38] = 0.9
    labels = [0] * len(good) + [1] * len(bad)
    everywhere = METHODS[name](**SMALL).fit([]).refer(normals)
    aurocs = [
        roc_auc_score(labels, torch.cat([batch.scores for batch in method.predict(good + bad)]))
        for method in (everywhere, referred(name, normals))
    ]
    assert aurocs[1] == 1 and aurocs[0] < 0.7


@pytest.mark.parametrize("name", ["padim", "patchcore", "fused"])
def test_it_is_kept_and_exported(name, tmp_path):
    method = referred(name, scenes(9, 1, 1), image_weight=0.5)
    method.save(tmp_path)
    images = torch.stack(scenes(3, 2, 2))
    (found,), (expected,) = METHODS[name].load(tmp_path).predict(images), method.predict(images)
    assert torch.equal(found.scores, expected.scores) and torch.equal(found.maps, expected.maps)
    graph = InspectionGraph(method, SIDE_PX, 1.0, takes_floats=True).eval()
    with torch.inference_mode():
        scores, maps, _ = graph(images)
    torch.testing.assert_close(scores, expected.scores, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(maps, expected.maps, rtol=1e-4, atol=1e-5)
    again = method.look_within(None).refer(list(images))  # and everything counts once more
    (everywhere,) = again.predict(scenes(3, 4, 4))
    assert everywhere.maps[:, ~ROI].any()


def test_other_products_lie_where_they_lie():
    """Few references borrow the spread of other products, on which the region of this one means nothing."""
    others = {"another": scenes(6, 4, 4)}
    plain = PatchCore(**SMALL).fit([]).refer(scenes(9, 1, 1))
    within = referred("patchcore", scenes(9, 1, 1))
    found, expected = (spread_elsewhere(method, 3, others, seed=0)["another"] for method in (within, plain))
    assert found.tolist() == expected.tolist()
    assert torch.equal(within.roi_, ROI)


def test_mistakes():
    with pytest.raises(UserError, match="holds no pixel"):
        PatchCore(**SMALL).look_within(torch.zeros(SIDE_PX, SIDE_PX, dtype=torch.bool))
    with pytest.raises(UserError, match="use one of them"):
        PatchCore(**SMALL, reference_views="flips").look_within(ROI)
    with pytest.raises(UserError, match="32x32 pixels do not fit the region of interest, 64x64"):
        next(referred("patchcore", scenes(9, 1, 1)).predict([torch.zeros(3, 32, 32)]))


def test_patches_that_count():
    assert positions_inside(ROI, (8, 8)).tolist() == [8 * row + column for row in range(1, 5) for column in range(2, 7)]
    tiny = torch.zeros(SIDE_PX, SIDE_PX, dtype=torch.bool)
    tiny[9, 17] = True
    assert positions_inside(tiny, (8, 8)).tolist() == [8 * 1 + 2]
    values = spread(torch.tensor([[5.0, 7.0]]), torch.tensor([1, 2]), (2, 2))
    assert values.tolist() == [[[0.0, 5.0], [7.0, 0.0]]]
    image = painted(torch.ones(1, 3, SIDE_PX, SIDE_PX), ROI)
    assert (image[..., ROI] == 1).all() and (image[..., ~ROI] == 0.5).all()
