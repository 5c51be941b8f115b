"""Which images are shown, and what of them."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from baselines.contract.threshold import Threshold
from downstream.report.gallery import SHOWN_EACH, SHOWN_PX, chosen_positions, gallery, panel
from downstream.study.cell import CellResult

THRESHOLD = Threshold(0.5, 0.05, 20, "of normals")


def result(scores: list[float], defects: list[str], maps: np.ndarray | None = None) -> CellResult:
    return CellResult(
        cell={}, paths=[f"{i}.png" for i in range(len(scores))], defects=defects,
        labels=np.array([defect != "good" for defect in defects]), scores=np.array(scores, np.float32),
        normal_scores=np.zeros(0), maps=maps, threshold=THRESHOLD, map_threshold=THRESHOLD, pixel={},
        metadata={"map_scale": 1.0},
    )  # fmt: skip


def test_images_are_chosen_by_the_rule_that_is_stated():
    defects = ["good"] * 6 + ["crack"] * 4 + ["hole"] * 2
    scores = [0.9, 0.1, 0.2, 0.3, 0.4, 0.6, *(0.95, 0.94, 0.93, 0.2), *(0.7, 0.1)]
    chosen = chosen_positions(result(scores, defects))
    assert chosen["false alarms"] == [0, 5]
    assert chosen["missed"] == [11, 9]
    assert chosen["found"] == [6, 10, 7]  # the clearest crack, the clearest hole, then cracks again
    assert chosen["rightly good"] == [1, 3, 4] and len(chosen["rightly good"]) == SHOWN_EACH


def test_an_image_has_its_heatmap_beside_it(tmp_path):
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(tmp_path / "0.png")
    maps = np.ones((1, 4, 4), np.float16)
    (shown,) = next(images for outcome, images in gallery(result([0.9], ["crack"], maps), tmp_path, {}) if images)
    assert shown.defect == "crack" and shown.ratio == pytest.approx(0.9 / 0.5)
    image = Image.open(io.BytesIO(base64.b64decode(shown.source.partition(",")[2])))
    assert image.size == (shown.width, shown.height) and shown.height == SHOWN_PX and shown.width > 2 * SHOWN_PX


def test_an_image_that_is_gone_is_named():
    (shown,) = next(images for _, images in gallery(result([0.1], ["good"]), Path("nowhere"), {}) if images)
    assert shown.source is None and shown.path == "0.png"


def test_without_a_map_the_image_stands_alone():
    pixels = np.full((40, 60, 3), 90, np.uint8)
    assert panel(pixels, None, None, None).size == (60, 40)
    assert panel(pixels, np.zeros((4, 4)), 0.5, None).size == (122, 40)
