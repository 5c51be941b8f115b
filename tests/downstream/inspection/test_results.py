"""What is written of a test by area: lines, masks, images, figures."""

import json
import shutil
import weakref

import numpy as np
import pytest
from filelock import FileLock
from fitted_models import run_area, run_detect
from PIL import Image

from downstream.inspection.inspection import Inspection
from downstream.inspection.results import AreaResults, DetectResults
from pretrain.data.decode import read_mask
from pretrain.data.images import UNLABELED, Record


def test_an_image_is_defective_if_and_only_if_it_has_a_region(validated, demo_folder, tmp_path):
    out = tmp_path / "out"
    words = ("--model", validated, "--data", demo_folder, "--out", out, "--overlays", "all")
    assert run_area("test", *words) == 0
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    files = sorted((demo_folder / "hazelnut" / "test").rglob("*.png"))
    assert len(lines) == len(files) > 6
    for line in lines:
        assert line["is_defective"] == (line["score"] > line["threshold"]) == bool(line["regions"])
        called = read_mask(out / line["segmentation"]) if line["regions"] else np.zeros(0, bool)
        assert called.any() == line["is_defective"]
    names = [path.relative_to(demo_folder / "hazelnut" / "test") for path in files]
    for folder in ("masks", "overlays"):
        assert sorted(path.relative_to(out / folder) for path in (out / folder).rglob("*.png")) == names
    with Image.open(out / "masks" / names[0]) as mask, Image.open(files[0]) as image:
        assert mask.size == image.size
    figures = json.loads((out / "figures.json").read_text())
    bad = [line for line in lines if line["label"] != "good"]
    good = [line for line in lines if line["label"] == "good"]
    found, passed = (sum(line["is_defective"] for line in bad), sum(not line["is_defective"] for line in good))
    assert figures["confusion"] == {
        "found": found, "missed": len(bad) - found, "true_good": passed, "false_alarms": len(good) - passed,
    }  # fmt: skip
    rates = [found / len(bad), passed / len(good), (found / len(bad) + passed / len(good)) / 2]
    assert list(figures["by area"].values()) == pytest.approx(rates)
    assert list(figures["all called good"].values()) == [0, 1, 0.5]
    assert list(figures["all called defective"].values()) == [1, 0, 0.5]
    assert sum(part["images"] for part in figures["defects"].values()) == len(lines)
    assert 0 <= figures["masks"]["iou"] <= 1 and figures["masks"]["images"] == len(bad)
    assert 0 < figures["pixels"]["aupro_5"] < figures["pixels"]["aupro"] < 1


def test_two_inspections_do_not_write_into_one_folder(padim_folder, demo_folder, tmp_path, capsys):
    arguments = ("run", demo_folder / "hazelnut", "--model", padim_folder, "--out", tmp_path)
    (tmp_path / "results.jsonl").write_text("of the other\n")
    with FileLock(tmp_path / "lock"):
        assert run_detect(*arguments) == 2
    assert "another process writes results into" in capsys.readouterr().err
    assert (tmp_path / "results.jsonl").read_text() == "of the other\n"
    assert run_detect(*arguments) in (0, 1) and "of the other" not in (tmp_path / "results.jsonl").read_text()


@pytest.mark.parametrize("defect", ["crack", UNLABELED])
def test_maps_of_images_that_are_written_down_are_let_go(defect, tmp_path):
    anomaly_map = np.zeros((8, 8), np.float32)
    held, record = weakref.ref(anomaly_map), Record(tmp_path / "a.png", "nut", "test", defect)
    inspection = Inspection(record.path, 8, 8, 1.0, 0.5, True, 0.9, 1.0, True, (), 0.5, anomaly_map)
    of_a_run_before = tmp_path / "out" / "maps.safetensors"
    of_a_run_before.parent.mkdir()
    of_a_run_before.write_bytes(b"")
    with DetectResults(tmp_path / "out", "none", keep_maps=False) as results:
        results.add(inspection, record)
        del inspection, anomaly_map
        assert held() is None
    assert not of_a_run_before.exists()


def test_iou_counts_the_pixels_of_the_masks_written(validated, demo_folder, tmp_path):
    assert run_area("test", "--model", validated, "--data", demo_folder, "--out", tmp_path, "--threshold", "0.1") == 0
    both = either = 0
    for line in map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines()):
        called = np.asarray(Image.open(tmp_path / line["segmentation"])).astype(bool)
        stem = line["segmentation"].split("/")[-1].removesuffix(".png")
        of_kind = demo_folder / "hazelnut" / "ground_truth" / line["label"]
        truth = read_mask(of_kind / f"{stem}_mask.png") if of_kind.is_dir() else np.zeros_like(called)
        both, either = both + (called & truth).sum(), either + (called | truth).sum()
    assert both > 0
    assert json.loads((tmp_path / "figures.json").read_text())["masks"]["iou"] == pytest.approx(both / either)


def test_an_image_smaller_than_the_area_is_named_and_the_rest_goes_on(validated, demo_folder, tmp_path, capsys):
    data = tmp_path / "hazelnut"
    shutil.copytree(demo_folder / "hazelnut" / "test", data / "test")
    Image.new("RGB", (7, 7)).save(data / "test" / "good" / "tiny.png")
    (data / "test" / "good" / "broken.png").write_bytes(b"no image")
    assert run_area("test", "--model", validated, "--data", data, "--out", tmp_path / "out") == 0
    words = capsys.readouterr()
    assert "60 px is more than an image of 7x7 has" in words.err and "2 images could not be inspected" in words.out
    problems = json.loads((tmp_path / "out" / "figures.json").read_text())["problems"]
    assert [problem["path"].rsplit("/")[-1] for problem in problems] == ["broken.png", "tiny.png"]


def test_images_of_one_name_keep_their_masks_apart(validated, demo_folder, tmp_path):
    data = tmp_path / "hazelnut" / "test" / "good"
    data.mkdir(parents=True)
    first, second = sorted((demo_folder / "hazelnut" / "test" / "good").iterdir())[:2]
    for path, name in ((first, "a.jpg"), (second, "a.png")):
        with Image.open(path) as image:
            image.convert("RGB").save(data / name)
    assert run_area("test", "--model", validated, "--data", data.parents[1], "--out", tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out/masks/good").iterdir()) == ["a.png", "a.png.png"]


def test_no_image_of_many_of_one_name_overwrites_another(tmp_path):
    """As KolektorSDD's, where every commutator has its Part0.jpg."""
    results = AreaResults.__new__(AreaResults)
    results._names = set()
    names = [results._name(Record(tmp_path / f"kos0{n}/Part0.jpg", "kos", "test", "good")).name for n in range(4)]
    assert names == ["Part0.png", "Part0.jpg.png", "Part0.jpg.2.png", "Part0.jpg.3.png"]
