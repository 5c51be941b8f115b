"""Folders as people have them: whole, partial, and wrong."""

from pathlib import Path

import pytest
from made_folders import image

from pretrain.command import UserError
from pretrain.data.images import Problem, Record
from pretrain.data.layouts import has_layout, scan


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two categories; `nut` has masks, `lid` has none."""
    for category in ("nut", "lid"):
        for number in range(3):
            image(tmp_path / category / f"train/good/{number}.png")
        image(tmp_path / category / "test/good/0.png")
        image(tmp_path / category / "test/crack/0.png")
        image(tmp_path / category / "test/crack/1.jpg")
    for number in range(2):
        image(tmp_path / f"nut/ground_truth/crack/{number}_mask.png")
    return tmp_path


def test_records_say_what_each_image_is(folder):
    records = scan(folder).records
    assert len(records) == 12
    assert scan(folder).problems == ()
    nut = folder / "nut"
    assert Record(nut / "train/good/0.png", "nut", "train", "good") in records
    assert Record(nut / "test/crack/1.jpg", "nut", "test", "crack", nut / "ground_truth/crack/1_mask.png") in records
    assert Record(folder / "lid/test/crack/1.jpg", "lid", "test", "crack") in records
    assert [record.is_anomaly for record in records] == [record.defect == "crack" for record in records]


def test_order_depends_on_names_alone(folder):
    before = scan(folder).records
    again = folder / "nut/train/good/0.png"
    content = again.read_bytes()
    again.unlink()
    again.write_bytes(content)
    assert scan(folder).records == before == tuple(sorted(before, key=lambda r: (r.category, -len(r.split), r.path)))


def test_some_categories_only(folder):
    assert {record.category for record in scan(folder, ["lid"]).records} == {"lid"}


def test_unknown_category_names_the_nearest(folder):
    with pytest.raises(UserError, match=r"no category in .* named 'nutt'; did you mean nut\?"):
        scan(folder, ["nutt"])


def test_normals_only_opens_nothing_else(folder):
    (folder / "nut/ground_truth/crack/0_mask.png").write_bytes(b"broken")
    image(folder / "nut/train/dirty/0.png")
    found = scan(folder, normals_only=True)
    assert {(record.split, record.defect) for record in found.records} == {("train", "good")}
    assert len(found.records) == 6
    assert found.problems == ()


def test_a_folder_that_is_one_category(folder):
    records = scan(folder / "nut").records
    assert len(records) == 6
    assert {record.category for record in records} == {"nut"}


def test_only_train_good_is_enough(tmp_path):
    image(tmp_path / "mine/train/good/a.TIFF")
    assert len(scan(tmp_path).records) == 1


def test_hidden_and_foreign_files_are_left_alone(folder):
    for name in ("._0.png", ".DS_Store", "notes.txt", "Thumbs.db"):
        (folder / "nut/train/good" / name).write_bytes(b"x")
    (folder / ".cache").mkdir()
    (folder / "papers").mkdir()
    assert len(scan(folder).records) == 12
    assert scan(folder).problems == ()


@pytest.mark.parametrize("name", ["0.png", "0_mask.tif", "0.bmp"])
def test_masks_may_be_named_like_their_image(name, tmp_path):
    image(tmp_path / "nut/test/hole/0.jpg")
    mask = image(tmp_path / f"nut/ground_truth/hole/{name}")
    assert [record.mask for record in scan(tmp_path).records] == [mask]


def test_masks_that_belong_to_nothing_are_named(folder):
    cracks = folder / "nut/ground_truth/crack"
    stray = image(cracks / "7_mask.png")
    second = image(cracks / "0.png")
    of_good = image(folder / "nut/ground_truth/good/0_mask.png")
    of_no_kind = image(folder / "nut/ground_truth/hole/0_mask.png")
    found = scan(folder)
    assert sorted(found.problems) == sorted(
        [
            Problem(stray, "a mask without its image", False),
            Problem(cracks / "0_mask.png", "a second mask of the image that 0.png belongs to", False),
            Problem(of_good, "a mask of a good image", False),
            Problem(of_no_kind, "a mask without its image", False),
        ]
    )
    assert second in {record.mask for record in found.records}


def test_images_outside_any_defect_folder_are_named(folder):
    loose = image(folder / "nut/train/0.png")
    (problem,) = scan(folder).problems
    assert problem.path == loose
    assert "train/good" in problem.reason


def test_nothing_to_list_is_said_with_what_to_do(tmp_path):
    with pytest.raises(UserError, match="there is no folder .*--data"):
        scan(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no category in .*CATEGORY/train/good"):
        scan(tmp_path)
    (tmp_path / "nut/train/good").mkdir(parents=True)
    with pytest.raises(UserError, match="no images in"):
        scan(tmp_path)
    image(tmp_path / "file.png")
    with pytest.raises(UserError, match="is a file"):
        scan(tmp_path / "file.png")


def test_a_layout_is_known_by_its_splits(folder):
    assert has_layout(folder) and has_layout(folder / "nut")
    assert not has_layout(folder / "nut/train")


def test_mpdd_is_laid_out_so_too(folder):
    assert scan(folder, layout="mpdd") == scan(folder, layout="mvtec") == scan(folder)
