"""Annotations of four formats, whole and wrong; shapes as pixels."""

import os
import sys

import numpy as np
import pytest
from made_annotations import HEIGHT, TRIANGLE, WIDTH, coco, labelme, voc

from pretrain.command import UserError
from pretrain.data.annotations import Shape, filled, find_annotations, rasterized, read_annotations


def box_mask() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[2:5, 3:7] = True
    return mask


def test_pixels_are_inside_where_their_center_is():
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    triangle = filled(np.reshape(TRIANGLE, (-1, 2)), HEIGHT, WIDTH)
    assert np.array_equal(triangle, (columns >= 2) & (rows >= 1) & (columns + rows < 10))
    bow = np.array([(0, 0), (8, 8), (8, 0), (0, 8)], float)  # two triangles that meet at (4, 4)
    assert not filled(bow, 8, 8)[:3, 4].any() and filled(bow, 8, 8)[3:5, [1, 6]].all()
    far = np.array([(-5, -5), (50, -5), (50, 50), (-5, 50)], float)
    assert filled(far, HEIGHT, WIDTH).all()


def test_what_is_thinner_than_a_pixel_is_drawn_all_the_same():
    assert np.argwhere(filled(np.array([(3.1, 2.1), (3.2, 2.1), (3.2, 2.2)]), HEIGHT, WIDTH)).tolist() == [[2, 3]]
    assert filled(np.array([(3.1, 2.1), (40, 2.1), (3.1, 2.2)]), HEIGHT, WIDTH)[2, 3]


def test_shapes_are_united_and_a_mask_has_to_fit():
    half = Shape("a", np.array([(0, 0), (0.5, 0), (0.5, 1), (0, 1)]), is_relative=True)
    union = rasterized([half, Shape("b", mask=box_mask())], HEIGHT, WIDTH)
    assert union[:, :6].all() and union[:, 6:].sum() == 3
    with pytest.raises(UserError, match="is 12x10"):
        rasterized([Shape("b", mask=box_mask())], 5, 5)


def test_coco_has_outlines_boxes_and_masks_in_one_file(tmp_path):
    counts = [0]  # down the columns, beginning with what is not in it
    for value in box_mask().T.ravel():
        if value == len(counts) % 2:
            counts.append(0)
        counts[-1] += 1
    path = coco(
        tmp_path / "coco.json",
        {"image_id": 0, "category_id": 7, "segmentation": [TRIANGLE], "bbox": [2, 1, 7, 7]},
        {"image_id": 0, "category_id": 7, "segmentation": [], "bbox": [3, 2, 4, 3]},
        {"image_id": 1, "category_id": 7, "segmentation": {"counts": counts, "size": [HEIGHT, WIDTH]}},
        {"image_id": 9, "category_id": 7, "bbox": [3, 2, 4, 3]},
        {"image_id": 1, "category_id": 7, "segmentation": {"counts": "aab", "size": [HEIGHT, WIDTH]}},
        {"image_id": 1, "category_id": 7},
    )
    read = read_annotations(path)
    first, second = read.images
    assert read.format == "COCO" and read.lists_all and (first.name, first.width, first.height) == ("0.png", 12, 10)
    assert {shape.label for shape in first.shapes + second.shapes} == {"dent"}
    triangle = filled(np.reshape(TRIANGLE, (-1, 2)), HEIGHT, WIDTH)
    assert np.array_equal(rasterized(first.shapes, HEIGHT, WIDTH), triangle | box_mask())
    assert np.array_equal(rasterized(second.shapes, HEIGHT, WIDTH), box_mask())
    assert [problem.reason.split(" image ")[0] for problem in read.problems] == [
        "annotates an", "has a compressed mask on", "has an annotation without outline and box on",
    ]  # fmt: skip


def test_voc_has_boxes(tmp_path):
    voc(tmp_path, "b.png")
    voc(tmp_path, "a.png", label="scratch")
    read = read_annotations(tmp_path)
    assert [(image.name, image.shapes[0].label) for image in read.images] == [("a.png", "scratch"), ("b.png", "dent")]
    assert np.array_equal(rasterized(read.images[0].shapes, HEIGHT, WIDTH), box_mask())
    assert read.format == "VOC" and not read.lists_all


@pytest.mark.parametrize("names", ["names: [hole, dent]", "names: {1: dent}", None])
def test_yolo_has_boxes_and_outlines_as_shares(names, tmp_path):
    labels = tmp_path / "labels/train"
    labels.mkdir(parents=True)
    outline = " ".join(f"{x / WIDTH} {y / HEIGHT}" for x, y in np.reshape(TRIANGLE, (-1, 2)))
    (labels / "0.txt").write_text(f"1 {5 / WIDTH} 0.35 {4 / WIDTH} 0.3\n\n1 {outline}\n")
    (labels / "1.txt").write_text("")
    (tmp_path / "data.yaml").write_text(names or "nc: 2")
    triangle = filled(np.reshape(TRIANGLE, (-1, 2)), HEIGHT, WIDTH)
    for path in (tmp_path / "data.yaml", tmp_path / "labels"):
        first, second = read_annotations(path).images
        assert np.array_equal(rasterized(first.shapes, HEIGHT, WIDTH), triangle | box_mask())
        assert first.shapes[0].label == ("dent" if names else "class1")
        assert first.name.endswith("train/0") and second.shapes == ()


def test_labelme_has_several_forms(tmp_path):
    labelme(
        tmp_path / "0.json",
        ("rectangle", [[7, 5], [3, 2]]),
        ("polygon", np.reshape(TRIANGLE, (-1, 2)).tolist()),
        ("circle", [[6, 5], [6, 8]]),
        ("line", [[1, 1], [2, 2]]),
    )
    read = read_annotations(tmp_path)
    (image,) = read.images
    assert np.array_equal(rasterized(image.shapes[:1], HEIGHT, WIDTH), box_mask())
    assert rasterized(image.shapes[2:], HEIGHT, WIDTH).sum() == pytest.approx(9 * np.pi, abs=5)
    assert len(image.shapes) == 3 and "a line of 2 points, which encloses nothing" in read.problems[0].reason


@pytest.mark.parametrize("place", [".", "annotations", "Annotations", "labels"])
def test_annotations_are_found_beside_the_images(place, tmp_path):
    with pytest.raises(UserError, match="no annotations in .*--annotations"):
        find_annotations(tmp_path)
    (tmp_path / "notes.txt").write_text("12 lids were photographed")
    (tmp_path / "report.json").write_text("{}")
    voc(tmp_path / place)
    assert find_annotations(tmp_path) == tmp_path / place


def test_what_cannot_be_read_is_one_sentence(tmp_path):
    wrong = {
        "damaged.json": ("{", "damaged"),
        "other.json": ("[]", "no annotations of one format"),
        "coco.json": ('{"images": [{}], "annotations": []}', "not as COCO has it .KeyError"),
        "labelme.json": ('{"shapes": [{"points": [[1, "a"]]}]}', "not as LabelMe has it"),
        "voc/a.xml": ("<annotation>", "damaged"),
        "voc3/a.xml": ("<annotation><object><name>a,b</name></object></annotation>", "label 'a,b', and labelformat"),
        "voc2/a.xml": ("<annotation></annotation>", "not as Pascal VOC has it"),
        "yolo/a.txt": ("1 0.1 0.1 0.2 0.2\n1 0.3 0.3 0.4\n", "line 2: .* no object as YOLO has it"),
        "picture.bmp": ("", "no annotation that can be read"),
    }
    for name, (text, words) in wrong.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        with pytest.raises(UserError, match=words) as raised:
            read_annotations(path if path.suffix in (".json", ".bmp") else path.parent)
        assert str(raised.value).endswith(".") and "\n" not in str(raised.value)
    with pytest.raises(UserError, match="no file and no folder"):
        read_annotations(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no annotations in"):
        read_annotations(tmp_path / "empty")


def test_labelformat_is_asked_for_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "labelformat.formats", None)
    with pytest.raises(UserError, match="read by labelformat, which is not installed: pip install"):
        read_annotations(coco(tmp_path / "coco.json"))
    assert read_annotations(labelme(tmp_path / "labelme.json")).format == "LabelMe"


def test_pipes_and_folders_are_no_label_files(tmp_path):
    """A pipe that nobody writes into would block for ever."""
    os.mkfifo(tmp_path / "0.txt")
    os.mkfifo(tmp_path / "data.yaml")
    (tmp_path / "1.txt").mkdir()
    (tmp_path / "2.txt").write_text("1 0.5 0.5 0.2 0.2")
    read = read_annotations(tmp_path)
    assert [(image.name, image.shapes[0].label) for image in read.images] == [("2", "class1")]
    os.mkfifo(tmp_path / "voc.xml")
    with pytest.raises(UserError, match="voc.xml is damaged .*no regular file"):
        read_annotations(tmp_path)


def test_files_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("pretrain.data.annotations.MAX_FILE_BYTES", 10)
    (tmp_path / "2.txt").write_text("1 0.5 0.5 0.2 0.2")
    with pytest.raises(UserError, match=r"2.txt cannot be read \(it has 17 bytes, more than 10\)"):
        read_annotations(tmp_path)


def test_only_words_and_numbers_name_classes(tmp_path):
    (tmp_path / "0.txt").write_text("".join(f"{kind} 0.5 0.5 0.2 0.2\n" for kind in range(4)))
    (tmp_path / "data.yaml").write_text("names: {0: dent, 1: [a, b], '2': 7, x: hole, 3: {a: b}}")
    (image,) = read_annotations(tmp_path).images
    assert [shape.label for shape in image.shapes] == ["dent", "class1", "7", "class3"]


@pytest.mark.parametrize("first", ["nan", "inf"])
def test_a_class_that_is_no_number_is_one_sentence(first, tmp_path):
    (tmp_path / "0.txt").write_text(f"1 0.5 0.5 0.2 0.2\n{first} 0.5 0.5 0.2 0.2")
    with pytest.raises(UserError, match="line 2: .* is no object as YOLO has it"):
        read_annotations(tmp_path)


def test_points_have_to_be_finite(tmp_path):
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo/0.txt").write_text("1 0.5 0.5 0.2 0.2\n1 inf 0.5 0.2 0.2")
    labelme(tmp_path / "labelme/0.json", ("polygon", [[1, 1], [float("inf"), 1], [1, 5]]))
    triangle = [float("nan"), *TRIANGLE[1:]]
    coco(tmp_path / "coco/coco.json", {"image_id": 0, "category_id": 7, "segmentation": [triangle]}, images=1)
    for folder in ("yolo", "labelme", "coco"):
        read = read_annotations(tmp_path / folder)
        (image,) = read.images
        assert image.is_refused and len(image.shapes) == (folder == "yolo"), folder
        assert "that is no finite number" in read.problems[0].reason


def test_a_size_without_end_is_one_sentence(tmp_path):
    path = labelme(tmp_path / "0.json")
    path.write_text(path.read_text().replace(f'"imageWidth": {WIDTH}', '"imageWidth": Infinity'))
    with pytest.raises(UserError, match="not as LabelMe has it .OverflowError"):
        read_annotations(tmp_path)


def test_labels_that_are_not_found_make_no_image_good(tmp_path):
    (tmp_path / "0.txt").write_text("1 0.5 0.5 0.2 0.2")
    (tmp_path / "README.txt").write_text("from our line")
    (tmp_path / "data.yaml").write_text("names: [dent]")
    with pytest.raises(UserError, match="no labels in .*, or other .txt among them"):
        read_annotations(tmp_path / "data.yaml")
