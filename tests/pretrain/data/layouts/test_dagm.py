"""DAGM: labels by file and by list."""

import shutil

import pytest
from made_folders import mask
from made_layouts import dagm

from pretrain.command import UserError
from pretrain.data.layouts import scan


def test_an_image_with_a_label_is_defective(tmp_path):
    dagm(tmp_path)
    found = scan(tmp_path)
    assert [(record.path.stem, record.split, record.defect) for record in found.records] == [
        (stem, split, "defect" if stem == "0577" else "good")
        for split in ("train", "test")
        for stem in ("0576", "0577", "0578")
    ]
    assert found.records[1].mask == tmp_path / "Class1/Train/Label/0577_label.PNG"
    assert [record.path.stem for record in scan(tmp_path / "Class1", normals_only=True).records] == ["0576", "0578"]


def test_what_is_half_there_is_named_and_no_defect_becomes_good(tmp_path):
    dagm(tmp_path)
    labels = tmp_path / "Class1/Train/Label"
    (labels / "0577_label.PNG").unlink()
    stray = mask(labels / "0999_label.PNG")
    with (labels / "Labels.txt").open("a") as file:
        file.write("4\t1\t0600.PNG\t0\t0600_label.PNG\n")
    found = scan(tmp_path)
    assert found.records[1].defect == "defect" and found.records[1].mask is None
    assert [problem[:2] for problem in found.problems] == [
        (labels / "0577_label.PNG", "is named in Labels.txt, but is not there"),
        (stray, "a mask without its image"),
        (labels.parent / "0600", "has a label in Labels.txt, but is not there"),
    ]


def test_without_any_labels_of_a_part_no_image_of_it_is_good(tmp_path):
    dagm(tmp_path)
    shutil.rmtree(tmp_path / "Class1/Train/Label")
    found = scan(tmp_path)
    assert [record.split for record in found.records] == ["test"] * 3
    (problem,) = found.problems
    assert problem.path == tmp_path / "Class1/Train/Label" and "says which of 3 images are good" in problem.reason
    with pytest.raises(UserError, match=r"no images in .*\(Class1/Train/Label is not there, so nothing says which"):
        scan(tmp_path, normals_only=True)


def test_a_list_that_cannot_be_read_is_said(tmp_path, monkeypatch):
    dagm(tmp_path)
    monkeypatch.setattr("pretrain.data.layouts.dagm.MAX_BYTES", 10)
    with pytest.raises(UserError, match=r"Labels.txt cannot be read \(it has .* bytes, more than 10\): fetch it again"):
        scan(tmp_path)
