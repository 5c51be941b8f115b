"""MVTec LOCO: validation images, and several masks an image."""

import numpy as np
from made_folders import image, mask

from pretrain.data.dataset import load
from pretrain.data.decode import read_mask
from pretrain.data.layouts import scan


def test_masks_are_folders_whose_union_counts(tmp_path, capsys):
    box = tmp_path / "box"
    for name in ("train/good/000", "validation/good/000", "test/good/000", "test/logical_anomalies/000",
                 "test/logical_anomalies/001", "test/structural_anomalies/000"):  # fmt: skip
        image(box / f"{name}.png", level=20 + len(name))
    truth = box / "ground_truth"
    first = mask(truth / "logical_anomalies/000/000.png", slice(0, 2), value=250).parent
    mask(first / "001.png", slice(6, 7), value=234)
    single = mask(truth / "structural_anomalies/000/000.png").parent
    stray = mask(truth / "structural_anomalies/007/000.png").parent
    (truth / "logical_anomalies/001").mkdir()
    found = scan(tmp_path)
    assert [(record.split, record.defect, record.mask) for record in found.records] == [
        ("train", "good", None), ("train", "good", None), ("test", "good", None),
        ("test", "logical_anomalies", first), ("test", "logical_anomalies", truth / "logical_anomalies/001"),
        ("test", "structural_anomalies", single),
    ]  # fmt: skip
    assert [problem.path for problem in found.problems] == [stray]
    assert np.array_equal(np.flatnonzero(read_mask(first).all(axis=1)), [0, 1, 6])
    images = load(tmp_path, 16)
    assert "001: the folder holds no mask" in capsys.readouterr().err
    assert sum(record.mask is not None for record in images.records) == 2
    mask(first / "002.png", size=(5, 5))
    load(tmp_path, 16)
    assert "000: the folder holds masks of 2 sizes" in capsys.readouterr().err


def test_normals_are_those_of_training_and_validation(tmp_path):
    for name in ("train/good/000", "validation/good/000", "validation/broken/000", "test/good/000"):
        image(tmp_path / f"box/{name}.png")
    records = scan(tmp_path, normals_only=True).records
    assert [record.path.parts[-3] for record in records] == ["train", "validation"]


def test_a_category_without_validation_is_read_with_those_that_have_it(tmp_path):
    for name in ("bottle/train/good/0", "bolt/train/good/0", "bolt/validation/good/1"):
        image(tmp_path / f"{name}.png")
    assert [record.category for record in scan(tmp_path).records] == ["bolt", "bolt", "bottle"]
