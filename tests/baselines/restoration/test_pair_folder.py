"""Real pairs on disk: the original's layout, read and checked."""

import pytest
from pair_folders import folder_of_pairs
from PIL import Image

from baselines.restoration.pair_folder import CLEAN, PairFolder, find_pairs
from pretrain.command import UserError


def test_a_folder_in_the_originals_layout_is_read(tmp_path):
    folder = PairFolder(folder_of_pairs(tmp_path)).check()
    assert len(folder) == 8 and folder.has_masks
    assert [one.name for one in folder][:2] == ["bolt/cut/000", "bolt/cut/001"] and folder[7].category == "nut"
    assert folder[0].pair.degraded.shape == (3, 40, 56) and folder[0].pair.mask.sum() == 140
    assert PairFolder(tmp_path, 32)[0].pair.mask.shape == (32, 32)
    assert len(PairFolder(tmp_path / "bolt")) == 4 and PairFolder(tmp_path / "bolt")[0].category == "bolt"
    assert len(PairFolder(tmp_path, None, ("nut",))) == 4


def test_a_folder_that_does_not_fit_is_a_sentence(tmp_path):
    for path, match in ((tmp_path / "none", "no folder"), (tmp_path, "holds no pairs")):
        with pytest.raises(UserError, match=match):
            find_pairs(path)
    folder_of_pairs(tmp_path)
    with pytest.raises(UserError, match="name other categories"):
        PairFolder(tmp_path, None, ("screw",))
    (tmp_path / "bolt" / CLEAN / "cut" / "002.png").unlink()
    with pytest.raises(
        UserError, match=r"lack their partner: bolt/Degraded_image/cut/002.png \(nothing in GT_clean_image"
    ):
        find_pairs(tmp_path)


def test_a_pair_that_does_not_fit_is_found_before_work_begins(tmp_path):
    folder_of_pairs(tmp_path)
    Image.new("RGB", (20, 20)).save(tmp_path / "nut" / CLEAN / "cut" / "001.png")
    with pytest.raises(UserError, match="nut/cut/001: the degraded image is 56x40 and the clean one 20x20"):
        PairFolder(tmp_path).check()
    (tmp_path / "nut" / CLEAN / "cut" / "001.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="nut/cut/001 cannot be used"):
        PairFolder(tmp_path).check()


def test_windows_do_not_fit_into_smaller_images(tmp_path):
    folder_of_pairs(tmp_path, size=(24, 30))
    PairFolder(tmp_path).check(24)
    with pytest.raises(UserError, match="30x24 is smaller than the window of 25"):
        PairFolder(tmp_path).check(25)
