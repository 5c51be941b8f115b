"""What the page computes by itself, against the Python that it repeats; and what its files may hold."""

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from browsing import opened
from conftest import REPOSITORY
from playwright.sync_api import Page

from baselines.contract.heatmap import draw_heatmap
from downstream.service.models import confidence_curve

WEB = REPOSITORY / "downstream/service/web"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def pages():
    """The address of the files alone, without a service: of one that runs nothing, to import modules from."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=WEB)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/manifest.json"
        server.shutdown()


def test_the_page_computes_what_the_service_computes(browser, pages):
    random = np.random.default_rng(0)
    cases = [(float(random.normal()), float(random.normal()), random.normal(size=n).tolist()) for n in range(60)]
    cases += [(1.0, 0.0, [2.0, 2.0, 2.0]), (1e6, 0.0, [0.0, 1.0]), (0.0, 0.0, [1.0, 2.0])]
    values = (random.random((6, 9)) * 30).astype(np.float32)
    with opened(browser, pages, expected=("404",)) as page:  # it has no favicon.ico
        curves = [(score, value, confidence_curve(normals)) for score, value, normals in cases]
        got = run_in_page(page, "decision.js", "cases.map(one => module.confidence(...one))", curves)
        joined = [
            np.interp(abs(score - value), *zip(*(curve or [(0, 0.5)]), strict=True)) for score, value, curve in curves
        ]
        assert got == pytest.approx(joined, abs=1e-12)
        for threshold in (12.0, -1.0):
            painted = run_in_page(page, "heatmap.js", PAINT, [values.ravel().tolist(), 9, 6, threshold])
            rgba = np.array(painted, np.float32).reshape(6, 9, 4)
            cover = rgba[..., 3:] / 255 * 0.65
            wanted = draw_heatmap(np.zeros((6, 9, 3), np.uint8), values, threshold)
            assert np.abs(rgba[..., :3] * cover - wanted).max() < 4  # of 255: colors of a canvas are rounded twice


PAINT = """(([values, width, height, threshold]) => {
    const canvas = document.createElement("canvas");
    module.paintHeat(canvas, { values, width, height }, threshold);
    return [...canvas.getContext("2d").getImageData(0, 0, width, height).data];
})(cases)"""


def run_in_page(page: Page, name: str, expression: str, cases: list) -> list:
    return page.evaluate(f"async cases => {{ const module = await import('/{name}'); return {expression}; }}", cases)


def test_contours_lie_where_the_map_crosses_the_level(browser, pages):
    rows, columns, width, height, level = 20, 30, 300, 100, 6.3
    ramp = np.tile(np.arange(columns, dtype=float), (rows, 1))
    y, x = np.mgrid[:rows, :columns]
    disc = 8 - np.hypot(x - 15, y - 10)
    with opened(browser, pages, expected=("404",)) as page:  # it has no favicon.ico
        for values, at in ((ramp, level), (disc, 2.0), (np.full((rows, columns), 9.0), level), (ramp * 0, level)):
            case = [{"values": values.ravel().tolist(), "width": columns, "height": rows}, at, width, height]
            path = run_in_page(page, "heatmap.js", "module.contours(...cases)", case)
            points = [tuple(map(float, point.split())) for point in path.replace("M", "L").split("L")[1:]]
            points = np.array(points).reshape(-1, 2) / (width / columns, height / rows) - 0.5  # in cells of the map
            inside = points[((points > 0) & (points < (columns - 1, rows - 1))).all(axis=1)]
            if values is ramp:
                assert np.abs(inside[:, 0] - level).max() < 0.01 and len(inside) >= 2 * (rows - 2)
            elif values is disc:
                assert np.abs(np.hypot(*(inside - (15, 10)).T) - 6).max() < 0.1 and len(points) == len(inside) > 60
            elif values.any():  # all is above: the line is the border
                assert len(inside) == 0 and len(points) > 0
            else:
                assert path == ""


def test_the_files_keep_to_what_the_policy_allows():
    files = {path.name: path.read_text() for path in WEB.iterdir()}
    assert json.loads(files["manifest.json"])["start_url"] == "/"
    for name, text in files.items():
        assert len(text.splitlines()) <= 300
        assert "innerHTML" not in text and "style=" not in text and "https://" not in text, name
    assert "onclick=" not in files["index.html"] and "<script>" not in files["index.html"]


def test_suggested_boxes_are_where_the_map_stands_out(browser, pages):
    values = np.zeros((20, 30))
    values[2:5, 3:9] = 0.9
    values[12:14, 20:21] = 1.0
    values[17, 5] = 0.5  # below 60 % of the highest
    large = np.maximum(values, 0.7)  # all of the map is above 60 %
    cases = ((values, [[200, 60, 210, 70], [30, 10, 90, 25]]), (large, [[200, 60, 210, 70], [30, 10, 90, 25]]))
    for of_map, wanted in (*cases, (values - 2, [])):
        shown = {"values": of_map.ravel().tolist(), "width": 30, "height": 20}
        with opened(browser, pages, expected=("404",)) as page:
            assert run_in_page(page, "suggestions.js", "module.suggestedBoxes(...cases)", [shown, 300, 100]) == wanted
