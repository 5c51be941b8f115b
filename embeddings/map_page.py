"""The map of a set of images as one HTML file and as an image."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from embeddings.templates import render
from pretrain.drawing import FAINT, INK, MARGIN_PX, PAPER, TITLE_PX

# The palette of Okabe and Ito, which color-blind people can tell apart, then more for sets with many labels.
COLORS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#b8a800", "#7f3c8d", "#11a579", "#e73f74",
           "#80653d", "#6a6a72")  # fmt: skip
MAP_PX, LEGEND_PX, DOT_PX = 900, 220, 4


class Point(NamedTuple):
    """An image on the map: its position, 0 to 1 in each direction, its labels, and its thumbnail as a data URL, or None
    if it cannot be read."""

    x: float
    y: float
    category: str
    split: str
    defect: str
    path: str
    thumbnail: str | None


def colors_of(points: Sequence[Point], by: str) -> dict[str, str]:
    """A color for every value of a label, the most frequent values first."""
    values = [value for value, _ in Counter(getattr(point, by) for point in points).most_common()]
    return {value: COLORS[number % len(COLORS)] for number, value in enumerate(values)}


def map_image(points: Sequence[Point], title: str, by: str) -> Image.Image:
    """The map as an image: a dot for each point, and a legend of the label `by`."""
    sheet = Image.new("RGB", (MAP_PX + LEGEND_PX + 3 * MARGIN_PX, MAP_PX + TITLE_PX + 2 * MARGIN_PX), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN_PX, MARGIN_PX), title, INK, ImageFont.load_default(22))
    colors = colors_of(points, by)
    for point in points:
        x, y = MARGIN_PX + point.x * MAP_PX, MARGIN_PX + TITLE_PX + point.y * MAP_PX
        draw.ellipse((x - DOT_PX, y - DOT_PX, x + DOT_PX, y + DOT_PX), colors[getattr(point, by)], PAPER)
    font, left = ImageFont.load_default(15), MAP_PX + 2 * MARGIN_PX
    counts = Counter(getattr(point, by) for point in points)
    draw.text((left, MARGIN_PX + TITLE_PX), by, FAINT, font)
    for row, (value, color) in enumerate(colors.items(), 1):
        top = MARGIN_PX + TITLE_PX + 26 * row
        draw.ellipse((left, top + 3, left + 12, top + 15), color)
        draw.text((left + 20, top), f"{value} {counts[value]}", INK, font)
    return sheet


def map_page(points: Sequence[Point], title: str, by: str) -> str:
    """A page that draws the points, shows the image under the pointer, zooms, and hides labels; it loads nothing."""
    data = {
        "points": [point._asdict() for point in points],
        "colors": {label: colors_of(points, label) for label in ("category", "split", "defect")},
        "by": by,
    }
    return render("map.html", title=title, map=data)
