"""Figures of maps that were inspected: those of the maps and masks themselves, where there are masks."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fitted_models import run_detect
from PIL import Image
from safetensors.numpy import load_file

from baselines.contract.metrics import number
from baselines.contract.pixel_metrics import pixel_figures
from downstream.inspection.inspection import Inspection
from downstream.inspection.pixel_figures import InspectedPixels, true_mask
from pretrain.data.images import UNLABELED, Record


def inspection(size: tuple[int, int], anomaly_map: np.ndarray | None) -> Inspection:
    height, width = size
    return Inspection(Path("a.png"), width, height, 1.0, 0.5, True, 0.9, 1.0, anomaly_map=anomaly_map)


def test_a_run_over_images_with_masks_ends_with_their_figures(padim_folder, demo_folder, tmp_path, capsys):
    out = tmp_path / "out"
    run_detect("run", demo_folder / "hazelnut", "--model", padim_folder, "--out", out, "--maps")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "at the size of the maps" in line)
    paths = [Path(json.loads(text)["path"]) for text in (out / "results.jsonl").read_text().splitlines()]
    maps, masks = load_file(out / "maps.safetensors"), []
    for path in paths:
        mask = demo_folder / "hazelnut" / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        size = maps["1"].shape
        masks.append(np.array(Image.open(mask).resize(size, 0)) > 0 if mask.exists() else np.zeros(size, bool))
    figures = pixel_figures([maps[str(i + 1)] for i in range(len(paths))], masks, None)
    shown = (figures.auroc, figures.average_precision, figures.aupro, figures.aupro_5)
    assert line.strip() == (
        f"pixels, by {sum(mask.any() for mask in masks)} masks at the size of the maps: "
        "AUROC {}, AP {}, AUPRO {}, to 5 % {}".format(*map(number, shown))
    )


@pytest.mark.parametrize("removed", ["ground_truth", "test"])
def test_without_masks_or_labels_nothing_is_said_of_pixels(removed, padim_folder, demo_folder, tmp_path, capsys):
    data = shutil.copytree(demo_folder / "hazelnut", tmp_path / "hazelnut")
    if removed == "test":  # images as they come from a line, of which nothing is known
        data = shutil.copytree(data / "test" / "good", tmp_path / "line")
    else:
        shutil.rmtree(data / removed)
    run_detect("run", data, "--model", padim_folder, "--out", tmp_path / "out")
    assert "size of the maps" not in capsys.readouterr().out


def test_masks_that_say_nothing_are_told_and_the_images_drawn(padim_folder, demo_folder, tmp_path, capsys):
    data = shutil.copytree(demo_folder, tmp_path / "demo")
    small, damaged, *_ = sorted((data / "hazelnut" / "ground_truth").rglob("*.png"))
    Image.new("L", (5, 4), 255).save(small)
    damaged.write_bytes(damaged.read_bytes()[:50])
    out = tmp_path / "out"
    assert run_detect("run", data, "--model", padim_folder, "--out", out, "--overlays", "all") in (0, 1)
    assert (
        f"2 masks cannot be read, or are of another size than their images, such as {small}" in capsys.readouterr().out
    )
    assert len([*out.glob("*.png")]) == len([*(data / "hazelnut" / "test").rglob("*.png")])


def test_what_is_known_of_an_image(tmp_path):
    Image.fromarray(np.eye(6, 8, dtype=bool)).save(tmp_path / "mask.png")
    record = Record(tmp_path / "a.png", "nut", "test", "crack", tmp_path / "mask.png")
    assert (true_mask(inspection((6, 8), None), record) == np.eye(6, 8, dtype=bool)).all()
    assert true_mask(inspection((8, 6), None), record) is None  # of another size
    (tmp_path / "mask.png").write_bytes(b"\x89PNG\r\n")
    assert true_mask(inspection((6, 8), None), record) is None  # damaged
    good, unknown, bare = (Record(record.path, "nut", "test", name) for name in ("good", UNLABELED, "crack"))
    assert not true_mask(inspection((6, 8), None), good).any()
    assert true_mask(inspection((6, 8), None), unknown) is None is true_mask(inspection((6, 8), None), bare)


def test_masks_are_compared_at_the_size_of_the_map():
    pixels, truth = InspectedPixels(), np.zeros((40, 80), dtype=bool)
    truth[:20, :20] = True
    pixels.add(inspection((40, 80), None), truth)
    pixels.add(inspection((40, 80), np.zeros((2, 4), np.float32)), None)
    assert pixels.line() == "" and set(pixels.as_json().values()) == {None}
    pixels.add(inspection((40, 80), np.eye(2, 4, dtype=np.float32)), truth)
    # One defective pixel of eight, as high as one of seven good ones: from (0, 0) straight to (1/7, 1).
    expected = {"auroc": 1 - 0.5 / 7, "average_precision": 0.5, "aupro": (0.3 - 0.5 / 7) / 0.3, "aupro_5": 0.35 / 2}
    assert pixels.as_json() == pytest.approx(expected, rel=1e-12)
    assert pixels.line().startswith("pixels, by 1 mask at the size of the maps: AUROC .929, AP .500, AUPRO")
