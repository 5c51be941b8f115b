"""Sizes: a number for squares, a pair for rectangles, which keep their aspect."""

import pytest

from pretrain.data.size import MULTIPLE_PX, default_px, distorts, is_other, keeping_aspect, named, sides


def test_a_number_is_the_side_of_a_square():
    assert sides(384) == (384, 384) and sides((240, 608)) == (240, 608)
    assert named(384) == "384" and named((240, 608)) == "608x240"


@pytest.mark.parametrize("aspect", [0.2, 0.5, 0.8, 1.25, 2.48, 5.0])
def test_rectangles_have_as_many_pixels_and_their_aspect(aspect):
    height, width = keeping_aspect(384, aspect)
    assert not height % MULTIPLE_PX and not width % MULTIPLE_PX
    assert height * width == pytest.approx(384**2, rel=0.03)
    assert width / height == pytest.approx(aspect, rel=0.03)
    assert not distorts(width / height, 1000, round(1000 * aspect))
    assert distorts(width / height, 1000, round(1500 * aspect))


def test_nearly_square_is_square():
    assert keeping_aspect(384, 1.0) == keeping_aspect(384, 1.09) == keeping_aspect(384, 1 / 1.09) == 384
    assert not distorts(1.0, 1000, 1090) and not distorts(1.0, 1090, 1000) and distorts(1.0, 1000, 1200)


def test_a_size_is_another_from_a_tenth_on_and_of_another_shape_it_distorts():
    assert not is_other((1000, 500), 1050, 530) and not is_other((1000, 500), 950, 470)
    assert is_other((1000, 500), 200, 100) and is_other((1000, 500), 1200, 600)
    assert not is_other((1000, 500), 100, 200) and distorts(0.5, 100, 200)


@pytest.mark.parametrize(
    ("height", "width", "side"),
    [(320, 320, 384), (700, 900, 384), (1000, 1000, 512), (2000, 500, 512), (1200, 1300, 640), (9000, 12000, 640)],
)
def test_images_are_seen_at_half_of_their_side_within_bounds_where_nobody_says(height, width, side):
    assert default_px(height, width) == side
