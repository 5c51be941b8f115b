"""MVTec AD 2: the public test alone has labels."""

from made_folders import image, mask

from pretrain.data.images import Record
from pretrain.data.layouts import scan


def test_the_public_test_is_the_test(tmp_path):
    can = tmp_path / "can"
    for name in ("train/good/000_regular", "validation/good/001_regular", "test_public/good/002_regular",
                 "test_public/bad/003_overexposed", "test_private/004", "test_private_mixed/005"):  # fmt: skip
        image(can / f"{name}.png")
    truth = mask(can / "test_public/ground_truth/bad/003_overexposed_mask.png")
    stray = mask(can / "test_public/ground_truth/bad/009_regular_mask.png")
    found = scan(tmp_path)
    assert found.records == (
        Record(can / "train/good/000_regular.png", "can", "train", "good"),
        Record(can / "validation/good/001_regular.png", "can", "train", "good"),
        Record(can / "test_public/bad/003_overexposed.png", "can", "test", "bad", truth),
        Record(can / "test_public/good/002_regular.png", "can", "test", "good"),
    )
    assert [problem[:2] for problem in found.problems] == [(stray, "a mask without its image")]
    assert len(scan(can, normals_only=True).records) == 2
