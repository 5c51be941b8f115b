"""The page in a real browser, against a service on a port of its own."""

import csv
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from browsing import carried, drop, opened
from dashboard_page import TOKEN, inspecting, judged, ready, row
from PIL import Image
from playwright.sync_api import expect
from stored_results import result

from scripts.attacks.serving import image_bytes

HOSTILE = "<img src=x onerror=alert(1)>.png"


def test_many_are_dropped_and_one_is_broken(browser, serving, images):
    files = {**images, "notes.txt": b"no image", "large.png": b"\x89PNG" + bytes(2 << 20), "empty.png": b""}
    with inspecting(browser, serving.url, expected=("415",)) as page:
        expect(ready(page).locator("#stage-empty")).to_be_visible()
        drop(page, files)
        judged(page, "7 images: 1 defective, 3 good, 3 failed")
        expect(row(page, "notes.txt")).to_contain_text("Not an image that can be read")
        expect(row(page, "large.png")).to_contain_text("2.0 MiB are too many: send an image of at most 1.0 MiB.")
        expect(row(page, "empty.png")).to_contain_text("The file is empty")
        expect(page.locator("#spoken")).to_have_text("7 images: 1 defective, 3 good, 3 failed.")
        for name, is_defective in {name: name == "bad.png" for name in images}.items():
            row(page, name).locator(".open").click()
            expect(page.locator("#verdict")).to_contain_text("Defective" if is_defective else "Good")
            expect(page.locator("#verdict .of")).to_have_text(name)
        row(page, "notes.txt").get_by_role("button", name="Retry").click()
        judged(page, "7 images: 1 defective, 3 good, 3 failed")
        page.locator("#show-only").select_option("failed")
        expect(page.locator("#items li")).to_have_count(3)


def test_one_is_shown_with_all_that_is_known(browser, serving, images):
    with inspecting(browser, serving.url) as page:
        drop(ready(page), {"bad.png": images["bad.png"]})
        expect(page.locator("#verdict .headline")).to_have_text("Defective")
        last = serving.client.get("/api/results", params={"limit": 1}).json()["results"][0]
        score, threshold = (f"{last[field]:.4g}" for field in ("anomaly_score", "threshold"))
        expect(page.locator("#verdict .score")).to_have_text(f"{score} above the threshold {threshold}")
        expect(page.locator("#spoken")).to_contain_text(f"bad.png: defective, score {score}")
        expect(page.locator(".regions button")).to_have_count(len(last["regions"]))
        expect(page.locator("#marks rect.over")).to_have_count(len(last["regions"]))
        # The first box lies over the image where the API says, to a pixel of the screen.
        fitted = page.locator("#image").bounding_box()
        page.locator(".regions button").first.click()
        shown, box = page.locator("#image").bounding_box(), page.locator("#marks rect.over").first.bounding_box()
        scale, (left, top, right, bottom) = shown["width"] / last["width"], last["regions"][0]["box"]
        edge = 1.5  # half of the line lies outside
        assert box["x"] - shown["x"] == pytest.approx(left * scale - edge, abs=1)
        assert box["y"] - shown["y"] == pytest.approx(top * scale - edge, abs=1)
        assert box["width"] == pytest.approx((right - left) * scale + 2 * edge, abs=1)
        assert box["height"] == pytest.approx((bottom - top) * scale + 2 * edge, abs=1)
        assert shown["width"] > fitted["width"]  # it was zoomed to
        assert 'd="M' in page.locator("#marks .contour.over").evaluate("path => path.outerHTML")
        for name in ("heat", "contours", "boxes"):
            page.keyboard.press(name[0])
        for hidden in ("#heat", ".contour.over", "g.boxes"):
            expect(page.locator(hidden).first).to_be_hidden()
        for name, size, words in (
            ("wide.png", (300, 100), "drawn out of shape"),
            ("small.png", (90, 90), "larger or smaller"),
        ):
            drop(page, {name: image_bytes(size=size)})
            row(page, name).locator(".open").click()
            expect(page.locator("#verdict .notes")).to_contain_text(words)


def test_the_slider_decides_again_and_counts_what_would_flip(browser, serving, images):
    with inspecting(browser, serving.url) as page:
        drop(ready(page), images)
        judged(page, "4 images: 1 defective, 3 good")
        results = serving.client.get("/api/results", params={"model": "hazelnut", "limit": 500}).json()["results"]
        before = serving.client.get("/api/threshold").json()
        scores = np.array([result["anomaly_score"] for result in results])
        normals = np.array(before["normal_scores"])
        for value in (float(np.median(normals)), float(normals.min()) - 0.01, float(scores.max()) + 0.01):
            page.locator("#threshold-number").fill(repr(value))
            flips = int(((scores > value) != (scores > before["value"])).sum())
            normal_flips = int(((normals > value) != (normals > before["value"])).sum())
            expect(page.locator("#flips-results")).to_have_attribute("data-flips", str(flips))
            expect(page.locator("#flips-results")).to_contain_text(f"of {len(results)} recent results would flip")
            expect(page.locator("#flips-normals")).to_have_attribute("data-flips", str(normal_flips))
            expect(page.locator("#flips-normals")).to_contain_text(f"{(normals > value).sum()} called defective")
            if value < normals.min():
                expect(page.locator("#flips-normals")).to_contain_text("(100 %)")
        judged(page, "4 images: 0 defective, 4 good")
        expect(page.locator("#verdict .headline")).to_have_text("Good")
        expect(page.locator("#verdict")).to_contain_text("by the threshold on trial")
        assert serving.client.get("/api/threshold").json() == before  # nothing is kept yet
        # The line of the strip stands above the thumb of the slider.
        line, slider = page.locator("#strip .limit").bounding_box(), page.locator("#threshold").bounding_box()
        share = page.locator("#threshold").evaluate("one => (one.value - one.min) / (one.max - one.min)")
        assert line["x"] == pytest.approx(slider["x"] + 9 + share * (slider["width"] - 18), abs=2)
        page.get_by_role("button", name="Keep", exact=True).click()
        expect(page.locator("#flips")).to_contain_text("In force")
        assert serving.client.get("/api/threshold").json()["value"] == pytest.approx(value)
        page.get_by_role("button", name="Back to the model's own").click()
        expect(page.locator("#own-threshold")).to_be_disabled()
        assert serving.client.get("/api/threshold").json() == before
        judged(page, "4 images: 1 defective, 3 good")


def test_history_is_filtered_paged_and_downloaded(browser, serving, images):
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}.000Z"
    one = result(0, model="hazelnut", created=now, is_defective=False)
    serving.service.database.add_results([one._replace(name=f"batch {number:02}.png") for number in range(60)])
    assert serving.test(images["bad.png"], "=harmful.png").status_code == 200
    with inspecting(browser, f"{serving.url}/#history", viewport={"width": 1280, "height": 800}) as page:
        rows, total = page.locator("#history-rows tbody tr"), serving.client.get("/api/results").json()["total"]
        expect(page.locator("#history-count")).to_have_text(f"{total} results (1 to 50)")
        page.locator("#older").click()
        expect(rows).to_have_count(min(50, total - 50))
        page.locator("#newer").click()
        expect(rows).to_have_count(50)
        page.locator("#filter-name").fill("batch 1")
        expect(page.locator("#history-count")).to_have_text("10 results with these filters")
        expect(rows).to_have_count(10)
        page.locator("#filter-name").fill("harmful")
        page.locator("#filter-verdict").select_option("true")
        expect(rows).to_have_count(1)
        with page.expect_download() as download:
            page.locator("#csv").click()
        (line,) = csv.DictReader(io.StringIO(Path(download.value.path()).read_text()))
        assert line["name"] == "'=harmful.png" and line["is_defective"] == "True"
        page.locator("#filter-verdict").select_option("false")
        expect(page.locator(".empty")).to_have_text("Nothing passes these filters: clear one of them.")
        page.locator("#filter-clear").click()
        now = datetime.fromisoformat(page.evaluate("new Date().toLocaleString('sv').replace(' ', 'T')"))
        page.locator("#filter-since").fill(f"{now + timedelta(minutes=2):%Y-%m-%dT%H:%M}")
        expect(page.locator(".empty")).to_be_visible()
        page.locator("#filter-since").fill(f"{now - timedelta(hours=1):%Y-%m-%dT%H:%M}")
        page.locator("#filter-until").fill(f"{now:%Y-%m-%dT%H:%M}")  # the minute that it names counts
        expect(page.locator("#history-count")).to_contain_text(f"{total} results with these filters")
        page.locator("#filter-until").fill(f"{now - timedelta(minutes=30):%Y-%m-%dT%H:%M}")
        expect(page.locator(".empty")).to_be_visible()


def test_an_earlier_result_is_opened_and_similar_ones_are_found(browser, serving, images):
    for name, data in images.items():
        assert serving.test(data, name, keep="true").status_code == 200
    assert serving.test(image_bytes(7), "not kept.png").status_code == 200
    with inspecting(browser, f"{serving.url}/#history") as page:
        page.get_by_role("button", name="not kept.png").first.click()
        expect(page.locator("#stage-words")).to_contain_text("This image was not kept.")
        page.keyboard.press("2")
        page.get_by_role("button", name="bad.png").first.click()
        expect(page.locator("#verdict .headline")).to_have_text("Defective")
        expect(page.locator("#image")).to_have_js_property("naturalWidth", 256)
        expect(page.locator("#marks rect.over").first).to_be_visible()
        page.keyboard.press("s")
        neighbors = page.locator(".neighbors button")
        expect(neighbors.first).to_contain_text("good 0.png")  # of which it was made
        expect(neighbors.first).to_contain_text("Good")
        expect(page.locator(".neighbors")).not_to_contain_text("bad.png")  # never the image itself
        neighbors.first.click()
        expect(page.locator("#compare img")).to_have_count(2)
        page.keyboard.press("Escape")
        expect(page.locator("#compare-dialog")).to_be_hidden()


def test_another_model_is_chosen(browser, serving, images):
    with inspecting(browser, serving.url) as page:
        drop(ready(page), {"bad.png": images["bad.png"]})
        expect(page.locator("#verdict .headline")).to_have_text("Defective")
        page.locator("#model").select_option("mean")
        expect(page.locator("#service")).to_contain_text("mean, 64 px")
        assert serving.client.get("/api/status").json()["model"] == "mean"
        expect(page.locator("#verdict .notes")).to_have_text("by the model hazelnut")  # and not by this one's threshold
        page.get_by_role("button", name="Judge again").click()
        expect(page.locator("#verdict .notes")).to_have_count(0)
        expect(page.locator("#verdict .sure")).to_be_visible()  # and no longer on its way
        assert serving.client.get("/api/results", params={"limit": 1}).json()["results"][0]["model"] == "mean"


def test_a_token_is_asked_for_once_and_sent_with_everything(browser, serving, images):
    with opened(browser, serving.url, expected=("401",)) as page:
        expect(page.locator("#token-dialog")).to_be_visible()
        page.keyboard.press("Escape")  # without one nothing works
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#token-words")).to_contain_text("refused")
        page.locator("#token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("#token-dialog")).to_be_hidden()
        ready(page).locator("#keep-images").check()
        drop(page, {"with a token.png": images["bad.png"]})
        expect(page.locator("#verdict .headline")).to_have_text("Defective")
        page.reload()
        ready(page).keyboard.press("2")
        page.get_by_role("button", name="with a token.png").click()
        expect(page.locator("#image")).to_have_js_property("naturalWidth", 256)  # fetched with the token
        assert TOKEN not in page.evaluate("JSON.stringify(localStorage)") + page.url


def test_hostile_names_are_only_text(browser, serving, images):
    names = [HOSTILE, '"><script>alert(1)</script>.png', "a" * 300 + ".png", "\u202egnp.exe"]
    with inspecting(browser, serving.url, viewport={"width": 360, "height": 780}) as page:
        page.locator("#keep-images").check()
        drop(ready(page), dict.fromkeys(names, images["bad.png"]))
        judged(page, "4 images: 4 defective, 0 good")
        expect(page.locator("#verdict .of")).to_have_text(HOSTILE)
        page.locator("#metadata-panel summary").click()
        expect(page.locator("#metadata")).to_contain_text(HOSTILE)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.keyboard.press("2")
        expect(page.get_by_role("button", name=HOSTILE).first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.locator("img[src=x], main script").count() == 0


def test_a_busy_service_is_waited_for_and_a_lost_one_named(browser, serving, images):
    with inspecting(browser, serving.url, expected=("429", "ERR_FAILED")) as page:
        answers = []

        def busy_at_first(route):
            answers.append(1)
            if len(answers) <= 2:
                return route.fulfill(status=429, headers={"Retry-After": "1"}, json={"detail": "too much is waiting."})
            return route.continue_()

        page.route("**/api/test_image", busy_at_first)
        drop(ready(page), images)
        expect(page.locator("#batch-words")).to_contain_text("The service is busy: going on in")
        judged(page, "4 images: 1 defective, 3 good")
        page.unroute("**/api/test_image")
        page.route("**/api/*", lambda route: route.abort())
        drop(page, {"lost.png": images["bad.png"]})
        expect(row(page, "lost.png")).to_contain_text("The service cannot be reached: see whether it runs, then retry.")
        page.unroute("**/api/*")
        page.get_by_role("button", name="Retry failed").click()
        judged(page, "5 images: 2 defective, 3 good")


def test_a_folder_is_dropped_stopped_and_cleared(browser, serving, images, tmp_path):
    folder = tmp_path / "shift 3"
    for number in range(12):
        (folder / "left").mkdir(parents=True, exist_ok=True)
        (folder / "left" / f"{number}.png").write_bytes(images["good 1.png"])
    (folder / ".hidden").write_bytes(b"what a system leaves there")
    with inspecting(browser, serving.url) as page:
        ready(page)
        held = []
        page.route("**/api/test_image", lambda route: held.append(route))  # nothing is answered
        devices = page.context.new_cdp_session(page)
        data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            devices.send("Input.dispatchDragEvent", {"type": kind, "x": 400, "y": 400, "data": data})
        expect(page.locator("#items li")).to_have_count(12)
        expect(page.locator("#items .name").nth(10)).to_have_text("shift 3/left/10.png")  # 10 comes after 9
        expect(page.locator("#batch-words")).to_have_text("0 of 12 images done")
        expect(page.locator("#drop-veil")).to_be_hidden()
        assert len(held) == 4  # so many at once
        page.get_by_role("button", name="Stop").click()
        judged(page, "12 images: 0 defective, 0 good, 12 failed")
        page.unroute("**/api/test_image")
        page.get_by_role("button", name="Retry failed").click()
        judged(page, "12 images: 0 defective, 12 good")
        page.get_by_role("button", name="Clear list").click()
        expect(page.locator("#items li")).to_have_count(0)
        expect(page.locator("#verdict")).to_contain_text("No image yet")


def test_a_kind_that_browsers_cannot_show(browser, serving, images):
    file = io.BytesIO()
    Image.open(io.BytesIO(images["bad.png"])).save(file, "TIFF")
    with inspecting(browser, serving.url) as page:
        drop(ready(page), {"bad.tiff": file.getvalue()})
        expect(page.locator("#verdict .headline")).to_have_text("Defective")
        expect(page.locator("#stage-words")).to_contain_text("This browser cannot show this kind of image.")
        expect(page.locator("#marks rect.over").first).to_be_visible()
        page.locator("#keep-images").check()
        drop(page, {"kept.tiff": file.getvalue()})
        expect(page.locator("#verdict .of")).to_have_text("kept.tiff")
        expect(page.locator("#image")).to_have_js_property("naturalWidth", 256)


def test_an_image_can_be_pasted(browser, serving, images):
    with inspecting(browser, serving.url) as page:
        transfer = carried(ready(page), {"image.png": images["bad.png"]})
        page.evaluate(
            "data => document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true }))",
            transfer,
        )
        expect(page.locator("#verdict .headline")).to_have_text("Defective")
        expect(page.locator("#verdict .of")).to_contain_text("pasted ")
