"""A region drawn in a real browser: with the pointer and with keys alone, saved for the next fit, and as roi.json."""

import json
import shutil
from contextlib import AbstractContextManager

import pytest
from browsing import CONTRASTS, PATIENCE_MS, assert_accessible, drop, opened
from playwright.sync_api import Browser, Page, expect
from serving_here import serving_here

from downstream.inspection.roi import DrawnRoi
from scripts.attacks.serving import image_bytes

expect.set_options(timeout=PATIENCE_MS)
DESK, PHONE = {"width": 1280, "height": 860}, {"width": 360, "height": 780}
SQUARE, WITHIN = [(26, 26), (230, 26), (230, 230), (26, 230)], [(100, 100), (140, 100), (120, 150)]


@pytest.fixture(scope="module")
def serving(models_folder, demo_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("region")
    models = shutil.copytree(models_folder, folder / "models")
    with serving_here(models, folder, model="hazelnut") as serving:
        good = demo_folder / "hazelnut" / "test" / "good" / "000.png"
        assert serving.test(good.read_bytes(), "good.png", keep=True).status_code == 200
        yield serving


@pytest.fixture(autouse=True)
def as_at_the_start(serving):
    yield
    serving.client.post("/api/load_model", json={"name": "hazelnut"})
    serving.client.put("/api/roi", json={"roi": None})


def drawing(browser: Browser, url: str, **options: object) -> AbstractContextManager[Page]:
    return opened(browser, f"{url}/#region", **{"viewport": DESK, "reduced_motion": "reduce", **options})


def click(page: Page, *points: tuple[float, float], size: tuple[int, int] = (256, 256)) -> None:
    """At places of the image, in its pixels."""
    for point in points:
        page.mouse.click(*on_screen(page, point, size))


def on_screen(page: Page, point: tuple[float, float], size: tuple[int, int] = (256, 256)) -> tuple[float, float]:
    page.locator("#region-sheet").scroll_into_view_if_needed()  # what comes above it while the page loads moves it
    sheet = page.locator("#region-sheet").bounding_box()
    across, down = (at / side for at, side in zip(point, size, strict=True))
    return sheet["x"] + across * sheet["width"], sheet["y"] + down * sheet["height"]


def add_polygon(page: Page, points: list[tuple[float, float]]) -> None:
    page.get_by_role("button", name="New polygon").click()
    click(page, *points, points[0])  # which closes it


def saved(serving) -> dict | None:
    return serving.client.get("/api/roi").json()["drawn"]


def save(page: Page, state: str = "Saved for the next fit. The model judges all of the image.") -> None:
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#region-state")).to_have_text(state)


def test_polygons_are_drawn_changed_and_undone_with_the_pointer(browser, serving):
    with drawing(browser, serving.url) as page:
        expect(page.locator("#region-image")).to_be_visible()
        expect(page.locator("#region-state")).to_have_text("The model judges all of the image.")
        click(page, *SQUARE, SQUARE[0])  # of nothing the first click begins
        add_polygon(page, WITHIN)
        expect(page.get_by_label("What polygon 1 is")).to_have_value("look")
        expect(page.get_by_label("What polygon 2 is")).to_have_value("ignore")  # as it lies in the first
        expect(page.locator("#region-state")).to_have_text("Not saved. The model judges all of the image.")
        save(page)
        roi = saved(serving)
        assert roi["image_size"] == [256, 256] and set(roi) == {"format", "image_size", "include", "ignore"}
        for polygons, wanted in ((roi["include"], SQUARE), (roi["ignore"], WITHIN)):
            assert sum(polygons[0], []) == pytest.approx(sum(map(list, wanted), []), abs=1)
        # A point is dragged, another one is made halfway, and one is deleted; and all of it is undone, step by step.
        click(page, (60, 60))
        page.mouse.move(*on_screen(page, SQUARE[1]))
        page.mouse.down()
        page.mouse.move(*on_screen(page, (200, 50)), steps=4)
        page.mouse.up()
        page.mouse.move(*on_screen(page, (128, 230)))
        page.mouse.down()
        page.mouse.move(*on_screen(page, (128, 250)), steps=4)
        page.mouse.up()
        expect(page.locator("button.point")).to_have_count(5)
        page.get_by_role("button", name="Point 1 of polygon 1").click()
        page.get_by_role("button", name="Delete point").click()
        expect(page.locator("button.point")).to_have_count(4)
        save(page)
        (changed,) = saved(serving)["include"]
        assert sum(changed, []) == pytest.approx([200, 50, 230, 230, 128, 250, 26, 230], abs=1)
        for _ in range(3):
            page.get_by_role("button", name="Undo").click()
        expect(page.locator("button.point")).to_have_count(4)
        save(page)
        assert saved(serving) == roi
        with page.expect_download() as download:
            page.get_by_role("button", name="Download roi.json").click()
        assert download.value.suggested_filename == "roi.json"
        assert json.loads(download.value.path().read_text()) == roi
        page.get_by_role("button", name="Back to what is in force").click()
        save(page, "The model judges all of the image.")
        assert saved(serving) is None


def test_zones_are_drawn_with_keys_alone(browser, serving):
    with drawing(browser, serving.url, expected=("422",)) as page:
        expect(page.locator("#region-image")).to_be_visible()
        page.keyboard.press("n")
        for key in ("ArrowLeft", " ", "Shift+ArrowRight", " ", "Shift+ArrowDown", " ", "Enter"):
            page.keyboard.press(key)
        expect(page.locator("#spoken")).to_have_text("Polygon 1: look, 3 points.")
        page.keyboard.press("Tab")  # its first point
        expect(page.get_by_role("button", name="Point 1 of polygon 1, at 123, 128")).to_be_focused()
        for key in ("ArrowLeft", "ArrowLeft", "Shift+ArrowUp", "Insert", "Delete", "Delete"):
            page.keyboard.press(key)
        expect(page.locator("#spoken")).to_have_text("A polygon has 3 points at least: delete all of it.")
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")  # and from the drawing to the inspected image
        expect(page.locator("#inspect")).to_be_visible()
        page.keyboard.press("5")
        page.get_by_label("What polygon 1 is").focus()
        page.keyboard.press("End")
        expect(page.locator("#region-zones-panel")).to_be_visible()
        expect(page.get_by_label("What polygon 1 is")).to_be_focused()
        page.get_by_label("Name", exact=True).focus()
        page.keyboard.press("ControlOrMeta+a")
        page.keyboard.type("thread")
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Tab")
        page.keyboard.type("2 %")
        page.keyboard.press("Tab")
        page.keyboard.type("30")
        page.get_by_role("button", name="Save", exact=True).focus()
        page.keyboard.press("Enter")
        expect(page.locator("#trouble")).to_contain_text(
            "The false_alarm_rate of zone 'thread' has '2 %', which is no number"
        )
        page.get_by_label("Rate, such as 0.02").fill("0.02")
        page.get_by_role("button", name="Save", exact=True).focus()
        page.keyboard.press("Enter")
        expect(page.locator("#region-state")).to_contain_text("Saved for the next fit.")
        (zone,) = saved(serving)["zones"]
        assert (zone["name"], zone["false_alarm_rate"], zone["min_area_px"]) == ("thread", 0.02, 30)
        assert sum(zone["include"][0], []) == pytest.approx([121, 123, 148, 128, 148, 154], abs=1)


def test_a_file_is_drawn_on_and_one_of_another_shape_is_refused(browser, serving):
    with drawing(browser, serving.url) as page:
        expect(page.locator("#region-image")).to_be_visible()
        drop(page, {"large.png": image_bytes(size=(512, 512))}, "#region-stage")
        expect(page.locator("#region-images option").first).to_have_text("large.png")
        add_polygon(page, SQUARE)
        drop(page, {"wide.png": image_bytes(size=(90, 50))}, "#region-stage")
        expect(page.locator("#trouble")).to_contain_text("wide.png has 90 × 50 pixels")
        save(page)
        assert saved(serving)["image_size"] == [512, 512]  # what was sent nowhere else
        page.get_by_label("Image beneath").select_option("good.png")
        add_polygon(page, WITHIN)  # on the same place, whatever the image's size
        save(page)
        (ignored,) = saved(serving)["ignore"]
        assert sum(ignored, []) == pytest.approx([2 * at for point in WITHIN for at in point], abs=2)
        page.locator("#model").select_option("mean")
        expect(page.locator("#region-state")).to_contain_text("Mean sees images as a whole")
        expect(page.get_by_role("button", name="Save", exact=True)).to_be_hidden()


@pytest.mark.parametrize(("viewport", "scheme"), [(DESK, "light"), (PHONE, "dark")], ids=["desk", "phone"])
def test_nothing_is_found_by_axe_at_any_width_and_in_both_schemes(browser, serving, viewport, scheme):
    with drawing(browser, serving.url, viewport=viewport, color_scheme=scheme, has_touch=viewport is PHONE) as page:
        expect(page.locator("#region-state")).to_have_text("The model judges all of the image.")
        add_polygon(page, SQUARE)
        page.get_by_label("What polygon 1 is").select_option("a new zone")
        page.get_by_role("button", name="Point 1 of polygon 1").focus()
        assert [one for one in page.evaluate(CONTRASTS) if one[1] < 4.5] == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert_accessible(page)


def test_a_drawing_is_the_region_that_it_was_made_of(browser, serving):
    """What the page reads it writes again, in the words of the service."""
    zones = [{"name": "a", "include": [WITHIN], "threshold": 1.5}, {"name": "b", "include": [SQUARE, WITHIN]}]
    zones[1] |= {"false_alarm_rate": 0.02, "min_area_px": 7}
    regions = [{"include": [SQUARE]}, {"ignore": [WITHIN]}, {"zones": zones, "ignore": [WITHIN]}]
    stored = [DrawnRoi.from_json({"image_size": [300, 200], **region}).as_json() for region in regions]
    with drawing(browser, serving.url) as page:
        read = "async regions => { const { Drawing } = await import('/region_drawing.js');"
        written = page.evaluate(
            f"{read} return regions.map(one => JSON.stringify(new Drawing(one).asRoi())); }}", stored
        )
        undone = """const one = new Drawing(regions[0]);
            one.replace({ ...regions[2], image_size: [600, 400] });
            one.undo();
            return [one.isChanged, JSON.stringify(one.asRoi())]; }"""
        assert page.evaluate(f"{read} {undone}", stored) == [False, written[0]]
    assert [json.loads(one) for one in written] == json.loads(json.dumps(stored))
    assert [[*json.loads(one)] for one in written] == [[*one] for one in stored]  # in its order too
