"""Which images are good, and which are inspected, of folders as people have them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from made_layouts import MADE
from PIL import Image

from downstream.inspection.images import good_images, good_images_given, records_to_inspect
from pretrain.command import UserError
from pretrain.data.channels import ToFind
from pretrain.data.images import Record
from pretrain.data.levels import Range


def test_good_images_are_train_good_or_all_of_a_plain_folder(demo_folder):
    nuts = good_images(demo_folder, "hazelnut", 32)
    assert nuts.categories == ["hazelnut"] or tuple(nuts.categories) == ("hazelnut",)
    assert {record.path.parent.parent.name for record in nuts.records} == {"train"} and len(nuts) == 12
    plain = good_images(demo_folder / "hazelnut" / "test", "bolt", 32, layout="plain")
    assert {(record.category, record.split, record.defect) for record in plain.records} == {("bolt", "train", "good")}
    assert len(plain) == len(list((demo_folder / "hazelnut" / "test").rglob("*.png")))
    with pytest.raises(UserError, match="several categories: choose one with --category, of bottle, hazelnut, leather"):
        good_images(demo_folder, None, 32)


def test_the_parent_of_a_data_set_is_no_folder_of_good_images(demo_folder, tmp_path):
    shutil.copytree(demo_folder / "hazelnut", tmp_path / "sets" / "hazelnut")
    with pytest.raises(UserError, match=f"ground_truth too: did you mean --data {tmp_path}/sets[?]"):
        good_images(tmp_path, "hazelnut", 64)
    (tmp_path / "plain" / "Bad").mkdir(parents=True)
    shutil.copy(min((demo_folder / "hazelnut" / "test" / "good").iterdir()), tmp_path / "plain" / "Bad")
    with pytest.raises(UserError, match="Bad too: name a folder of good images alone"):
        good_images(tmp_path / "plain", None, 64)
    with pytest.raises(UserError, match="those in crack too"):  # beside good
        good_images(tmp_path / "sets" / "hazelnut" / "test", None, 64)
    with pytest.raises(UserError, match="those in crack too"):  # one folder above
        good_images(shutil.copytree(tmp_path / "sets" / "hazelnut" / "test", tmp_path / "b" / "bolt").parent, None, 64)
    shutil.copytree(tmp_path / "sets", tmp_path / "photos" / ".trash")
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "sets")
    shutil.copytree(demo_folder / "hazelnut" / "train" / "good", tmp_path / "photos" / "monday")
    assert len(good_images(tmp_path / "photos", None, 64)) == 12
    MADE["ksdd"](tmp_path / "deep" / "er" / "ksdd")
    with pytest.raises(UserError, match=f"did you mean --data {tmp_path}/deep/er[?]"):
        good_images(tmp_path / "deep", None, 64)
    assert len(good_images(tmp_path / "plain", None, 64, layout="plain")) == 1


@pytest.mark.parametrize("size_px", [64, None])
def test_good_images_in_memory_are_those_of_a_folder(size_px, demo_folder, tmp_path):
    for path in sorted((demo_folder / "hazelnut" / "train" / "good").iterdir())[:3]:
        Image.open(path).resize((256, 128)).save(tmp_path / path.name)
    expected = good_images(tmp_path, "nut", size_px, keep_aspect=True)
    assert expected.size_px == ((48, 88) if size_px else (128, 256))
    paths = sorted(tmp_path.iterdir())
    arrays = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    channels_first = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2) / 255
    several = [paths[0], arrays[1], Image.open(paths[2])]
    for images in (tmp_path, paths, [str(path) for path in paths], arrays, np.stack(arrays), channels_first, several):
        given = good_images_given(images, "nut", size_px, ToFind())
        assert given.size_px == expected.size_px
        assert np.array_equal(given.batch(range(3)), expected.batch(range(3)))
        assert [e.digest for e in given.entries] == [e.digest for e in expected.entries]
        assert {(r.category, r.split, r.defect) for r in given.records} == {("nut", "train", "good")}


def test_the_range_of_a_cameras_12_bits_is_found_in_memory_as_on_disk(tmp_path):
    levels = np.random.default_rng(0).integers(300, 3000, (4, 40, 40)).astype(np.uint16)
    for number, image in enumerate(levels):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    expected = good_images(tmp_path, "nut", 32, channels=ToFind())
    assert expected.channels.ranges[0].high < 4000
    paths = sorted(tmp_path.iterdir())
    for images in (paths, [*levels], [Image.open(path) for path in paths], [paths[0], *levels[1:]]):
        given = good_images_given(images, "nut", 32, ToFind())
        assert given.channels == expected.channels and np.array_equal(given.batch(range(4)), expected.batch(range(4)))
    assert good_images_given([*levels], "nut", 32, ToFind(typed=Range(0, 4095))).channels.ranges == (Range(0, 4095),)
    plain = np.zeros((2, 40, 40, 3), np.uint8)
    for to_find, words in (
        (ToFind(typed=Range(0, 9)), "--range is for images of more"),
        (ToFind(True), "--lights belong"),
    ):
        with pytest.raises(UserError, match=words):
            good_images_given(plain, "nut", 32, to_find)


def listed(*arguments, **options) -> list[Record]:
    return records_to_inspect(*arguments, **options)[0]


def test_what_a_laid_out_folder_holds_and_cannot_be_inspected_is_told(tmp_path):
    """It was left out without a word, and the exit code said that nothing is defective."""
    MADE["mvtec"](tmp_path)
    shutil.copytree(tmp_path / "nut", tmp_path / "bolt")
    loose = Path(shutil.copy(tmp_path / "nut/test/crack/0.png", tmp_path / "nut/test"))
    shutil.copy(loose, tmp_path / "nut/train/0.png")
    shutil.copy(loose, tmp_path / "nut/ground_truth/crack/of_none_mask.png")
    records, problems = records_to_inspect([tmp_path], "nut")
    assert len(records) == 2 and len(problems) == 3
    assert [problem.path for problem in problems if problem.is_untested] == [loose]  # neither a mask nor one of train/
    assert records_to_inspect([tmp_path], "bolt")[1] == []


def test_test_images_of_a_laid_out_folder_are_inspected_and_all_of_others(demo_folder):
    nuts = listed([demo_folder], "hazelnut")
    assert {record.category for record in nuts} == {"hazelnut"} and {record.split for record in nuts} == {"test"}
    # The only category of a folder is inspected, whatever it is called.
    assert listed([demo_folder / "hazelnut"], "bolt") == listed([demo_folder / "hazelnut"], "hazelnut")
    (image, *_) = (record.path for record in nuts)
    (named,) = listed([image], "bolt")
    assert named.path == image and named.category == "bolt" and not named.defect
    with pytest.raises(UserError, match="there is no image and no folder .*nowhere"):
        listed([demo_folder / "nowhere"], "bolt")


def test_another_layout_is_found_out_or_said(tmp_path):
    MADE["dagm"](tmp_path)
    assert [record.path.stem for record in good_images(tmp_path, None, 32).records] == ["0576", "0578"]
    assert [record.defect for record in listed([tmp_path], "any")] == ["good", "defect", "good"]
    # Eight: the labels are images too where the folder is said to be plain.
    assert len(good_images(tmp_path, "lid", 32, layout="plain")) == 8
    assert {record.split for record in listed([tmp_path], "any", "plain")} == {""}


def test_a_layout_that_is_typed_has_to_fit(tmp_path):
    """Else the folder would count as a plain one, and its cracks as good."""
    MADE["mvtec"](tmp_path)
    for use in (
        lambda: good_images(tmp_path, None, 32, layout="visa"),
        lambda: listed([tmp_path], "nut", "visa"),
    ):
        with pytest.raises(UserError, match="no category in .*; expected images as .*Normal"):
            use()
    (single, *_) = (tmp_path / "nut/test/crack").iterdir()
    assert [record.path for record in listed([single], "nut", "visa")] == [single]


def test_how_a_model_was_told_that_its_folder_is_laid_out_holds_for_that_folder(tmp_path):
    MADE["dagm"](tmp_path)
    fitted = {"data": str(tmp_path), "layout": "plain"}
    assert {record.split for record in listed([tmp_path], "any", metadata=fitted)} == {""}
    assert {record.split for record in listed([tmp_path], "any", "dagm", fitted)} == {"test"}
    for other in ({**fitted, "data": "elsewhere"}, {**fitted, "layout": ["no", "such"]}, {}):
        assert {record.split for record in listed([tmp_path], "any", metadata=other)} == {"test"}
