"""Feedback in a real browser: said with the pointer and with keys, marked, taken back, and gone through as a queue."""

import io
import shutil
from contextlib import AbstractContextManager

import numpy as np
import pytest
from browsing import CONTRASTS, PATIENCE_MS, assert_accessible, drop, opened
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from serving_here import add_second_version, serving_here
from stored_results import result

from downstream.service.watch.camera import REFERENCES, look_at

expect.set_options(timeout=PATIENCE_MS)
DESK, PHONE = {"width": 1280, "height": 860}, {"width": 360, "height": 780}
PHONE_IN_HAND = {"viewport": PHONE, "has_touch": True, "is_mobile": True, "reduced_motion": "reduce"}


@pytest.fixture(scope="module")
def serving(models_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("review")
    models = shutil.copytree(models_folder, folder / "models")
    with serving_here(models, folder, model="hazelnut") as serving:
        yield serving


@pytest.fixture(scope="module")
def images(demo_folder) -> dict[str, bytes]:
    """Two good ones and one with a stain."""
    folder = demo_folder / "hazelnut" / "test" / "good"
    image = Image.open(folder / "000.png").convert("RGB")
    image.paste((110, 40, 120), (110, 110, 140, 140))
    file = io.BytesIO()
    image.save(file, "PNG")
    return {"bad.png": file.getvalue(), **{f"good {n}.png": (folder / f"00{n}.png").read_bytes() for n in (1, 2)}}


def ready(browser: Browser, url: str, **options: object) -> AbstractContextManager[Page]:
    return opened(browser, url, **{"viewport": DESK, **options})


def said(serving) -> list[dict]:
    return serving.client.get("/api/feedback").json()["feedback"]


def test_a_verdict_is_answered_with_keys_alone_and_taken_back(browser, serving, images):
    with ready(browser, serving.url) as page:
        drop(page, {"bad.png": images["bad.png"]})
        words = page.locator("#feedback-words")
        expect(words).to_have_text("Answered defective. Is that right? Saying so keeps the image.")
        expect(page.get_by_role("button", name="Missed defect")).to_be_hidden()  # it was called defective
        page.keyboard.press("f")
        expect(words).to_contain_text("Said: false alarm")
        expect(page.get_by_role("button", name="False alarm")).to_have_attribute("aria-pressed", "true")
        assert said(serving)[0]["verdict"] == "false_alarm"
        page.keyboard.press("a")
        expect(words).to_contain_text("Said: agree")
        page.keyboard.press("z")
        expect(words).to_contain_text("Said: false alarm")  # what was said before counts again
        page.keyboard.press("z")
        expect(words).to_contain_text("Is that right?")
        expect(page.locator("#spoken")).to_have_text("Taken back.")
        assert [one["verdict"] for one in said(serving)[:4]] == ["taken_back", "taken_back", "agree", "false_alarm"]


def test_a_missed_defect_is_marked_by_region_brush_and_box(browser, serving, images):
    with ready(browser, serving.url) as page:
        drop(page, {"good 1.png": images["good 1.png"]})
        expect(page.locator("#verdict .headline")).to_have_text("Good")
        page.get_by_role("button", name="Missed defect").click()
        expect(page.get_by_role("radio", name="Suggested")).to_be_checked()
        page.get_by_role("button", name="Suggested region 1").click()
        suggested = page.locator("#pen .suggested.taken")
        expect(suggested).to_have_count(1)
        shown = page.locator("#image").bounding_box()
        scale, left, top = shown["width"] / 256, shown["x"], shown["y"]
        at = lambda x, y: (left + x * scale, top + y * scale)  # noqa: E731
        page.get_by_role("radio", name="Brush").check()
        page.mouse.move(*at(50, 60))
        page.mouse.down()
        page.mouse.move(*at(80, 60), steps=6)
        page.mouse.up()
        page.get_by_role("radio", name="Box").check()
        page.mouse.move(*at(200, 210))
        page.mouse.down()
        page.mouse.move(*at(180, 190), steps=3)
        page.mouse.up()
        expect(page.locator("#pen .mark")).to_have_count(2)
        page.get_by_role("button", name="Save", exact=True).click()
        expect(page.locator("#feedback-words")).to_contain_text("Said: missed defect")
        marks = said(serving)[0]["marks"]
        assert len(marks["boxes"]) == 2 and marks["boxes"][1] == pytest.approx([180, 190, 200, 210], abs=2)
        (stroke,) = marks["strokes"]
        assert stroke["points"][0] == pytest.approx([50, 60], abs=1)
        assert stroke["points"][-1] == pytest.approx([80, 60], abs=stroke["radius"] / 4 + 1)


def test_a_missed_defect_is_marked_with_keys_alone(browser, serving, images):
    with ready(browser, serving.url) as page:
        drop(page, {"good 2.png": images["good 2.png"]})
        expect(page.locator("#verdict .headline")).to_have_text("Good")
        page.keyboard.press("m")
        page.keyboard.press("1")  # the first region that the map suggests
        page.keyboard.press("Backspace")
        page.get_by_role("radio", name="Suggested").focus()
        page.keyboard.press("ArrowRight")  # the brush
        page.locator("#stage").focus()
        for key in ("ArrowLeft", "Shift+ArrowUp", " "):
            page.keyboard.press(key)
        page.keyboard.press("Escape")
        expect(page.locator("#marking")).to_be_hidden()
        before = len(said(serving))
        page.keyboard.press("m")
        page.get_by_role("radio", name="Box").check()
        page.locator("#stage").focus()
        for key in (" ", "Shift+ArrowRight", "Shift+ArrowDown", " ", "Enter"):
            page.keyboard.press(key)
        expect(page.locator("#feedback-words")).to_contain_text("Said: missed defect")
        assert len(said(serving)) == before + 1
        assert said(serving)[0]["marks"]["boxes"] == [[128, 128, 154, 154]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_all_is_said_and_marked_by_touch(browser, serving, images, scheme):
    with ready(browser, serving.url, **PHONE_IN_HAND, color_scheme=scheme) as page:
        choose(page, "bad.png", images["bad.png"])
        words = page.locator("#feedback-words")
        expect(words).to_contain_text("Is that right?")
        for name in ("False alarm", "Agree", "Unsure"):
            page.get_by_role("button", name=name, exact=True).tap()
            expect(words).to_contain_text(f"Said: {name.lower()}")
        page.get_by_role("button", name="Take back", exact=True).tap()
        expect(words).to_contain_text("Said: agree")
        assert_readable_and_accessible(page)

        choose(page, "good 1.png", images["good 1.png"])
        expect(page.locator("#verdict .headline")).to_have_text("Good")
        page.get_by_role("button", name="Missed defect").tap()
        stage, marks = page.locator("#stage"), page.locator("#pen :is(.mark, .stroke)")
        stage.scroll_into_view_if_needed()
        box = page.locator("#pen .suggested").first.bounding_box()
        page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        expect(page.get_by_role("button", name="Suggested region 1")).to_have_attribute("aria-pressed", "true")
        page.get_by_role("radio", name="Brush").tap()
        stage.scroll_into_view_if_needed()
        shown, scrolled = page.locator("#image").bounding_box(), page.evaluate("scrollY")
        at = lambda x, y: (shown["x"] + x * shown["width"] / 256, shown["y"] + y * shown["width"] / 256)  # noqa: E731
        fingers(page, [at(50, 60), at(50, 120)])  # downwards, where a page scrolls
        expect(marks).to_have_count(2)
        page.get_by_role("radio", name="Box").tap()
        stage.scroll_into_view_if_needed()
        fingers(page, [at(200, 210), at(180, 190)])
        expect(marks).to_have_count(3)
        fingers(page, [at(20, 20), at(40, 40)])
        expect(marks).to_have_count(4)
        page.get_by_role("button", name="Undo mark").tap()
        expect(marks).to_have_count(3)
        stage.scroll_into_view_if_needed()
        assert page.evaluate("scrollY") == scrolled
        fingers(page, [at(120, 120), at(60, 120)], [at(140, 120), at(200, 120)])
        assert page.locator("#image").bounding_box()["width"] > 2 * shown["width"]  # two fingers zoom, and mark nothing
        expect(marks).to_have_count(3)
        assert_readable_and_accessible(page)
        page.get_by_role("button", name="Save", exact=True).tap()
        expect(words).to_contain_text("Said: missed defect")
        record = said(serving)[0]["marks"]
        assert len(record["boxes"]) == 2 and record["boxes"][1] == pytest.approx([180, 190, 200, 210], abs=2)
        (stroke,) = record["strokes"]
        assert stroke["points"][0] == pytest.approx([50, 60], abs=1)
        assert stroke["points"][-1] == pytest.approx([50, 120], abs=stroke["radius"] / 4 + 1)


def test_in_the_queue_too_a_region_of_the_map_says_where_a_missed_defect_is(browser, serving, images):
    judged = serving.test(images["good 2.png"] + b"in hand", "in hand.png", keep=True, map="array").json()
    with ready(browser, f"{serving.url}/#review", **PHONE_IN_HAND) as page:
        page.locator("#review-list li").filter(has_text="in hand.png").get_by_role("button").tap()
        expect(page.locator("#verdict .headline")).to_have_text("Good")
        page.get_by_role("button", name="Missed defect").tap()
        expect(page.get_by_role("radio", name="Suggested")).to_be_checked()
        page.get_by_role("button", name="Suggested region 1").tap()
        with page.expect_response("**/api/feedback"):
            page.get_by_role("button", name="Save", exact=True).tap()
        record = said(serving)[0]
        assert (record["result"], record["verdict"]) == (judged["id"], "missed_defect")
        (left, top, right, bottom), values = record["marks"]["boxes"][0], np.array(judged["anomaly_map"])
        row, column = np.unravel_index(values.argmax(), values.shape)
        assert left <= (column + 0.5) * 256 / values.shape[1] <= right
        assert top <= (row + 0.5) * 256 / values.shape[0] <= bottom


def test_what_waits_is_gone_through_one_after_the_other(browser, serving, images):
    for name, data in images.items():
        assert serving.test(data + name.encode(), name, keep=True).status_code == 200  # other digests than above
    total = serving.client.get("/api/feedback/queue").json()["total"]
    with ready(browser, f"{serving.url}/#review") as page:
        expect(page.locator("#review-count")).to_have_text(f"{total} images to review")
        expect(page.locator("#review-list img").first).to_be_visible()
        command = f"heldout detect learn --model models/hazelnut --feedback {serving.url}"
        expect(page.locator("#learn-command")).to_have_text(command)
        page.get_by_role("button", name="Start").click()
        first = page.locator("#verdict .of").text_content()
        page.keyboard.press("u")
        expect(page.locator("#verdict .of")).not_to_have_text(first)
        expect(page.locator("#feedback-words")).to_contain_text("Is that right?")
        for _ in range(40):
            if page.locator("#review").is_visible():
                break
            page.keyboard.press("v")
            page.wait_for_timeout(100)
        expect(page.locator("#review")).to_be_visible()
        expect(page.locator("#review-count")).to_contain_text(f"{total - 1} image")
        expect(page.locator("#said li").first).to_contain_text("unsure")
        page.locator("#said button").first.click()
        expect(page.locator("#review-count")).to_have_text(f"{total} images to review")
        with page.expect_download() as download:
            page.get_by_role("button", name="Download feedback").click()
        assert download.value.suggested_filename == "feedback.jsonl"


def test_a_version_is_put_into_use_and_rolled_back(browser, serving, images):
    add_second_version(serving.service.models.path_of("hazelnut"), 1e6)
    with ready(browser, serving.url) as page:
        drop(page, {"bad.png": images["bad.png"]})
        expect(page.locator("#verdict .headline")).to_have_text("Defective")
        page.locator("#versions-panel summary").click()
        page.get_by_role("button", name="Use version 2").click()
        expect(page.locator("#versions")).to_contain_text("Version 2, in use")
        expect(page.locator("#spoken")).to_have_text("Version 2 judges from now on.")
        expect(page.locator("#threshold-number")).to_have_value("1000000")
        assert_readable_and_accessible(page)
        page.get_by_role("button", name="Roll back").click()
        expect(page.locator("#versions-state")).to_have_text("1 of 2")
        expect(page.locator("#verdict .headline")).to_have_text("Defective")


def test_what_other_versions_judged_is_another_queue(browser, serving, images):
    answer = serving.test(images["good 1.png"] + b"again", "again.png", keep=True).json()
    (stored,) = serving.service.database.results_of([answer["id"]])
    serving.service.database.add_results([stored._replace(model_version="an older one", name="older.png")])
    with ready(browser, f"{serving.url}/#review") as page:
        rows = page.locator("#review-list li")
        expect(rows.filter(has_text="again.png")).to_have_count(1)
        page.get_by_label("Judged by").select_option("an older one")
        expect(rows).to_have_count(1)
        expect(rows).to_contain_text("older.png")
        expect(page.locator("#review-count")).to_have_text("1 image to review")
        assert_readable_and_accessible(page)


def test_more_of_the_queue_shows_no_image_twice(browser, serving):
    """Somebody keeps one more meanwhile, and all the others move on by one."""
    full = result(0, model="hazelnut", model_version="a full one", is_kept=True, threshold=0.0)
    many = [full._replace(name=f"{n}.png", digest=f"{n:064x}", score=1.0 + n) for n in range(1, 63)]
    serving.service.database.add_results(many[:-1])
    with ready(browser, f"{serving.url}/#review", expected=("404",)) as page:  # of their thumbnails
        rows, names = page.locator("#review-list li"), page.locator("#review-list .name")
        page.get_by_label("Judged by").select_option("a full one")
        expect(rows).to_have_count(60)
        serving.service.database.add_results([many[-1]._replace(score=0.5)])
        page.get_by_role("button", name="More").click()
        expect(rows).to_have_count(61)
        assert sorted(names.all_text_contents()) == sorted(f"{n}.png" for n in range(1, 62))
        expect(page.locator("#review-more")).to_be_hidden()


def test_a_dark_camera_is_said_before_the_verdict(browser, serving, images):
    good = np.asarray(Image.open(io.BytesIO(images["good 1.png"])).convert("RGB")).astype(float)
    random, version = np.random.default_rng(0), serving.service.models.load("hazelnut").fingerprint
    for _ in range(REFERENCES):
        pixels = (good * random.normal(1, 0.02) + random.normal(0, 2, good.shape)).clip(0, 255).astype(np.uint8)
        serving.service.camera.accept("hazelnut", version, look_at(pixels))
    file = io.BytesIO()
    Image.fromarray((good * 0.4).astype(np.uint8)).save(file, "PNG")
    with ready(browser, serving.url) as page:
        drop(page, {"dark.png": file.getvalue()})
        expect(page.locator("#camera-words")).to_contain_text("The camera: too dark")
        expect(page.locator("#spoken")).to_contain_text("The camera: too dark")
        page.locator("#watch-panel summary").click()
        expect(page.locator("#watch")).to_contain_text("too dark: 1")
        expect(page.locator("#watch-state")).to_have_text("look at it")
        assert_readable_and_accessible(page)
        page.get_by_role("button", name="Learn the camera anew").click()
        expect(page.locator("#watch")).to_contain_text("learning: 0 of 50")


@pytest.mark.parametrize(
    ("viewport", "scheme"),
    [pytest.param(DESK, "light", id="desk", marks=pytest.mark.slow), pytest.param(PHONE, "dark", id="phone")],
)
def test_nothing_is_found_by_axe_at_any_width_and_in_both_schemes(browser, serving, images, viewport, scheme):
    options = {"viewport": viewport, "color_scheme": scheme, "reduced_motion": "reduce"}
    with ready(browser, serving.url, **options) as page:
        drop(page, {"good 1.png": images["good 1.png"]})
        expect(page.locator("#feedback")).to_be_visible()
        page.keyboard.press("m")
        expect(page.locator("#marking")).to_be_visible()
        assert_readable_and_accessible(page)
        page.keyboard.press("Escape")
        page.keyboard.press("3")
        expect(page.locator("#said li").first).to_be_visible()
        assert_readable_and_accessible(page)


def assert_readable_and_accessible(page: Page) -> None:
    assert [one for one in page.evaluate(CONTRASTS) if one[1] < 4.5] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert_accessible(page)


def choose(page: Page, name: str, data: bytes) -> None:
    page.locator("#files").set_input_files([{"name": name, "mimeType": "image/png", "buffer": data}])
    expect(page.locator("#verdict .of")).to_have_text(name)


def fingers(page: Page, *paths: list[tuple[float, float]]) -> None:
    """They come down one after the other, go along their paths, and are lifted."""
    touch = page.context.new_cdp_session(page)
    steps = 4
    down: list[dict] = []
    for number, (start, _) in enumerate(paths):
        down.append({"x": start[0], "y": start[1], "id": number})
        touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": down})
    for step in range(1, steps + 1):
        for point, ((x0, y0), (x1, y1)) in zip(down, paths, strict=True):
            point |= {"x": x0 + (x1 - x0) * step / steps, "y": y0 + (y1 - y0) * step / steps}
        touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": down})
    page.wait_for_timeout(120)  # else it is a fling, and the next tap would do nothing but end it
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    touch.detach()
