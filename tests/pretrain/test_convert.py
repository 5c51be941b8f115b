"""Annotated images become a folder that every command reads."""

import numpy as np
import pytest
from made_annotations import coco, labelme, voc
from made_folders import image
from PIL import Image

from pretrain.command import run_command
from pretrain.config import Convert
from pretrain.convert import main
from pretrain.data.dataset import load
from pretrain.data.decode import read_mask

BOX = {"category_id": 7, "bbox": [3, 2, 4, 3]}


def convert(*arguments: object) -> int:
    return run_command(main, Convert, list(map(str, arguments)))


@pytest.fixture
def lids(tmp_path):
    """Eight images, 12 x 10, all different."""
    for number in range(8):
        image(tmp_path / f"lids/{number}.png", level=20 * number)
    return tmp_path / "lids"


def content(folder) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_listed_images_become_a_category_with_masks(lids, tmp_path, capsys):
    annotations = coco(
        tmp_path / "coco.json", {"image_id": 1, **BOX}, {"image_id": 7, **BOX, "bbox": [0, 0, 12, 1]}, images=9
    )
    (lids / "0.png").unlink()
    before = content(lids)
    extra = image(lids / "extra.png", level=255)
    assert convert("--data", lids, "--annotations", annotations, "--out", tmp_path / "out") == 0
    said = capsys.readouterr()
    assert "annotates 0.png, which is not there" in said.err and "annotates 8.png, which is not there" in said.err
    assert "1 images are not named in the annotations (COCO): left out" in said.err
    images = load(tmp_path / "out", 16)
    assert images.problems == () and images.categories == ["lids"]
    assert {(record.path.name, record.split, record.defect) for record in images.records} == {
        ("1.png", "test", "dent"), ("2.png", "train", "good"), ("3.png", "train", "good"), ("4.png", "train", "good"),
        ("5.png", "train", "good"), ("6.png", "test", "good"), ("7.png", "test", "dent"),
    }  # fmt: skip
    masks = [read_mask(record.mask) for record in images.records if record.mask]
    assert [mask.sum() for mask in masks] == [12, 12] and masks[0][2:5, 3:7].all() and masks[1][0].all()
    extra.unlink()
    assert content(lids) == before


def test_annotations_beside_the_images_and_images_that_nobody_named(lids, tmp_path, capsys):
    labelme(lids / "0.json", ("rectangle", [[3, 2], [7, 5]]))
    assert convert("--data", lids, "--out", tmp_path / "out", "--category", "jar") == 0
    assert "7 images are not named in the annotations (LabelMe): taken as good" in capsys.readouterr().err
    images = load(tmp_path / "out", 16)
    assert images.categories == ["jar"] and len(images) == 8 and sum(r.is_anomaly for r in images.records) == 1


def test_names_that_meet_and_labels_that_are_no_folder_names(lids, tmp_path, capsys):
    image(lids / "more/0.png", level=222)
    Image.open(lids / "0.png").save(lids / "0.bmp")
    voc(tmp_path / "voc", "more/0.png", label="a/b c")
    voc(tmp_path / "voc", "1.png", label="OK")
    voc(tmp_path / "voc", "9/2.png", label="../hole")
    assert convert("--data", lids, "--annotations", tmp_path / "voc", "--out", tmp_path / "out") == 0
    records = load(tmp_path / "out", 16).records
    assert len(records) == 10 and len({record.path.stem for record in records}) == 10
    assert {record.defect for record in records} == {"good", "a_b_c", "_hole"}
    assert all(np.count_nonzero(read_mask(record.mask)) == 12 for record in records if record.is_anomaly)


def test_what_does_not_fit_is_named_and_left_out(lids, tmp_path, capsys):
    image(lids / "1.png", size=(30, 30))
    image(lids / "more/0.png", level=222)
    image(lids / "less/x.png", level=223)
    image(lids / "more/x.png", level=224)
    for name in ("1.png", "2.png", "x.png"):
        voc(tmp_path / "voc", name)
    (lids / "2.png").write_bytes(b"")
    assert convert("--data", lids, "--annotations", tmp_path / "voc", "--out", tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert "1.png: is 30x30, its annotation 12x10" in said and "2.png: not an image" in said
    assert "annotates x.png, of which there are 2" in said


def test_mistakes_are_one_sentence_and_leave_nothing(lids, tmp_path, capsys):
    voc(tmp_path / "voc", "nobody.png")
    listed = coco(tmp_path / "coco.json", images=0)
    (tmp_path / "there").mkdir()
    for typed, words in (
        (("--out", tmp_path / "there"), "is there already"),
        (("--out", lids / "new"), "which is never changed"),
        (("--out", tmp_path / "new"), "no annotations in"),
        (("--out", tmp_path / "new", "--annotations", listed), "none of the 8 images"),
        (("--out", tmp_path / "new", "--annotations", tmp_path / "nowhere"), "no file and no folder"),
    ):
        assert convert("--data", lids, *typed) == 2
        said = capsys.readouterr().err.splitlines()
        assert words in said[-1] and said[-1].startswith("error: ")
    assert not (tmp_path / "new").exists() and {path.name for path in lids.iterdir()} == {f"{n}.png" for n in range(8)}


def written(folder) -> dict[str, set[str]]:
    """Names of images by the label they were given."""
    found = {}
    for path in folder.glob("*/t*/*/*.*"):
        found.setdefault(path.parent.name, set()).add(path.name)
    return found


def test_an_image_whose_annotation_is_refused_is_never_good(lids, tmp_path, capsys):
    packed = {"image_id": 1, "category_id": 7, "segmentation": {"counts": "aab", "size": [10, 12]}}
    annotations = coco(tmp_path / "coco.json", packed, {"image_id": 2, **BOX}, {**packed, "image_id": 2}, images=8)
    assert convert("--data", lids, "--annotations", annotations, "--out", tmp_path / "coco") == 0
    said = capsys.readouterr().err
    assert "lids/1.png: is left out" in said and "lids/2.png: is left out" in said
    assert written(tmp_path / "coco") == {"good": {f"{number}.png" for number in (0, 3, 4, 5, 6, 7)}}


@pytest.mark.parametrize("form", ["linestrip", "line", "point"])
def test_lines_and_points_make_no_image_good(form, lids, tmp_path, capsys):
    labelme(lids / "0.json", (form, [[3, 2], [7, 5]]))
    assert convert("--data", lids, "--out", tmp_path / "out") == 0
    assert "lids/0.png: is left out" in capsys.readouterr().err
    assert written(tmp_path / "out") == {"good": {f"{number}.png" for number in range(1, 8)}}


@pytest.mark.parametrize("labels", ["labels/{}", "{}/labels"])
@pytest.mark.parametrize("is_named", [True, False])
def test_labels_of_yolo_belong_to_images_beside_them(labels, is_named, tmp_path, capsys):
    data = tmp_path / "data"
    for part in ("train", "val"):
        folder = data / labels.format(part)
        folder.mkdir(parents=True)
        (folder / "0.txt").write_text("0 0.5 0.5 0.5 0.5\n" if part == "val" else "")
        image(data / labels.replace("labels", "images").format(part) / "0.png", level=len(part))
    (data / "data.yaml").write_text("names: ['0']")
    typed = ("--annotations", data / "data.yaml") if is_named else ()
    assert convert("--data", data, *typed, "--out", tmp_path / "out") == 0
    assert "of which there are" not in capsys.readouterr().err
    assert {name: len(files) for name, files in written(tmp_path / "out").items()} == {"good": 1, "0": 1}


def test_all_images_of_an_ambiguous_name_are_left_out(lids, tmp_path, capsys):
    image(lids / "more/a.png", level=222)
    image(lids / "less/a.png", level=223)
    voc(tmp_path / "voc", "a.png")
    assert convert("--data", lids, "--annotations", tmp_path / "voc", "--out", tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert "more/a.png: is left out" in said and "less/a.png: is left out" in said
    assert written(tmp_path / "out") == {"good": {f"{number}.png" for number in range(8)}}


@pytest.mark.parametrize(
    ("label", "defect"),
    [("0", "0"), ("false", "false"), ("..", "defect"), (".good", "defect_good"), ("Normal", "good")],
)
def test_only_good_ok_and_normal_name_good_images(label, defect, lids, tmp_path):
    voc(tmp_path / "voc", "0.png", label=label)
    assert convert("--data", lids, "--annotations", tmp_path / "voc", "--out", tmp_path / "out") == 0
    assert "0.png" in written(tmp_path / "out")[defect]


@pytest.mark.parametrize("named", ["0.bmp", "elsewhere/0.jpg"])
def test_an_image_saved_in_another_format_is_the_one_that_was_annotated(named, lids, tmp_path):
    voc(tmp_path / "voc", named)
    assert convert("--data", lids, "--annotations", tmp_path / "voc", "--out", tmp_path / "voc-out") == 0
    assert written(tmp_path / "voc-out")["dent"] == {"0.png"}
    (lids / "1.json").write_text(labelme(tmp_path / "0.json", ("rectangle", [[3, 2], [7, 5]])).read_text()
                                 .replace("0.png", "1.tif"))  # fmt: skip
    assert convert("--data", lids, "--out", tmp_path / "labelme-out") == 0
    assert written(tmp_path / "labelme-out")["dent"] == {"1.png"}


def test_an_image_saved_in_two_other_formats_is_left_out(lids, tmp_path, capsys):
    for name in ("a.png", "a.bmp"):
        image(lids / name, level=len(name) + (name == "a.bmp"))
    voc(tmp_path / "voc", "a.jpg")
    assert convert("--data", lids, "--annotations", tmp_path / "voc", "--out", tmp_path / "out") == 0
    assert "annotates a.jpg, of which there are 2" in capsys.readouterr().err
    assert written(tmp_path / "out") == {"good": {f"{number}.png" for number in range(8)}}
