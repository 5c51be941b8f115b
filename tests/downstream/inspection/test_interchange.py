"""What other tools are given: COCO's rules by hand and by a reader of annotations, Label Studio's percent, a table."""

import csv
import json
import os
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fitted_models import run_detect
from PIL import Image

from baselines.contract.regions import region_mask, regions
from baselines.contract.threshold import Threshold
from downstream.inspection import interchange
from downstream.inspection.inspection import Inspection
from downstream.inspection.interchange import FORMATS, csv_line, marked, region_pixels, run_lengths
from downstream.inspection.results import DetectResults
from downstream.inspection.zones import ZoneLimit, ZoneRule, zone_regions
from pretrain.data.annotations import rasterized, read_annotations
from pretrain.data.images import Record


def decoded(counts: list[int], height: int, width: int) -> np.ndarray:
    """A mask of COCO's, as its own tools read it: runs down the columns, of 0 first."""
    values = np.repeat(np.arange(len(counts)) % 2, counts)
    assert len(values) == height * width
    return values.reshape(width, height).T.astype(bool)


def inspection_of(anomaly_map: np.ndarray, height: int, width: int, is_defective: bool = True) -> Inspection:
    found = regions(anomaly_map, 0.9, 0, (height, width))
    return Inspection(Path("image.png"), width, height, 1.0, 0.9, is_defective, 0.8, 1.0, regions=found,
                      map_threshold=0.9, anomaly_map=anomaly_map)  # fmt: skip


@pytest.mark.parametrize("counts", [[0, 6], [6], [2, 3, 1], [0, 1, 4, 1]])
def test_runs_go_down_the_columns_and_begin_outside(counts):
    mask = decoded(counts, 2, 3)
    if mask.any():
        assert run_lengths(mask, (0, 0, 3, 2), 2, 3) == counts
    rows, columns = np.nonzero(mask)
    if len(rows):  # the same from the mask's own box
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert run_lengths(mask[box[1] : box[3], box[0] : box[2]], box, 2, 3) == counts


@pytest.mark.parametrize("size", [(24, 32), (96, 64), (100, 77), (24, 16), (12, 9)])
def test_masks_are_the_maps_regions_and_disjoint(size):
    height, width = size
    anomaly_map = np.random.default_rng(3).random((24, 32)).astype(np.float32)
    found = marked(inspection_of(anomaly_map, height, width), "")
    masks = [decoded(counts, height, width) for counts in found.masks]
    assert len(masks) == len(found.regions) > 10
    for mask, region in zip(masks, found.regions, strict=True):
        left, top, right, bottom = region.box
        assert mask.any() and mask.sum() == mask[top:bottom, left:right].sum()
    if height % 24 == width % 32 == 0:  # else pixels lie between those of the map, or the other way round
        expected = Image.fromarray(region_mask(anomaly_map, 0.9)).resize((width, height), Image.Resampling.NEAREST)
        assert np.array_equal(np.any(masks, axis=0), np.asarray(expected)) and np.sum(masks, axis=0).max() == 1


def test_a_region_in_the_box_of_another_is_not_part_of_it():
    ring = np.zeros((9, 9), np.float32)
    ring[1:8, 1:8], ring[2:7, 2:7], ring[4, 4] = 1.0, 0.0, 2.0
    inspection = inspection_of(ring, 9, 9)
    inner, outer = (region_pixels(inspection, region) for region in inspection.regions)
    assert inner.tolist() == [[True]] and outer.sum() == 24 and not outer[3, 3]


def test_a_region_is_told_from_another_of_the_same_peak_by_its_place():
    corner = np.zeros((5, 5), np.float32)
    corner[4], corner[:, 4], corner[0, 0] = 1.0, 1.0, 1.0
    inspection = inspection_of(corner, 10, 10)
    by_size = sorted(inspection.regions, key=lambda region: region.area_px)
    assert [region_pixels(inspection, region).sum() for region in by_size] == [4, 36]


def test_masks_of_zones_end_where_their_zones_do():
    relative = np.random.default_rng(3).random((24, 32)).astype(np.float32)
    labels = np.ones((24, 32), np.uint8)
    labels[:, 15:] = 2
    limits = [ZoneLimit(name, 0, Threshold(1.0, 0.1, 9, "")) for name in ("left", "right")]
    rule = ZoneRule(limits, Threshold(0.6, 0.1, 9, ""), [])
    found = zone_regions(relative, labels, rule, (48, 64))
    inspection = replace(inspection_of(relative, 48, 64), regions=found, map_threshold=0.6)
    masks = marked(inspection, "", [("left", labels == 1), ("right", labels == 2)]).masks
    for number, zone in enumerate(("left", "right"), 1):
        own = [decoded(counts, 48, 64) for counts, region in zip(masks, found, strict=True) if region.zone == zone]
        expected = np.kron((relative > 0.6) & (labels == number), np.ones((2, 2), int))
        assert len(own) > 1 and np.array_equal(np.sum(own, axis=0), expected)


def test_the_code_of_a_large_mask_takes_few_bytes_a_pixel():
    pixels = np.ones((1500, 1000), bool)
    tracemalloc.start()
    assert run_lengths(pixels, (7, 0, 1007, 1500), 1500, 1100) == [7 * 1500, pixels.size, 93 * 1500]
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 4 * pixels.size


@pytest.mark.parametrize("formats", [(), ("csv", "label-studio"), ("coco",)])
def test_masks_are_made_where_they_are_written(formats, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(interchange, "region_pixels", lambda *args: made.append(args) or region_pixels(*args))
    with DetectResults(tmp_path, "none", False, formats=formats) as results:
        results.add(inspection_of(np.eye(8, dtype=np.float32), 8, 8), Record(Path("image.png"), "nut", "", ""))
    assert bool(made) == ("coco" in formats)


def test_names_of_any_bytes_are_written_as_they_are(tmp_path):
    path = Path(os.fsdecode(b"/a/bolt\xff.png"))
    found = [replace(inspection_of(np.eye(8, dtype=np.float32), 8, 8), path=path)]
    with DetectResults(tmp_path, "none", False, formats=tuple(FORMATS)) as results:
        results.add(*found, Record(path, "nut", "", ""))
    assert b"/a/bolt\xff.png" in (tmp_path / "results.csv").read_bytes()
    assert b"bolt%FF.png" in (tmp_path / "results.label-studio.json").read_bytes()
    assert json.loads((tmp_path / "results.coco.json").read_text())["images"][0]["file_name"] == path.name


def test_a_run_that_is_stopped_keeps_what_it_has_beside_what_was_there(tmp_path, capsys):
    found, record = inspection_of(np.eye(8, dtype=np.float32), 8, 8), Record(Path("image.png"), "nut", "", "")
    files = ("results.jsonl", "maps.safetensors", *(name for name, _ in FORMATS.values()))
    before = {}
    for count, error in ((1, None), (2, KeyboardInterrupt), (0, KeyboardInterrupt)):
        with suppress(KeyboardInterrupt), DetectResults(tmp_path, "none", True, formats=tuple(FORMATS)) as results:
            for _ in range(count):
                results.add(found, record)
            if error:
                raise error
        before = before or {name: (tmp_path / name).read_bytes() for name in files}
        assert {name: (tmp_path / name).read_bytes() for name in files} == before
        partial = tmp_path / "results.partial.jsonl"
        assert partial.exists() == (count == 2)
        if count == 2:
            assert len(partial.read_text().splitlines()) == 2 and str(partial) in capsys.readouterr().err


def test_what_is_called_good_is_listed_and_not_marked():
    anomaly_map = np.eye(8, dtype=np.float32)
    found = marked(inspection_of(anomaly_map, 8, 8, is_defective=False), "")
    assert found.inspection.regions and not found.regions and not found.masks


def test_no_cell_is_a_formula():
    assert csv_line(["=1+1", -3, "a,b"]) == '\'=1+1,-3,"a,b"\r\n'


@pytest.fixture(scope="module")
def written(padim_folder, demo_folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out")
    arguments = ("--model", padim_folder, "--out", out, "--overlays", "none", "--format", "coco,label-studio,csv")
    assert run_detect("run", demo_folder / "hazelnut", *arguments) == 1
    return out


def test_files_of_a_run_say_what_its_lines_say(written, demo_folder):
    lines = [json.loads(line) for line in (written / "results.jsonl").read_text().splitlines()]
    coco = json.loads((written / "results.coco.json").read_text())
    tasks = json.loads((written / "results.label-studio.json").read_text())
    rows = list(csv.DictReader((written / "results.csv").read_text().splitlines()))
    root = demo_folder / "hazelnut" / "test"
    assert len(lines) == len(coco["images"]) == len(tasks) == len(rows) > 10
    by_image = {image["id"]: [] for image in coco["images"]}
    for annotation in coco["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    assert [a["id"] for a in coco["annotations"]] == [*range(1, 1 + len(coco["annotations"]))]
    for line, image, task, row in zip(lines, coco["images"], tasks, rows, strict=True):
        expected = line["regions"] if line["is_defective"] else []
        assert root / image["file_name"] == Path(line["path"]) and image["width"] == line["width"]
        assert [a["score"] for a in by_image[image["id"]]] == [region["peak"] for region in expected]
        (prediction,) = task["predictions"]
        verdict, *rectangles = prediction["result"]
        assert task["data"]["image"] == f"/data/local-files/?d=test/{image['file_name']}"
        assert verdict["value"]["choices"] == ["defective" if line["is_defective"] else "good"]
        for region, annotation, rectangle in zip(expected, by_image[image["id"]], rectangles, strict=True):
            left, top, right, bottom = region["box"]
            assert annotation["bbox"] == [left, top, right - left, bottom - top]
            value = rectangle["value"]
            assert (value["x"] + value["width"]) * line["width"] / 100 == pytest.approx(right)
            assert (value["y"] + value["height"]) * line["height"] / 100 == pytest.approx(bottom)
            assert value["rectanglelabels"] == ["defect"] and 0 <= value["x"] < 100
        assert (row["path"], row["is_defective"]) == (line["path"], str(line["is_defective"]))
        assert (float(row["score"]), row["label"], int(row["regions"])) == (line["score"], line["label"], len(expected))


def test_the_reader_of_annotations_takes_the_masks(written):
    """labelformat's and ours, which convert.py makes masks of."""
    coco = json.loads((written / "results.coco.json").read_text())
    found = read_annotations(written / "results.coco.json")
    assert not found.problems and len(found.images) == len(coco["images"])
    for image, annotated in zip(coco["images"], found.images, strict=True):
        own = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        size = image["height"], image["width"]
        expected = np.any([decoded(a["segmentation"]["counts"], *size) for a in own] or [np.zeros(size, bool)], axis=0)
        assert np.array_equal(rasterized(annotated.shapes, *size), expected)
        assert {shape.label for shape in annotated.shapes} <= {"defect"}


def test_a_mistyped_format_is_answered_before_the_model_is_read(tmp_path, capsys):
    assert run_detect("run", tmp_path, "--model", tmp_path / "none", "--format", "cocco") == 2
    assert "no format of results named 'cocco'; did you mean coco?" in capsys.readouterr().err
