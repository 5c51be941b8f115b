"""The page for everybody: with keys alone, at any width, in both schemes of color."""

import numpy as np
import pytest
from browsing import CONTRASTS, drop
from dashboard_page import inspecting, judged, ready, row
from playwright.sync_api import Page, expect

SCHEMES = (pytest.param("light", marks=pytest.mark.slow), "dark")
WIDTHS = (320, 360, 768, 920, 1100, 1440)


def test_all_can_be_done_with_the_keyboard(browser, serving, images, tmp_path):
    for name, data in images.items():
        (tmp_path / name).write_bytes(data)
    with inspecting(browser, serving.url) as page:
        ready(page)
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("o")
        chooser.value.set_files([tmp_path / name for name in images])
        judged(page, "4 images: 1 defective, 3 good")
        names = []
        for key in ("", "ArrowDown", "ArrowRight", "ArrowDown", "ArrowDown", "ArrowUp"):
            if key:
                page.keyboard.press(key)
            names.append(page.locator("#verdict .of").text_content())
        in_order = list(images)
        assert names == [*in_order, in_order[-1], in_order[-2]]
        page.keyboard.press("t")
        expect(page.locator("#threshold")).to_be_focused()
        page.keyboard.press("Home")
        judged(page, "4 images: 4 defective, 0 good")
        page.keyboard.press("Escape")
        expect(page.locator("#stage")).to_be_focused()
        ring = page.locator("#stage").evaluate("one => getComputedStyle(one).outlineStyle")
        assert ring == "solid"
        before = page.locator("#image").bounding_box()
        page.keyboard.press("+")
        page.keyboard.press("ArrowRight")  # on a zoomed image arrows move it
        after = page.locator("#image").bounding_box()
        assert after["width"] > before["width"] and after["x"] < before["x"]
        page.keyboard.press("0")
        assert page.locator("#image").bounding_box() == before
        page.keyboard.press("?")
        expect(page.locator("#keys-dialog")).to_be_visible()
        page.locator("#single-keys").uncheck()
        page.keyboard.press("Escape")
        page.keyboard.press("2")
        expect(page.locator("#inspect")).to_be_visible()  # single letters do nothing any more


def test_tab_reaches_every_control_that_can_be_used(browser, serving, images):
    with inspecting(browser, serving.url) as page:
        drop(ready(page), images)
        judged(page, "4 images: 1 defective, 3 good")
        usable = page.evaluate(
            """() => [...document.querySelectorAll("a, button:enabled, select:enabled, input:enabled, summary, #stage")]
                .filter(one => one.checkVisibility() && one.tabIndex >= 0)
                .map((one, i) => (one.dataset.reached = "no", i)).length"""
        )
        for _ in range(usable + 2):
            page.keyboard.press("Tab")
            page.evaluate("document.activeElement.dataset.reached = 'yes'")
        missed = page.evaluate("[...document.querySelectorAll('[data-reached=no]')].map(one => one.outerHTML)")
        assert usable > 15 and missed == []
        unnamed = page.evaluate(
            """() => [...document.querySelectorAll("button, select, input:not([type=file])")].filter(one =>
                !(one.textContent.trim() || one.ariaLabel || one.labels?.[0]?.textContent.trim())).map(one => one.id)"""
        )
        assert unnamed == []


def test_no_width_scrolls_sideways(browser, serving, images):
    with inspecting(browser, serving.url) as page:
        for _ in range(2):  # empty, and full
            for view in ("inspect", "history", "region"):
                page.goto(f"{serving.url}/#{view}")
                ready(page)
                for width in WIDTHS:
                    page.set_viewport_size({"width": width, "height": 780})
                    wide = page.evaluate(
                        """() => [...document.querySelectorAll("main *, header *")].filter(one => one.checkVisibility()
                            && !one.closest(".unseen, .stage, svg, thead")
                            && one.getBoundingClientRect().right > innerWidth + 1)
                            .map(one => one.outerHTML.slice(0, 80))"""
                    )
                    assert page.evaluate("innerWidth") == width
                    assert wide == [] and page.evaluate("document.documentElement.scrollWidth") <= width, width
            page.goto(f"{serving.url}/#inspect")
            drop(page, {"a rather long name of an image from the camera.png": images["bad.png"]})
            expect(page.locator("#verdict .headline")).to_have_text("Defective")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_can_be_read_in_both_schemes(browser, serving, images, scheme):
    with inspecting(browser, serving.url, expected=("415",), color_scheme=scheme, reduced_motion="reduce") as page:
        assert (luminous(page) > 0.5) == (scheme == "light")
        drop(ready(page), {**images, "notes.txt": b"no"})
        judged(page, "5 images: 1 defective, 3 good, 1 failed")
        for name in ("bad.png", "good 0.png", "notes.txt"):
            row(page, name).locator(".open").click()
            assert_readable(page, 35)
        page.locator("#threshold").press("Home")  # with words of a trial
        assert_readable(page, 35)
        page.keyboard.press("?")
        assert_readable(page, 50)
        page.keyboard.press("Escape")
        page.keyboard.press("2")
        expect(page.locator("#history-rows tr").first).to_be_visible()
        assert_readable(page, 35)
        for _ in range(3):  # system, light, dark
            page.locator("#theme").click()
        other = {"light": 2, "dark": 1}[scheme]
        for _ in range(other):
            page.locator("#theme").click()
        assert (luminous(page) > 0.5) != (scheme == "light")
        page.reload()
        assert (luminous(page) > 0.5) != (scheme == "light")  # it is remembered


def luminous(page: Page) -> float:
    """How light the page's ground is, from 0 to 1."""
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return np.mean([int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(",")]) / 255


def assert_readable(page: Page, fewest: int) -> None:
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) >= fewest
    assert [one for one in contrasts if one[1] < 4.5] == []
