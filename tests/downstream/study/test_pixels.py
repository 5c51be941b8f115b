"""Pixel figures of a cell's maps: of which images they are, and sPRO of folders that have saturations."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made_folders import image, mask

from baselines.contract.aupimo import aupimo
from baselines.contract.spro import Defect, spro
from baselines.contract.threshold import Threshold
from downstream.study.pixels import SATURATIONS, cell_pixels
from pretrain.data.dataset import ImageSet, load
from pretrain.data.decode import read_mask


def images_to_test(folder: Path, size_px: int) -> ImageSet:
    images = load(folder, size_px)
    return images.subset([i for i, record in enumerate(images.records) if record.split == "test"])


@pytest.fixture
def box(tmp_path) -> Path:
    """A category as MVTec LOCO has it, images of 12 x 10 px."""
    folder = tmp_path / "data" / "box"
    for name in ("train/good/000", "validation/good/000", "test/good/000", "test/good/001",
                 "test/logical_anomalies/000", "test/structural_anomalies/000"):  # fmt: skip
        image(folder / f"{name}.png", level=20 + len(name))
    mask(folder / "ground_truth/logical_anomalies/000/000.png", slice(0, 4), value=255)
    mask(folder / "ground_truth/logical_anomalies/000/001.png", slice(6, 8), value=250)
    mask(folder / "ground_truth/structural_anomalies/000/000.png", slice(5, 6), value=250)
    (folder / SATURATIONS).write_text(json.dumps([
        {"defect_name": "missing", "pixel_value": 255, "saturation_threshold": 10, "relative_saturation": False},
        {"defect_name": "broken", "pixel_value": 250, "saturation_threshold": 0.5, "relative_saturation": True},
    ]))  # fmt: skip
    return folder


def test_spro_is_the_mean_of_logical_and_structural_anomalies(box):
    tests, maps = (
        images_to_test(box.parent, 10),
        torch.from_numpy(np.random.default_rng(0).random((4, 10, 10), np.float32)),
    )
    assert [record.defect for record in tests.records][2:] == ["logical_anomalies", "structural_anomalies"]
    figures, values = cell_pixels(maps, tests, None), maps.numpy()

    def rows(chosen: slice) -> np.ndarray:
        marked = np.zeros((10, 10), dtype=bool)
        marked[chosen] = True
        return marked

    # Of 12 x 10 px, each of which is 5/6 of a pixel of the map.
    first, second, third = (Defect(rows(slice(0, 4)), 10 / 1.2), Defect(rows(slice(6, 8)), 12 / 1.2),
                            Defect(rows(slice(5, 6)), 6 / 1.2))  # fmt: skip
    expected = [spro(values[[0, 1, 2]], [[], [], [first, second]]), spro(values[[0, 1, 3]], [[], [], [third]])]
    assert figures["spro"] == pytest.approx(np.mean(expected)) and 0 < figures["spro"] != figures["aupro_5"]
    (box / SATURATIONS).unlink()
    assert cell_pixels(maps, tests, None) == figures | {"spro": None}


def test_aupimo_is_the_mean_over_images_whose_mask_is_there(box):
    tests = images_to_test(box.parent, 128)
    maps = np.random.default_rng(0).random((4, 128, 128), np.float32)
    maps[2, :52] += 0.5  # half of what the first image's masks show, and above all good pixels where it is .5 and more
    figures = cell_pixels(torch.from_numpy(maps), tests, Threshold(1.0, 0.05, 8, ""))
    expected = aupimo(maps[:2], maps[2:], [read_mask(record.mask, 128) for record in tests.records[2:]])
    assert figures["aupimo"] == expected.mean() and min(expected) < 1e-3 < 0.1 < max(expected)
    without = tests.subset([0, 1])
    assert cell_pixels(torch.from_numpy(maps[:2]), without, None) == {} == cell_pixels(None, tests, None)
