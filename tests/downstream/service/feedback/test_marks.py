"""Marks as shapes that `detect.py learn` reads: the same pixels, whatever a brush did."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from downstream.service.feedback.marks import is_within, shapes, stroke_polygons

WIDTH, HEIGHT = 90, 70
FINE = 8  # drawn so much larger, where Pillow's rounding to pixels is small


def painted(polygons) -> np.ndarray:
    """Bool, of the image drawn FINE times larger."""
    image = Image.new("1", (FINE * WIDTH, FINE * HEIGHT))
    for polygon in polygons:
        ImageDraw.Draw(image).polygon([(FINE * x, FINE * y) for x, y in polygon], fill=1)
    return np.asarray(image)


def brushed(points, radius: float) -> np.ndarray:
    """By the distance of each pixel to each straight part of a stroke."""
    y, x = np.mgrid[: FINE * HEIGHT, : FINE * WIDTH] / FINE
    covered = np.zeros(x.shape, bool)
    for start, end in zip(points, points[1:] or points, strict=False):
        (x0, y0), (dx, dy) = start, np.subtract(end, start)
        t = np.clip(((x - x0) * dx + (y - y0) * dy) / max(dx * dx + dy * dy, 1e-12), 0, 1)
        covered |= np.hypot(x - x0 - t * dx, y - y0 - t * dy) <= radius
    return covered


@pytest.mark.parametrize("points", [[(40, 30)], [(20, 20), (60, 50)], [(10, 60), (45, 10), (80, 60), (12, 58)]])
@pytest.mark.parametrize("radius", [3.0, 8.5])
def test_a_stroke_covers_what_the_brush_covered(points, radius):
    got, wanted = painted(stroke_polygons(points, radius)), brushed(points, radius)
    assert (got & wanted).sum() / (got | wanted).sum() > 0.93
    # All that differs is at the rim.
    assert not (got & ~brushed(points, radius + 0.25)).any()
    assert not (~got & brushed(points, 0.97 * radius - 0.25)).any()


def test_boxes_and_polygons_stay_as_they_are():
    marks = {"boxes": [(1, 2, 3, 4)], "polygons": [[(0, 0), (9.126, 0), (0, 9)]]}
    assert shapes(marks) == [{"box": [1, 2, 3, 4]}, {"polygon": [[0, 0], [9.13, 0], [0, 9]]}]
    assert len(shapes({"strokes": [{"radius": 2, "points": [(1, 1), (2, 2), (3, 1)]}]})) == 2
    assert shapes({}) == []


@pytest.mark.parametrize(
    ("marks", "within"),
    [
        ({}, True),
        ({"boxes": [[0, 0, 1, 1], [89, 69, 200, 200]]}, True),
        ({"boxes": [[0, 0, 1, 1], [90, 0, 100, 10]]}, False),
        ({"polygons": [[[-9, -9], [5, -9], [5, 0]]]}, False),
        ({"polygons": [[[-9, -9], [5, -9], [5, 1]]]}, True),
        ({"strokes": [{"radius": 5, "points": [[-4, 10]]}]}, True),
        ({"strokes": [{"radius": 4, "points": [[-4, 10]]}]}, False),
    ],
)
def test_a_mark_outside_of_the_image_is_seen(marks, within):
    assert is_within(marks, WIDTH, HEIGHT) is within
