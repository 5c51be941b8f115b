"""Folders of images without labels."""

import pytest
from made_folders import image

from pretrain.command import UserError
from pretrain.data.layouts import category_folders, has_layout, scan, scan_plain


def test_any_folder_will_do_where_labels_are_not_needed(tmp_path):
    folder = tmp_path / "photos"
    for name in ("b.jpg", "a.png", "deep/er/c.bmp", "other/d.webp", ".hidden/e.png", "notes.txt"):
        image(folder / name) if not name.endswith("txt") else (folder / name).write_text("no image")
    records = scan_plain(folder).records
    assert [(record.path.name, record.category) for record in records] == [
        ("a.png", "photos"), ("b.jpg", "photos"), ("c.bmp", "deep/er"), ("d.webp", "other"),
    ]  # fmt: skip
    assert not any(record.is_anomaly or record.split for record in records)
    assert [record.path.name for record in scan_plain(folder, ["other"]).records] == ["d.webp"]
    with pytest.raises(UserError, match="did you mean other"):
        scan_plain(folder, ["othr"])
    with pytest.raises(UserError, match="there is no folder"):
        scan_plain(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no images in"):
        scan_plain(tmp_path / "empty")


def test_all_are_good_only_where_the_user_says_that_the_folder_is_plain(tmp_path):
    image(tmp_path / "mine/a.png")
    image(tmp_path / "mine/train/good/b.png")
    assert [record.path.name for record in scan(tmp_path, normals_only=True).records] == ["b.png"]
    plain = scan(tmp_path, normals_only=True, layout="plain")
    assert {(record.category, record.split, record.defect) for record in plain.records} == {
        ("mine", "train", "good"), ("mine/train/good", "train", "good"),
    }  # fmt: skip
    assert not has_layout(tmp_path, "plain")
    assert list(category_folders(tmp_path, "plain")) == ["mine", "mine/train/good"]


def test_a_comma_is_no_harm_and_a_backslash_is_named(tmp_path):
    image(tmp_path / "red, blue/a.png")
    image(tmp_path / "a\\b/c.png")
    found = scan_plain(tmp_path)
    assert [record.category for record in found.records] == ["red, blue"]
    assert [problem.path.name for problem in found.problems] == ["c.png"]
