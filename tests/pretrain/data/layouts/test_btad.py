"""BTAD: ok and ko."""

from made_folders import image, mask

from pretrain.data.images import Record
from pretrain.data.layouts import scan


def test_ok_is_good_and_ko_is_the_defect(tmp_path):
    first = tmp_path / "01"
    for name in ("train/ok/0000.bmp", "test/ok/0001.bmp", "test/ko/0000.bmp", "test/ko/0001.bmp"):
        image(first / name)
    truth = mask(first / "ground_truth/ko/0000.png")
    stray = mask(first / "ground_truth/ko/0005.png")
    of_good = mask(first / "ground_truth/ok/0001.png")
    found = scan(tmp_path)
    assert found.records == (
        Record(first / "train/ok/0000.bmp", "01", "train", "good"),
        Record(first / "test/ko/0000.bmp", "01", "test", "ko", truth),
        Record(first / "test/ko/0001.bmp", "01", "test", "ko"),
        Record(first / "test/ok/0001.bmp", "01", "test", "good"),
    )
    assert {problem[:2] for problem in found.problems} == {
        (stray, "a mask without its image"), (of_good, "a mask of a good image"),
    }  # fmt: skip
    assert [record.path.parent.name for record in scan(tmp_path, normals_only=True).records] == ["ok"]
