"""The map's page holds all it needs and nothing foreign, and its image every point."""

import json
import re

import numpy as np

from embeddings.map_page import Point, colors_of, map_image, map_page

POINTS = [
    Point(0.1, 0.2, "nut", "train", "good", "a.png", None),
    Point(0.9, 0.8, "</script>", "test", "bent", "b.png", "data:,"),
]


def test_page_holds_every_point_and_no_foreign_script():
    page = map_page(POINTS, "a <b>", "defect")
    assert "a &lt;b&gt;" in page and page.count("</script>") == 1
    data = json.loads(re.search(r"const map = (.*);\n", page)[1].replace("<\\/", "</"))
    assert [Point(**point) for point in data["points"]] == POINTS and data["by"] == "defect"
    assert "http" not in page.replace("http-equiv", "")


def test_image_has_a_dot_for_every_point():
    image = np.asarray(map_image(POINTS, "two", "category"))
    for color in colors_of(POINTS, "category").values():
        wanted = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
        assert (image == wanted).all(axis=2).sum() > 100  # dot and legend
