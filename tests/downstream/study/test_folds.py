"""Who sees what, and what is refused before anything is computed."""

import shutil
from pathlib import Path

import pytest
from made_layouts import MADE

from downstream.study.folds import Fold, FoldImages, check_content, make_folds
from downstream.study.warnings import fold_warnings
from pretrain.command import Names, UserError
from pretrain.data.dataset import load

SIZE_PX = 32


@pytest.fixture
def folder(demo_folder, tmp_path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(demo_folder, tmp_path / "copy"))


def fold_images(folder: Path, test: str = "bottle", train: tuple[str, ...] = ("hazelnut", "leather")) -> FoldImages:
    return FoldImages(load(folder, SIZE_PX), Fold(test, train))


def test_held_out_tests_each_category_with_the_same_training(demo_folder):
    folds = make_folds("held-out", demo_folder, Names("leather"), Names("bottle,hazelnut"))
    assert folds == [Fold("bottle", ("leather",)), Fold("hazelnut", ("leather",))]


def test_one_class_trains_on_nothing(demo_folder):
    assert make_folds("one-class", demo_folder, None, None) == [
        Fold(category, ()) for category in ("bottle", "hazelnut", "leather")
    ]


def test_leave_one_out_trains_on_all_others(demo_folder):
    folds = make_folds("leave-one-out", demo_folder, None, Names("hazelnut"))
    assert folds == [Fold("hazelnut", ("bottle", "leather"))]


@pytest.mark.parametrize(
    ("protocol", "train", "test", "words"),
    [
        ("held-out", "bottle,leather", "bottle", "bottle is in --train and in --test"),
        ("held-out", "leather", "botle", "did you mean bottle"),
        ("held-out", None, None, "no category in .* named 'capsule'"),
        ("one-class", "leather", "bottle", "leave --train out"),
    ],
)
def test_categories_that_cannot_be_are_refused(demo_folder, protocol, train, test, words):
    with pytest.raises(UserError, match=words):
        make_folds(protocol, demo_folder, train and Names(train), test and Names(test))


def test_what_is_learned_calibrated_and_tested_is_disjoint(demo_folder):
    images = fold_images(demo_folder)
    learning, calibration = images.training(seed=0)
    paths = [{record.path for record in part.records} for part in (learning, *calibration.values(), images.tests)]
    assert sum(map(len, paths)) == len(set().union(*paths))
    assert {record.category for record in learning.records} == {"hazelnut", "leather"} == set(calibration)
    assert all(not record.is_anomaly for part in calibration.values() for record in part.records)
    assert {record.category for record in images.tests.records} == {"bottle"}
    assert all(record.split == "train" and not record.is_anomaly for record in images.normals.records)


def test_parts_have_the_promised_sizes_and_vary_with_the_seed(demo_folder):
    images = fold_images(demo_folder)
    learning, _ = images.training(seed=0)
    assert len(learning) / len(images.labeled) == pytest.approx(0.85, abs=0.06)
    again, other = images.training(seed=0)[0], images.training(seed=1)[0]
    assert learning.records == again.records != other.records


def test_the_same_image_on_both_sides_is_refused(folder):
    shutil.copy(folder / "leather/train/good/000.png", folder / "bottle/test/good/900.png")
    images = load(folder, SIZE_PX)
    with pytest.raises(UserError, match=r"leather/train/good/000.png and .*bottle/test/good/900.png"):
        check_content(images, [Fold("bottle", ("leather",))])
    check_content(images, [Fold("bottle", ("hazelnut",))])


def test_normals_that_are_test_images_are_not_referred_to(folder):
    shutil.copy(folder / "bottle/test/good/000.png", folder / "bottle/train/good/900.png")
    images = fold_images(folder)
    assert images.dropped_normals == 1
    assert "900.png" not in {record.path.name for record in images.normals.records}
    assert any("1 images of train/good are also test images" in line for line in fold_warnings(images))


def test_digest_changes_with_images_labels_and_sizes(folder):
    before = fold_images(folder).digest
    assert fold_images(folder).digest == before
    assert FoldImages(load(folder, 64), Fold("bottle", ("hazelnut", "leather"))).digest != before
    (folder / "hazelnut/train/good/003.png").unlink()
    fewer = fold_images(folder).digest
    assert fewer != before
    moved = next((folder / "bottle/test/scratch").glob("*.png"))
    moved.rename(folder / "bottle/test/good/901.png")
    assert fold_images(folder).digest not in (before, fewer)


def test_folds_of_another_layout_see_what_its_split_allows(tmp_path):
    MADE["ksdd2"](tmp_path)
    (fold,) = make_folds("one-class", tmp_path, None, None)
    images = FoldImages(load(tmp_path, SIZE_PX), fold)
    assert [record.path.stem for record in images.normals.records] == ["10000", "10002"]
    assert [record.path.stem for record in images.tests.records] == ["20000", "20001"]
    with pytest.raises(UserError, match="expected images as"):
        make_folds("one-class", tmp_path, None, None, "visa")


def test_the_digest_changes_with_any_of_several_masks(tmp_path):
    MADE["loco"](tmp_path)
    (fold,) = make_folds("one-class", tmp_path, None, None)
    before = FoldImages(load(tmp_path, SIZE_PX), fold).digest
    (tmp_path / "box/ground_truth/logical_anomalies/0/001.png").unlink()
    assert FoldImages(load(tmp_path, SIZE_PX), fold).digest != before
