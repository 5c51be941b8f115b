"""What holds for every layout: it is found out, whole folders raise no problem, held-out files are never opened."""

import shutil
from typing import get_args

import pytest
from made_folders import image, mask
from made_layouts import MADE

from pretrain.command import UserError
from pretrain.data.dataset import load
from pretrain.data.images import SUFFIXES, LayoutName
from pretrain.data.layouts import (
    LAYOUTS,
    LEVELS_ABOVE,
    category_folders,
    has_layout,
    kept_for_testing,
    layout_to_learn_from,
    scan,
    scan_plain,
)
from pretrain.data.places import Place


def test_every_name_has_a_reader_and_a_made_folder():
    assert {*LAYOUTS} == {*get_args(LayoutName)} == {*MADE, "mpdd", "plain"}


@pytest.mark.parametrize("name", MADE)
def test_a_layout_is_found_out_and_read_whole(name, tmp_path):
    MADE[name](tmp_path)
    assert has_layout(tmp_path)
    assert scan(tmp_path) == scan(tmp_path, layout=name)
    others = {other for other, reader in LAYOUTS.items() if reader not in (LAYOUTS[name], LAYOUTS["plain"])}
    sooner = list(LAYOUTS)[: list(LAYOUTS).index(name)]
    assert not any(LAYOUTS[other].categories(tmp_path) for other in others if other in sooner)
    images = load(tmp_path, 16)  # reads every image and every mask
    assert images.problems == ()
    assert len({record.path for record in images.records}) == len(images)
    normals = [record for record in images.records if (record.split, record.defect) == ("train", "good")]
    tested = [record for record in images.records if record.split == "test" and record.is_anomaly]
    assert len(normals) >= 2 and tested and all(record.mask for record in tested)
    assert all(record.mask is None for record in images.records if not record.is_anomaly)


@pytest.mark.parametrize("name", MADE)
def test_held_out_files_are_never_opened(name, tmp_path):
    """Apart from masks beside training images, where nothing else tells which of these are good."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    MADE[name](one)
    shutil.copytree(one, two)
    whole = scan(one, normals_only=True)
    kept = {record.path.relative_to(one) for record in whole.records}
    train_folders = {path.parent for path in kept} if name in ("ksdd", "ksdd2") else set()
    spoiled = 0
    for path in two.rglob("*"):
        inside = path.relative_to(two)
        tells = inside.parent in train_folders and ("_GT" in path.stem or "_label" in path.stem)
        if path.suffix.lower() in SUFFIXES and inside not in kept and not tells:
            path.write_bytes(b"")
            spoiled += 1
    images = load(two, 16, normals_only=True)
    assert spoiled > 2 and images.problems == ()
    assert {record.path.relative_to(two) for record in images.records} == kept
    assert len(load(two, 16).problems) > 0


def test_a_layout_that_is_not_there_is_said_with_what_it_looks_like(tmp_path):
    image(tmp_path / "mine/train/good/0.png")
    for name in LAYOUTS.keys() - {"mvtec", "mpdd", "plain"}:
        with pytest.raises(UserError, match=r"^no category in .*; expected images as .*\.$"):
            category_folders(tmp_path, name)
        with pytest.raises(UserError, match="^no category in"):
            has_layout(tmp_path, name)
    assert scan(tmp_path, layout="mpdd").records == scan(tmp_path).records


def test_images_that_no_layout_knows_are_learned_from_unless_they_are_kept_for_testing(tmp_path):
    for path in (
        "photos/0.png", "photos/more/1.png", "data/mine/bolt/train/good/0.png", "data/mine/bolt/test/bent/0.png",
        "class/Class1/Train/0.png", "above/nut/Data/Images/Normal/0.png", "above/nut/Data/Images/Anomaly/1.png",
    ):  # fmt: skip
        image(tmp_path / path)
    (tmp_path / "empty").mkdir()
    assert layout_to_learn_from(tmp_path / "photos", None) == "plain"
    for folder in ("data/mine", "data", "data/mine/bolt/test", "class", "class/Class1", "above", "empty", "gone"):
        assert layout_to_learn_from(tmp_path / folder, None) is None
    assert layout_to_learn_from(tmp_path / "photos", "visa") == "visa"


@pytest.mark.parametrize("name", ["../../evil", "/abs", "a\\b", "a,b", "..", "."])
@pytest.mark.parametrize("what", ["category", "label"])
def test_no_folder_is_named_by_what_leads_out_of_it(what, name, tmp_path):
    """Categories and defects become names of folders of models and masks."""
    image(tmp_path / "0.png")
    image(tmp_path / "1.png")
    other = "label" if what == "category" else "category"
    lines = [f"path;{what};{other};split", "0.png;nut;nut;test", f"1.png;{name};nut;test"]
    (tmp_path / "images.csv").write_text("\n".join(lines))
    found = scan(tmp_path)
    assert [record.path.name for record in found.records] == ["0.png"]
    assert [problem.path.name for problem in found.problems] == ["1.png"]
    assert repr(name) in found.problems[0].reason


def test_a_category_may_be_nested_and_a_defect_may_not(tmp_path):
    image(tmp_path / "0.png")
    image(tmp_path / "1.png")
    (tmp_path / "images.csv").write_text("path,label,category,split\n0.png,dent,a/b,test\n1.png,a/b,nut,test\n")
    assert [record.category for record in scan(tmp_path).records] == ["a/b"]
    assert "defect 'a/b'" in scan(tmp_path).problems[0].reason


def test_a_link_to_itself_hides_no_image(tmp_path):
    """Asked whether it is a folder, or where it leads, it raises other errors than a link to nothing."""
    for folder in (tmp_path / "plain", tmp_path / "mvtec" / "nut" / "test" / "good"):
        image(folder / "0.png")
        (folder / "loop.png").symlink_to(folder / "loop.png")
        assert [record.path.name for record in scan_plain(folder).records] == ["0.png", "loop.png"]
        assert not has_layout(folder)
        assert [listed.path for listed in Place.of(str(folder)).listed(SUFFIXES)] == ["0.png", "loop.png"]
    assert folder.resolve() / "loop.png" in kept_for_testing(folder)


@pytest.mark.parametrize("name", MADE)
def test_what_is_tested_on_is_known_in_a_folder_of_it_too(name, tmp_path):
    """Somebody may name test/ok or Data/Images/Normal, where nothing says any more what lies there."""
    # As deep as it looks above a folder: to look at what a thousand other tests left takes seconds.
    root = tmp_path.joinpath(*"abcde"[:LEVELS_ABOVE])
    root.mkdir(parents=True)
    MADE[name](root)
    tested = {record.path for record in scan(root).records if record.split == "test"}
    learned = {record.path for record in scan(root).records} - tested
    assert kept_for_testing(root) == {path.resolve() for path in tested}
    for path in tested | learned:
        assert (path.resolve() in kept_for_testing(path.parent)) == (path in tested)


def test_one_odd_category_hides_no_other(tmp_path):
    for odd in ("validation/good", "test/ok", "test_public/good"):
        folder = tmp_path / odd.replace("/", "_")
        for name in ("bottle/train/good", "pill/train/good", "bolt/train/good", f"bolt/{odd}"):
            image(folder / name / "0.png")
        assert {record.category for record in scan(folder).records} == {"bolt", "bottle", "pill"}, odd


@pytest.mark.parametrize("good", ["ok", "OK", "normal"])
def test_good_images_are_good_whatever_they_are_called(good, tmp_path):
    """In a folder of several categories of which one is laid out otherwise, all are read alike."""
    for name in ("bottle/train/good", "pill/train/good", f"bolt/train/{good}", f"bolt/test/{good}", "bolt/test/crack"):
        image(tmp_path / name / "0.png")
    of_good = mask(tmp_path / f"bolt/ground_truth/{good}/0_mask.png")
    found = scan(tmp_path)
    bolts = [(record.split, record.defect) for record in found.records if record.category == "bolt"]
    assert sorted(bolts) == [("test", "crack"), ("test", "good"), ("train", "good")]
    assert [problem[:2] for problem in found.problems] == [(of_good, "a mask of a good image")]
