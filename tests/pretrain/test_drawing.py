"""Images for people."""

import numpy as np
from PIL import Image

from pretrain.drawing import DEFECT, Thumbnail, contact_sheet, outlined, save_image


def test_outline_surrounds_the_defect_and_leaves_it_visible():
    pixels = np.full((40, 40, 3), 7, np.uint8)
    mask = np.zeros((40, 40), bool)
    mask[15:20, 15:20] = True
    drawn = outlined(pixels, mask)
    line = (drawn == np.uint8(DEFECT)).all(axis=2)
    assert line.any() and not (line & mask).any()
    assert line[17, :15].any() and line[17, 20:].any() and line[:15, 17].any() and line[20:, 17].any()
    assert (drawn[~line] == 7).all()
    assert (pixels == 7).all()


def test_empty_and_full_masks_draw_nothing():
    pixels = np.full((8, 8, 3), 7, np.uint8)
    for mask in (np.zeros((8, 8), bool), np.ones((8, 8), bool)):
        assert np.array_equal(outlined(pixels, mask), pixels)


def test_sheet_holds_every_thumbnail_in_its_place():
    colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    red, green, blue = (Thumbnail(np.full((30, 50, 3), color, np.uint8), "x") for color in colors)
    sheet = np.asarray(contact_sheet([("first", [red, green]), ("second", [blue])], "title", thumbnail_px=32))
    places = [np.argwhere((sheet == color).all(axis=2)).mean(axis=0) for color in colors]
    counts = [int((sheet == color).all(axis=2).sum()) for color in colors]
    assert counts == [32 * 32] * 3
    assert places[0][0] == places[1][0] < places[2][0]
    assert places[0][1] == places[2][1] < places[1][1]


def test_saving_replaces_whole_images_only(tmp_path):
    path = tmp_path / "new" / "image.png"
    save_image(Image.new("RGB", (4, 4), "red"), path)
    save_image(Image.new("RGB", (4, 4), "blue"), path)
    assert Image.open(path).getpixel((0, 0)) == (0, 0, 255)
    assert list(path.parent.iterdir()) == [path]
