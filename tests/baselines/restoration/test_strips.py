"""Strips and sheets of restored images: every panel, unscaled, the error on one scale for all images."""

import numpy as np
import torch
from PIL import Image

from baselines.restoration.strips import CAPTION_PX, ERROR_GAIN, RestoredImage, panels, save_strip, sheet, strip
from pretrain.drawing import GAP_PX


def restored_image(mask: torch.Tensor | None) -> RestoredImage:
    clean = torch.full((3, 20, 30), 0.5)
    return RestoredImage("bolt/cut/000", "bolt", clean - 0.25, clean + 0.1, clean, mask)


def test_panels_show_the_error_enlarged_and_the_mask_where_there_is_one():
    mask = torch.zeros(20, 30, dtype=torch.bool)
    mask[5:9] = True
    drawn = panels(restored_image(mask))
    assert list(drawn) == ["degraded", "restored", "truth", f"error x {ERROR_GAIN}", "mask"]
    assert (drawn[f"error x {ERROR_GAIN}"] == round(255 * 0.1 * ERROR_GAIN)).all()
    assert np.array_equal(drawn["mask"][..., 0] == 255, mask.numpy())
    assert "mask" not in panels(restored_image(None))


def test_a_strip_is_unscaled_and_lies_under_the_images_name(tmp_path):
    image = restored_image(None)
    assert strip(image).size == (4 * (30 + GAP_PX) - GAP_PX, 20 + CAPTION_PX)
    save_strip(image, tmp_path)
    with Image.open(tmp_path / "bolt" / "cut" / "000.png") as file:
        assert file.size == strip(image).size


def test_a_sheet_holds_eight_images_at_most():
    assert sheet([restored_image(None)] * 9, "title").size == sheet([restored_image(None)] * 8, "title").size
