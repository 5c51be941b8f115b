"""Heatmaps: one scale for all images, tied to the threshold, and boxes where regions are."""

import numpy as np
import torch

from baselines.cam.method import VggCam
from baselines.cam.network import CamNetwork, VggBackbone
from baselines.contract.heatmap import TRUTH_COLOR, draw_heatmap, draw_regions
from baselines.contract.regions import Region, regions
from pretrain.drawing import DEFECT


def test_heatmap_has_one_scale_for_all_images():
    pixels = np.full((20, 20, 3), 128, np.uint8)
    cold, hot = np.full((5, 5), 0.4, np.float32), np.full((5, 5), 3.0, np.float32)
    assert (draw_heatmap(pixels, cold, threshold=1.0) == pixels).all()
    assert (draw_heatmap(pixels, hot, threshold=1.0) != pixels).any(axis=2).all()
    assert (draw_heatmap(pixels, hot, threshold=10.0) == pixels).all()


def test_flat_and_empty_maps_have_no_regions_and_no_colors():
    """No map is scaled by its own extremes: nothing is found where there is nothing."""
    method = VggCam()
    method.network_, method.normal_scores_ = CamNetwork(VggBackbone(1 / 32)).eval(), torch.zeros(0)
    torch.nn.init.zeros_(method.network_.classifier.weight)
    ((_, maps),) = method.predict([torch.rand(3, 48, 32)])
    assert maps.shape == (1, 48, 32) and not maps.any()
    assert regions(maps[0].numpy(), 0.0) == []
    gray = np.full((48, 32, 3), 100, np.uint8)
    for threshold in (0.0, 0.5, -0.5 + 1):
        assert np.array_equal(draw_heatmap(gray, maps[0].numpy(), threshold), gray)
    two = np.zeros((20, 20), np.float32)
    two[2:5, 2:5] = two[12:18, 12:18] = -0.1
    two[two == 0] = -1
    assert [region.box for region in regions(two, -0.5)] == [(2, 2, 5, 5), (12, 12, 18, 18)]
    hot = draw_heatmap(
        np.full((20, 20, 3), 100, np.uint8), two, -0.5
    )  # such maps have no scale, but they have a threshold
    assert np.array_equal((hot != 100).any(2), two > -0.5)


def test_boxes_end_at_the_last_pixel_of_their_region():
    pixels = np.zeros((40, 40, 3), np.uint8)
    drawn = draw_regions(pixels, [Region(200, (10, 20, 20, 40), 2.0, (15, 30))])
    red = (drawn == DEFECT).all(axis=2)
    assert red[20, 10:20].all() and red[39, 10:20].all() and red[20:, 19].all() and not red[:, 20].any()
    assert not red[:20].any() and not pixels.any()
    mask = np.zeros((40, 40), bool)
    mask[15:25, 15:25] = True
    assert (draw_regions(pixels, [], mask) == TRUTH_COLOR).all(axis=2).any()
