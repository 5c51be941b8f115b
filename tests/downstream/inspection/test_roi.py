"""Where to look: masks and polygons, and what is wrong with them."""

import json

import numpy as np
import pytest
from fitted_models import SMALL, run_detect
from PIL import Image

from downstream.inspection.roi import DrawnRoi, read_roi
from pretrain.command import UserError

IMAGE = (100, 200)  # height, width
RIGHT = [[100, 0], [200, 0], [200, 100], [100, 100]]


def written(path, **polygons):
    path.write_text(json.dumps(polygons))
    return path


def test_polygons_are_in_pixels_of_the_image(tmp_path):
    roi = read_roi(written(tmp_path / "roi.json", include=[RIGHT]), IMAGE, (50, 100)).mask
    assert roi.shape == (50, 100) and roi[:, 51:].all() and not roi[:, :49].any()
    ignored = read_roi(
        written(tmp_path / "roi.json", include=[RIGHT], ignore=[[[100, 0], [200, 0], [150, 60]]]), IMAGE, 40
    ).mask
    assert ignored.shape == (40, 40) and ignored[30:, 21:].all() and not ignored[5, 30]
    rest = read_roi(written(tmp_path / "roi.json", ignore=[RIGHT]), IMAGE, 40).mask
    assert rest[:, :19].all() and not rest[:, 21:].any()


def test_a_mask_is_an_image_of_the_size_of_the_images(tmp_path):
    mask = np.zeros(IMAGE, np.uint8)
    mask[:, :100] = 255
    Image.fromarray(mask).save(tmp_path / "roi.png")
    roi, drawn = read_roi(tmp_path / "roi.png", IMAGE, 64)
    assert drawn is None and roi[:, :31].all() and not roi[:, 33:].any()
    # Twice as large is drawn on the same image; of another shape it is not.
    assert np.array_equal(read_roi(tmp_path / "roi.png", (200, 400), 64).mask, roi)
    with pytest.raises(UserError, match="has 200x100 px, and the images 100: draw it on one of them"):
        read_roi(tmp_path / "roi.png", (100, 100), 64)


@pytest.mark.parametrize(
    "text",
    ["[]", "{", "5", json.dumps({"include": [[[0, 0], [1, 1]]]}), json.dumps({"include": [[["a", 0], [1, 1], [2, 2]]]}),
     json.dumps({"inside": []}), json.dumps({"include": [[[0, 0], [1, 1], [1e999, 2]]]}),
     json.dumps({"include": [], "zones": []}),
     json.dumps({"include": [[[0, 0], [1, 1], [10**400, 2]]]})],
)  # fmt: skip
def test_a_file_that_is_none_says_what_to_write(text, tmp_path):
    (tmp_path / "roi.json").write_text(text)
    with pytest.raises(UserError, match='cannot be used .*give {"include"'):
        read_roi(tmp_path / "roi.json", IMAGE, 64)


ZONE = {"name": "right", "include": [RIGHT]}


def test_zones_are_numbered_and_the_later_one_counts(tmp_path):
    corner = {"name": "corner", "include": [[[150, 0], [200, 0], [200, 50], [150, 50]]], "min_area_px": 40}
    path = written(tmp_path / "roi.json", format=1, zones=[ZONE, corner], ignore=[[[100, 50], [150, 50], [150, 100]]])
    mask, drawn = read_roi(path, IMAGE, (50, 100))
    labels = drawn.labels((50, 100))
    assert labels[40, 90] == 1 and labels[10, 90] == 2 and labels[10, 20] == labels[27, 65] == 0
    assert np.array_equal(labels > 0, mask) and drawn.zones[1].min_area_px == 40
    assert DrawnRoi.from_json(json.loads(json.dumps(drawn.as_json()))) == drawn
    # Drawn on a copy of half the size, it is the same; and it says so.
    half = [{**zone, "include": [[[x / 2, y / 2] for x, y in zone["include"][0]]]} for zone in (ZONE, corner)]
    _, small = read_roi(written(tmp_path / "half.json", zones=half, image_size=[100, 50]), IMAGE, (50, 100))
    assert (small.labels((50, 100))[:20] == labels[:20]).all() and small.as_json()["image_size"] == [100, 50]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"zones": [{"include": [RIGHT]}]}, "zone 1 has no name"),
        ({"zones": [{**ZONE, "name": "a\nb"}]}, "zone 1 has no name"),
        ({"zones": [{"name": "a", "include": []}]}, "zone 'a' includes no polygon"),
        ({"zones": [ZONE, ZONE]}, "two zones are called 'right'"),
        ({"zones": [{**ZONE, "thresold": 1}]}, "zone 1 has no 'thresold'; did you mean threshold"),
        ({"zones": [{**ZONE, "threshold": 1, "false_alarm_rate": 0.1}]}, "give one of the two"),
        ({"zones": [{**ZONE, "threshold": 0}]}, "the threshold of zone 'right' is 0: give a number above 0"),
        ({"zones": [{**ZONE, "threshold": "1"}]}, "has '1', which is no number"),
        ({"zones": [{**ZONE, "false_alarm_rate": 1}]}, "give a share above 0 and below 1"),
        ({"zones": [{**ZONE, "min_area_px": 2.5}]}, "give a whole number of pixels"),
        ({"zones": [3]}, "zone 1 is 3"),
        ({"zones": [ZONE], "include": [RIGHT]}, "leave include out"),
        ({"zones": [ZONE], "format": 2}, "its format is 2, and this heldout reads 1"),
        ({"zones": [ZONE], "image_size": [100]}, r"its image_size is \[100\]"),
        ({"zones": [ZONE], "image_size": [100, 100]}, "it was drawn on 100 px, and the images have 200x100"),
        ({"zones": [ZONE, {"name": "off", "include": [[[300, 0], [400, 0], [400, 9]]]}]}, "is left of zone 'off'"),
        ({"zones": [ZONE, {**ZONE, "name": "over it"}]}, "nothing is left of zone 'right'.* covered by later zones"),
        ({"zones": [{**ZONE, "min_area_px": 10_001}]}, "has 10000 px, so no defect in it could"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)  # fmt: skip
def test_each_fault_of_a_zone_is_one_sentence(change, reason, tmp_path):
    with pytest.raises(UserError, match=reason):
        read_roi(written(tmp_path / "roi.json", **change), IMAGE, (100, 200))


def test_an_area_for_all_zones_fits_into_each_that_has_none_of_its_own(tmp_path):
    path = written(tmp_path / "roi.json", zones=[{**ZONE, "min_area_px": 40}])
    read_roi(path, IMAGE, (100, 200), minimum_area_px=10_001)
    path = written(tmp_path / "roi.json", zones=[ZONE])
    with pytest.raises(UserError, match="no defect in it could have the --minimum-area of 10001"):
        read_roi(path, IMAGE, (100, 200), minimum_area_px=10_001)


def test_polygons_that_were_drawn_on_a_larger_image_are_not_cut_off_in_silence(tmp_path):
    """Beyond the border by a little is drawn across it; far beyond, the numbers are of another image's pixels."""
    inside = [[20, 10], [210, 10], [210, 104], [20, 104]]
    read_roi(written(tmp_path / "roi.json", include=[inside]), IMAGE, 64)
    larger = [[4 * x, 4 * y] for x, y in inside]
    for area in ({"include": [larger]}, {"ignore": [larger]}, {"zones": [{**ZONE, "include": [larger]}]}):
        with pytest.raises(UserError, match="reaches to 840, 416, and the images have 200x100 px: say by image_size"):
            read_roi(written(tmp_path / "roi.json", **area), IMAGE, 64)
        read_roi(written(tmp_path / "roi.json", **area, image_size=[800, 400]), IMAGE, 64)


def test_nothing_to_look_at_and_no_file(tmp_path):
    with pytest.raises(UserError, match="leaves nothing of the 200x100 px images to look at"):
        read_roi(written(tmp_path / "roi.json", include=[[[300, 0], [400, 0], [400, 100]]]), IMAGE, 64)
    with pytest.raises(UserError, match="cannot be used"):
        read_roi(tmp_path / "none.png", IMAGE, 64)
    with pytest.raises(UserError, match="cannot be used"):
        read_roi(tmp_path / "none.json", IMAGE, 64)


def test_a_model_looks_where_it_was_told_to(demo_folder, blotched, tmp_path, capsys):
    """The blatant defect lies between (100, 60) and (140, 110)."""
    data = ("--data", demo_folder, "--category", "hazelnut", *SMALL)
    for name, polygon, code in (("on", [[80, 40], [160, 40], [160, 130], [80, 130]], 1), ("off", RIGHT, 0)):
        roi = written(tmp_path / "roi.json", **{"include" if name == "on" else "ignore": [polygon]})
        if name == "off":
            roi = written(tmp_path / "roi.json", ignore=[[[60, 20], [200, 20], [200, 160], [60, 160]]])
        model = tmp_path / name
        assert run_detect("fit", *data, "--roi", roi, "--out", model) == 0
        assert "region of interest" in capsys.readouterr().out
        assert run_detect("run", blotched, "--model", model, "--out", tmp_path / f"out {name}") == code
    _, line = map(json.loads, (tmp_path / "out on" / "results.jsonl").read_text().splitlines())
    left, top, right, bottom = line["regions"][0]["box"]
    assert left >= 76 and top >= 36 and right <= 164 and bottom <= 134
    drawn = np.asarray(Image.open(tmp_path / "out on" / line["image"]))
    assert (drawn == (120, 200, 120)).all(2).any()


def test_a_method_that_sees_images_as_a_whole_has_none(demo_folder, tmp_path, capsys):
    roi = written(tmp_path / "roi.json", include=[RIGHT])
    data = ("--data", demo_folder, "--category", "hazelnut", "--out", tmp_path / "model", "--size-px", 64)
    assert run_detect("fit", *data, "--roi", roi, "--method", "mean") == 2
    assert "--roi takes padim, patchcore, fused or residual" in capsys.readouterr().err
