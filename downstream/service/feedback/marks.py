"""Where an operator says that a defect is: boxes, polygons and strokes of a brush, in pixels of the image."""

import math
from collections.abc import Iterator, Mapping, Sequence

# Of half a circle at an end of a stroke: the outline is at most 2 % of the brush's radius inside of it.
ARC_POINTS = 9

Point = tuple[float, float]


def shapes(marks: Mapping) -> list[dict]:
    """The same as `{"box": [...]}` and `{"polygon": [[x, y], ...]}`, whose union is what was marked: what
    `detect.py learn` reads. A stroke becomes a polygon for each of its straight parts."""
    boxes = [{"box": list(box)} for box in marks.get("boxes", ())]
    polygons = [*marks.get("polygons", ())]
    for stroke in marks.get("strokes", ()):
        polygons += stroke_polygons(stroke["points"], stroke["radius"])
    return boxes + [{"polygon": [[round(x, 2), round(y, 2)] for x, y in polygon]} for polygon in polygons]


def stroke_polygons(points: Sequence[Point], radius: float) -> Iterator[list[Point]]:
    """Outlines of a round brush moved from each point to the next, or set down on a single one."""
    for (x0, y0), (x1, y1) in zip(points, points[1:] or points, strict=False):
        along = math.atan2(y1 - y0, x1 - x0)
        yield [*_arc(x1, y1, radius, along - math.pi / 2), *_arc(x0, y0, radius, along + math.pi / 2)]


def _arc(x: float, y: float, radius: float, start: float) -> Iterator[Point]:
    for i in range(ARC_POINTS):
        angle = start + math.pi * i / (ARC_POINTS - 1)
        yield x + radius * math.cos(angle), y + radius * math.sin(angle)


def is_within(marks: Mapping, width: int, height: int) -> bool:
    """Whether every one of the marks has some part inside of the image."""
    extents = [tuple(box) for box in marks.get("boxes", ())]
    extents += [_extent(polygon, 0) for polygon in marks.get("polygons", ())]
    extents += [_extent(stroke["points"], stroke["radius"]) for stroke in marks.get("strokes", ())]
    return all(left < width and top < height and right > 0 and bottom > 0 for left, top, right, bottom in extents)


def _extent(points: Sequence[Point], margin: float) -> tuple[float, float, float, float]:
    xs, ys = zip(*points, strict=True)
    return min(xs) - margin, min(ys) - margin, max(xs) + margin, max(ys) + margin
