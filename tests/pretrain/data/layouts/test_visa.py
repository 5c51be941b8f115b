"""VisA: two lists, either of which may be missing or name what is gone."""

from made_folders import image, mask
from made_layouts import visa

from pretrain.data.decode import read_mask
from pretrain.data.layouts import category_folders, scan


def test_the_lists_say_split_and_defect(tmp_path):
    visa(tmp_path)
    assert list(category_folders(tmp_path)) == ["candle"]
    found = scan(tmp_path)
    assert [(record.path.stem, record.split, record.defect) for record in found.records] == [
        ("0000", "train", "good"), ("0001", "train", "good"), ("0002", "test", "good"),
        ("000", "test", "burnt+chipped"), ("001", "test", "anomaly"),
    ]  # fmt: skip
    assert all(read_mask(record.mask).sum() == 36 for record in found.records if record.is_anomaly)
    assert scan(tmp_path / "candle").records == found.records


def test_without_lists_the_last_fifth_is_tested_on(tmp_path):
    for number in range(10):
        image(tmp_path / f"pcb1/Data/Images/Normal/{number}.JPG")
    image(tmp_path / "pcb1/Data/Images/Anomaly/000.JPG")
    records = scan(tmp_path).records
    assert [record.path.stem for record in records if record.split == "test"] == ["8", "9", "000"]
    assert records[-1].defect == "anomaly" and records[-1].mask is None


def test_what_is_half_there_is_named(tmp_path):
    visa(tmp_path)
    (tmp_path / "candle/Data/Images/Normal/0001.JPG").unlink()
    (tmp_path / "candle/Data/Images/Anomaly/001.JPG").unlink()
    extra = image(tmp_path / "candle/Data/Images/Normal/0009.JPG")
    stray = mask(tmp_path / "candle/Data/Masks/Anomaly/007.png")
    problems = {problem.path.name: problem.reason for problem in scan(tmp_path).problems}
    assert problems == {
        extra.name: "is in no split of split_csv/1cls.csv",
        stray.name: "a mask without its image",
        "001.png": "a mask without its image",
        "0001.JPG": "is named in 1cls.csv, but is not there",
        "001.JPG": "is named in 1cls.csv, but is not there",
    }
    assert {problem.path.name for problem in scan(tmp_path, normals_only=True).problems} == {"0001.JPG", extra.name}


def test_annotations_of_what_is_gone_are_named(tmp_path):
    """Without the list of splits nothing else says that an image or a mask is missing."""
    visa(tmp_path)
    (tmp_path / "split_csv/1cls.csv").unlink()
    (tmp_path / "candle/Data/Masks/Anomaly/000.png").unlink()
    (tmp_path / "candle/Data/Images/Normal/0002.JPG").unlink()
    found = scan(tmp_path)
    assert {problem.path.name: problem.reason for problem in found.problems} == {
        "000.png": "is named in image_anno.csv, but is not there",
        "0002.JPG": "is named in image_anno.csv, but is not there",
    }
    assert next(record for record in found.records if record.path.stem == "000").mask is None
