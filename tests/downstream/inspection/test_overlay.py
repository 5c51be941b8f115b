"""Overlays: the shape of the image, the boxes of its regions."""

import time

import numpy as np
import pytest
from PIL import Image

from baselines.contract.regions import Region
from downstream.inspection.overlay import overlay, reduced, resized


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


def test_what_is_larger_than_shown_is_reduced_with_its_boxes_and_thin_defects():
    pixels, mask = np.zeros((400, 100, 3), np.uint8), np.zeros((400, 100), bool)
    mask[200] = True
    region = Region(200, (11, 40, 20, 81), 2.0, (15, 60))
    small, thin, (boxed,) = reduced(pixels, mask, [region], 100)
    assert small.shape == (100, 25, 3) and thin.shape == (100, 25)
    assert thin.any(axis=1).nonzero()[0].tolist() == [50] and thin[50].all()
    assert boxed == region._replace(box=(2, 10, 5, 21))
    assert reduced(pixels, mask, [region], 400) == (pixels, mask, [region])


def test_a_very_tall_image_is_drawn_at_once():
    pixels = np.zeros((400_000, 17, 3), np.uint8)
    region = Region(6_800_000, (0, 0, 17, 400_000), 2.0, (3, 1000))
    start_s = time.process_time()
    drawn = overlay(pixels, np.full((48, 48), 2.0, np.float32), 1.0, [region], "DEFECTIVE", True)
    assert time.process_time() - start_s < 3
    assert drawn.height < 600


@pytest.mark.parametrize("way", [Image.Resampling.BOX, Image.Resampling.BILINEAR])
def test_a_large_image_is_made_smaller_some_rows_at_a_time_and_nothing_changes(way, monkeypatch):
    generator = np.random.default_rng(0)
    values = generator.random((331, 90), np.float32)
    pixels = generator.integers(0, 256, (331, 90, 3), np.uint8)
    whole = [resized(each, (37, 101), way) for each in (values, pixels)]
    monkeypatch.setattr("downstream.inspection.overlay.LARGE_PIXELS", 1)
    monkeypatch.setattr("downstream.inspection.overlay.ROWS_AT_ONCE", 8)
    in_parts = [resized(each, (37, 101), way) for each in (values, pixels)]
    np.testing.assert_allclose(in_parts[0], whole[0], atol=1e-5)
    np.testing.assert_allclose(in_parts[1].astype(int), whole[1].astype(int), atol=1)
