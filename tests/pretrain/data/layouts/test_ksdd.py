"""KolektorSDD: a split by commutator, labels that tell what is good."""

from made_layouts import ksdd

from pretrain.data.layouts import scan


def test_odd_commutators_train_and_even_ones_test(tmp_path):
    ksdd(tmp_path / "KolektorSDD")
    records = scan(tmp_path).records
    assert [(record.path.parent.name, record.path.stem, record.split, record.defect) for record in records] == [
        ("kos01", "Part0", "train", "good"), ("kos01", "Part1", "train", "defect"),
        ("kos02", "Part0", "test", "defect"), ("kos02", "Part1", "test", "good"),
        ("kos03", "Part0", "train", "good"), ("kos03", "Part1", "train", "good"),
    ]  # fmt: skip
    assert {record.category for record in records} == {"KolektorSDD"}
    assert len(scan(tmp_path, normals_only=True).records) == 3


def test_what_nobody_says_the_label_of_is_left_out(tmp_path):
    ksdd(tmp_path)
    (tmp_path / "kos01/Part0_label.bmp").unlink()
    (tmp_path / "kos01/Part1.jpg").unlink()
    (tmp_path / "kos03/Part0_label.bmp").write_bytes(b"")
    found = scan(tmp_path)
    assert [(problem.path.parent.name, problem.path.name, problem.reason) for problem in found.problems] == [
        ("kos01", "Part0.jpg", "has no Part0_label beside it, which says whether it is good"),
        ("kos01", "Part1_label.bmp", "a mask without its image"),
        ("kos03", "Part0_label.bmp", "not an image that can be read (PNG, JPEG, BMP, TIFF, WEBP)"),
    ]
    assert len(found.records) == 3


def test_a_label_that_changes_is_looked_at_again(tmp_path):
    ksdd(tmp_path)
    assert not scan(tmp_path).records[0].is_anomaly
    (tmp_path / "kos01/Part0_label.bmp").write_bytes((tmp_path / "kos01/Part1_label.bmp").read_bytes())
    assert scan(tmp_path).records[0].is_anomaly
