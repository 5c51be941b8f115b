"""KolektorSDD2: the publisher's split, labels that tell what is good."""

from made_layouts import ksdd2

from pretrain.data.layouts import scan


def test_black_masks_are_good_images(tmp_path):
    ksdd2(tmp_path)
    (tmp_path / "test/20001_GT.png").unlink()
    found = scan(tmp_path)
    assert [(record.path.stem, record.split, record.defect) for record in found.records] == [
        ("10000", "train", "good"), ("10001", "train", "defect"), ("10002", "train", "good"),
        ("20000", "test", "defect"),
    ]  # fmt: skip
    assert found.records[3].mask == tmp_path / "test/20000_GT.png"
    assert [problem.path.name for problem in found.problems] == ["20001.png"]
    assert [record.path.stem for record in scan(tmp_path, normals_only=True).records] == ["10000", "10002"]
