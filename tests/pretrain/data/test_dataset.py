"""Which folder, which images, and their pixels."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pretrain.command import UserError
from pretrain.data import dataset
from pretrain.data.dataset import choose_folder, data_name, load
from pretrain.data.decode import decode


@pytest.fixture
def folder(demo_folder, tmp_path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(demo_folder, tmp_path / "copy"))


def test_batches_are_the_records_images(demo_folder):
    images = load(demo_folder, 64)
    positions = [5, 0, len(images) - 1]
    expected = [decode(images.records[position].path, 64).pixels for position in positions]
    assert np.array_equal(images.batch(positions), np.stack(expected))


def test_memory_of_large_images_is_given_back_and_they_are_read_again(demo_folder, monkeypatch):
    images = load(demo_folder, 40)
    expected = images.batch([3, 1])
    monkeypatch.setattr(dataset, "LARGE_BYTES", 0)
    assert np.array_equal(images.batch([3, 1]), expected) and np.array_equal(images.batch([1])[0], expected[1])


def test_parts_keep_images_and_records_together(demo_folder):
    images = load(demo_folder, 64)
    assert images.categories == ["bottle", "hazelnut", "leather"]
    hazelnuts = images.of("hazelnut")
    assert {record.category for record in hazelnuts.records} == {"hazelnut"}
    assert sum(len(images.of(category)) for category in images.categories) == len(images)
    last = hazelnuts.subset([len(hazelnuts) - 1])
    assert np.array_equal(last.batch([0])[0], decode(hazelnuts.records[-1].path, 64).pixels)


def test_categories_left_out_are_never_opened(folder):
    """Not even their headers: every file of the category would raise if it were read."""
    for path in (folder / "leather").rglob("*.png"):
        path.unlink()
        os.symlink("/proc/self/mem", path)
    assert load(folder, 64, ["bottle", "hazelnut"]).problems == ()
    assert len(load(folder, 64).problems) > 0


def test_normals_only_opens_nothing_but_train_good(folder):
    for path in [*folder.rglob("test/*/*.png"), *folder.rglob("ground_truth/*/*.png")]:
        path.write_bytes(b"")
    images = load(folder, 64, normals_only=True)
    assert images.problems == ()
    assert {(record.split, record.defect) for record in images.records} == {("train", "good")}


def test_every_bad_file_is_named_once_and_nothing_is_altered(folder, capsys):
    (folder / "bottle/train/good/000.png").write_bytes(b"")
    (folder / "bottle/train/good/notes.png").write_text("not an image")
    (folder / "bottle/ground_truth/scratch/999_mask.png").write_bytes(b"")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    images = load(folder, 64)
    report = capsys.readouterr().err
    assert "3 files" in report
    for name in (
        "bottle/train/good/000.png: the file is empty",
        "good/notes.png: not an image",
        "999_mask.png: a mask",
    ):
        assert report.count(name) == 1
    assert folder / "bottle/train/good/000.png" not in {record.path for record in images.records}
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_masks_that_cannot_be_used_are_named_and_left_out(folder, capsys):
    masks = sorted((folder / "bottle/ground_truth/scratch").iterdir())
    Image.new("L", (10, 20)).save(masks[0])
    masks[1].write_bytes(masks[1].read_bytes()[:-200])
    Image.open(masks[2]).save(masks[2].with_suffix(".bmp"))
    masks[2].unlink()
    cut = masks[2].with_suffix(".bmp")
    cut.write_bytes(cut.read_bytes()[:500])
    images = load(folder, 64)
    report = capsys.readouterr().err
    assert "3 files" in report and "the mask is 10x20, its image 256x256" in report
    assert report.count("damaged or cut off") == 2
    assert sum(record.mask is None for record in images.of("bottle").records if record.is_anomaly) == 3


def test_what_is_stretched_is_said(folder, capsys):
    path = folder / "bottle/train/good/000.png"
    Image.open(path).resize((300, 100)).save(path)
    count = len(load(folder, 64))
    assert f"1 of {count} images in {folder} are stretched to 64x64 px" in capsys.readouterr().err


def test_pipes_and_folders_named_like_images_are_named(folder, capsys):
    os.mkfifo(folder / "bottle/train/good/pipe.png")
    (folder / "bottle/train/good/folder.png").mkdir()
    assert len(load(folder, 64).problems) == 2
    assert capsys.readouterr().err.count("not a file") == 2


def test_split_does_not_depend_on_the_cached_size(demo_folder):
    fractions = {"fit": 0.7, "rest": 0.3}
    small, large = (load(demo_folder, size_px).split(fractions, seed=0)["fit"] for size_px in (16, 64))
    assert small.records == large.records


def test_strict_stops(folder):
    (folder / "bottle/train/good/000.png").write_bytes(b"")
    with pytest.raises(UserError, match="1 files cannot be used and --strict"):
        load(folder, 64, strict=True)


def test_nothing_readable_is_refused(tmp_path):
    (tmp_path / "nut/train/good").mkdir(parents=True)
    (tmp_path / "nut/train/good/0.png").write_bytes(b"")
    with pytest.raises(UserError, match="none of the 1 images"):
        load(tmp_path, 64)


@pytest.mark.parametrize("size_px", [0, -5, 100_000])
def test_impossible_sizes_are_refused(size_px, demo_folder):
    with pytest.raises(UserError, match="choose from 8 to 16384"):
        load(demo_folder, size_px)


def test_impossible_workers_are_refused(demo_folder):
    with pytest.raises(UserError, match="1 or more"):
        load(demo_folder, 64, workers=0)


def test_copies_are_found_whatever_their_format(folder):
    original = folder / "bottle/train/good/000.png"
    Image.open(original).save(folder / "bottle/test/good/copy.bmp")
    ((first, second),) = load(folder, 64).copies()
    assert {first.path, second.path} == {original, folder / "bottle/test/good/copy.bmp"}


def test_folder_typed_then_real_then_demo(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made = []
    monkeypatch.setattr("pretrain.data.dataset.make", lambda folder: made.append(folder))
    assert choose_folder(Path("typed")) == Path("typed")
    assert made == [] and capsys.readouterr().err == ""
    assert choose_folder(None) == dataset.DEMO_DATA
    assert made == [dataset.DEMO_DATA]
    (line,) = capsys.readouterr().err.splitlines()
    assert "demo data" in line and "data/mvtec" in line
    (dataset.REAL_DATA / ".fetch").mkdir(parents=True)
    assert choose_folder(None) == dataset.DEMO_DATA, "an unfinished download is no data"
    (dataset.REAL_DATA / "bottle/train").mkdir(parents=True)
    assert choose_folder(None) == dataset.REAL_DATA


def test_demo_data_is_called_so_in_titles(demo_folder, tmp_path):
    assert data_name(demo_folder).startswith("demo data")
    assert data_name(tmp_path) == str(tmp_path)


def test_a_plain_folder_is_loaded_only_where_that_is_allowed(demo_folder):
    plain = demo_folder / "bottle/test"
    images = load(plain, 32, allow_plain=True)
    assert images.categories == ["broken_large", "broken_small", "contamination", "good", "scratch"]
    assert {record.split for record in images.records} == {""}
    with pytest.raises(UserError, match="no category in"):
        load(plain, 32)
    assert load(demo_folder, 32, ["bottle"], allow_plain=True).records[0].split == "train"


@pytest.fixture
def strips(tmp_path):
    """Five images of 200x80 pixels and one of 100x100."""
    for number in range(6):
        size = (100, 100) if number == 5 else (200, 80)
        Image.new("RGB", size, (40 * number, 10, 10)).save(tmp_path / f"{number}.png")
    return tmp_path


def test_rectangles_keep_their_aspect(strips):
    images = load(strips, 64, allow_plain=True, keep_aspect=True)
    assert images.size_px == (40, 104)  # 64 * 64 pixels, in multiples of 8; the aspect that most have
    assert images.batch([0, 5]).shape == (2, 40, 104, 3)
    assert images.batch([3])[0, 20, 50].tolist() == [120, 10, 10]
    assert (images.entries[5].height, images.entries[5].width) == (100, 100)
    assert load(strips, 64, allow_plain=True).size_px == 64


def test_images_stay_as_large_as_they_usually_are(strips):
    images = load(strips, None, allow_plain=True)
    assert images.size_px == (80, 200) and images.batch([1]).shape == (1, 80, 200, 3)
    again = load(strips, (80, 200), allow_plain=True)
    assert np.array_equal(images.batch(range(6)), again.batch(range(6)))
