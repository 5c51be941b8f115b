"""Overlays: the shape of the image, the boxes of its regions."""

import numpy as np

from baselines.contract.regions import Region
from downstream.inspection.overlay import overlay


def test_overlay_is_drawn_at_the_images_shape_with_its_boxes():
    pixels = np.zeros((100, 50, 3), np.uint8)
    anomaly_map = np.zeros((10, 10), np.float32)
    anomaly_map[2:4, 2:4] = 2.0
    region = Region(200, (10, 20, 20, 40), 2.0, (15, 30))
    drawn = np.asarray(overlay(pixels, anomaly_map, 1.0, [region], "DEFECTIVE", True, shown_px=100))
    assert drawn.shape[0] > 100 and drawn.shape[1] >= 2 * 50
    boxed = (drawn[:100, 56:106] == (255, 45, 85)).all(axis=2)
    assert boxed[20, 12] and boxed[39, 12] and not boxed[10, 12]
    plain = np.asarray(overlay(pixels, None, None, [], "good", False, shown_px=100))
    assert plain.shape[1] < drawn.shape[1] or plain.shape[1] == 260
