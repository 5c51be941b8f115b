"""The line's page in a real browser: parts as they come, the floor, a history; never green for a line that is gone."""

import re
import socket
from collections.abc import Iterator
from hashlib import sha256
from io import BytesIO

import pytest
from browsing import CONTRASTS, PATIENCE_MS, assert_accessible, chromium, opened
from conftest import REPOSITORY
from line_here import Here, running
from PIL import Image
from playwright.sync_api import Browser, Page, expect

expect.set_options(timeout=PATIENCE_MS)
TOKEN = "a token of some length"
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 320, "height": 640}
WEB = REPOSITORY / "downstream/stations/web"
# The newest part is a fault by the time that its image is asked for.
GONE = ("404",)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def images(demo_folder) -> dict[str, bytes]:
    path = min((demo_folder / "hazelnut/test/good").iterdir())
    image, file = Image.open(path).convert("RGB"), BytesIO()
    image.paste((255, 0, 255), (100, 60, 140, 110))
    image.save(file, "PNG")
    return {"pass": path.read_bytes(), "fail": file.getvalue(), "fault": b"no image"}


def station(name: str) -> dict:
    return {"name": name, "budget_ms": 20_000, "source": {"type": "push"}}


@pytest.fixture(scope="module")
def here(onnx_file, tmp_path_factory) -> Iterator[Here]:
    folder = tmp_path_factory.mktemp("live")
    kept = [{"type": "images", "path": str(folder / "sorted"), "verdicts": "fail"}]
    with running(onnx_file, folder, [station("cap"), station("lid")], kept, port=0) as here:
        yield here


@pytest.fixture
def url(here) -> str:
    return str(here.client.base_url)


def push(here: Here, image: bytes, name: str = "", to: str = "cap", **options: object) -> dict:
    return here.client.post(f"/api/stations/{to}/parts", params={"name": name}, content=image, **options).json()


def tile(page: Page, name: str = "cap"):
    return page.locator("#tiles > li").filter(has=page.get_by_role("link", name=name, exact=True))


def shows(shown, kind: str, *words: str) -> None:
    """In a word, and to style sheets, which take color and shape from it."""
    expect(shown).to_have_attribute("data-kind", kind)
    for each in words:
        expect(shown).to_contain_text(each)
    expect(shown.locator(f"svg.{kind}")).to_have_count(1)


def colors(page: Page, shown: str) -> dict[str, tuple[int, ...]]:
    """Of each kind that is there, what its ground is colored: red, green and blue."""
    read = "all => all.map(one => [one.closest('[data-kind]').dataset.kind, getComputedStyle(one).backgroundColor])"
    found = page.locator(shown).evaluate_all(read)
    return {kind: tuple(map(int, re.findall(r"\d+", color)[:3])) for kind, color in found}


def test_a_tile_follows_its_station(browser, here, url, images):
    with opened(browser, url, GONE, viewport=DESK) as page:
        expect(page.locator("#contact")).to_have_text("live")
        shows(tile(page, "lid"), "waiting", "Waiting", "No part yet.")
        passed = push(here, images["pass"], "17")
        shows(tile(page), "pass", "Pass", f"part {passed['part']}, 17")
        image = tile(page).locator("img")
        expect(tile(page).locator("figcaption")).to_have_text(f"Part {passed['part']}: pass")
        expect(image).not_to_have_js_property("naturalWidth", 256)  # with what the model sees, beside it
        page.get_by_label("Overlay").click()
        expect(image).to_have_js_property("naturalWidth", 256)
        failed = push(here, images["fail"])
        shows(tile(page), "fail", "Fail", f"part {failed['part']}", f"{failed['score']:.4g}".rstrip("0"))
        push(here, images["fault"])
        shows(tile(page), "fault", "Fault", "no image that can be read")
        expect(image).to_be_hidden()
        counts = here.station("cap").tally.counts
        expect(tile(page)).to_contain_text(f"Pass, fail, fault{counts['pass']}, {counts['fail']}, {counts['fault']}")
        expect(tile(page)).to_contain_text("Budget20000 ms")
        expect(page).to_have_title("(1) heldout line")
        # A fault is seen for a second, however soon a pass follows. (The one above may be older by now.)
        push(here, images["fault"])
        push(here, images["pass"])
        expect(page.locator("#tiles > li[data-kind=fault] svg.fault")).to_have_count(1)
        shows(tile(page), "pass")
        shows(tile(page, "lid"), "waiting")
        red, green, blue = colors(page, ".tile .said")["pass"]
        assert green > max(red, blue)
        push(here, images["fail"])
        shows(tile(page), "fail")
        red, green, blue = colors(page, ".tile .said")["fail"]
        assert red > max(green, blue)


def test_the_floor_and_a_history_with_keys_alone(browser, here, url, images):
    with opened(browser, url, GONE, viewport=PHONE, reduced_motion="reduce") as page:
        expect(page.locator("#contact")).to_have_text("live")
        failed = push(here, images["fail"], "<b>42</b>")
        page.keyboard.press("f")
        cells = page.locator("#cells > li")
        shows(cells.first, "fail", "Fail", f"part {failed['part']}")
        shows(cells.last, "waiting", "Waiting")
        for cell in cells.all():
            box, word = cell.bounding_box(), cell.locator(".word").bounding_box()
            assert box["width"] == PHONE["width"] and box["height"] > 0.4 * PHONE["height"]
            assert box["x"] <= word["x"] and word["x"] + word["width"] <= box["x"] + box["width"]
        red, green, blue = colors(page, ".cell")["fail"]
        assert red > 2 * max(green, blue)
        large = page.evaluate("getComputedStyle(document.querySelector('.cell[data-kind=fail] .word')).fontSize")
        assert float(large.removesuffix("px")) > 50
        page.keyboard.press("Escape")
        expect(page.locator("#floor")).to_be_hidden()
        link = page.get_by_role("link", name="cap", exact=True)
        link.focus()
        page.keyboard.press("Enter")
        row = page.locator("#history-rows > tr").first
        expect(row).to_contain_text("<b>42</b>")  # as text
        expect(row).to_contain_text("Fail")
        expect(row).to_contain_text(f"{round(failed['latency_ms'])} ms")
        expect(page.locator("#history-rows > tr")).to_have_count(here.station("cap").tally.counts.total())
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        row.get_by_role("button", name=f"Image of part {failed['part']}").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#image")).to_have_js_property("naturalWidth", 256)
        page.keyboard.press("Escape")
        expect(page.locator("#image-dialog")).to_be_hidden()
        later = push(here, images["pass"])
        expect(page.locator("#history-rows > tr").first.locator("th")).to_have_text(str(later["part"]))
        page.keyboard.press("Escape")
        expect(link).to_be_focused()
        page.go_back()
        expect(page.locator("#history-title")).to_have_text("cap")


@pytest.mark.parametrize(
    ("viewport", "scheme"),
    [pytest.param(DESK, "light", id="desk", marks=pytest.mark.slow), pytest.param(PHONE, "dark", id="phone")],
)
def test_nothing_is_found_by_axe_at_any_width_and_in_both_schemes(browser, here, url, images, viewport, scheme):
    push(here, images["fault"], to="lid")
    push(here, images["fail"])
    options = {"viewport": viewport, "color_scheme": scheme, "reduced_motion": "reduce"}
    with opened(browser, url, GONE, **options) as page:
        for view, there in (("#tiles", ".tile"), ("#floor", ".cell"), ("#station/cap", "#history tr")):
            page.evaluate("view => { location.hash = view; }", view)
            expect(page.locator(f"{there}[data-kind=fail]").first).to_be_visible()
            assert [one for one in page.evaluate(CONTRASTS) if one[1] < 4.5] == []
            assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
            assert_accessible(page)


def test_a_line_that_cannot_keep_its_promises_shows_no_pass(browser, here, url, images, monkeypatch):
    with opened(browser, f"{url}/#floor", GONE, viewport=DESK) as page:
        push(here, images["pass"])
        cells = page.locator("#cells > li")
        shows(cells.first, "pass")
        monkeypatch.setattr(here.line._deadlines, "is_awake", lambda: False)  # so that its heartbeat stands still
        shows(cells.first, "lost", "No contact", "heartbeat stands still")
        monkeypatch.undo()
        shows(cells.first, "pass")
        monkeypatch.setattr(here.station("cap").source, "problem", "the camera is unplugged")
        shows(cells.first, "fault", "the camera is unplugged")
        expect(page.locator("#spoken")).to_have_text("cap: Fault. the camera is unplugged")


def test_a_line_that_is_gone_shows_no_pass_and_comes_back(browser, onnx_file, images, tmp_path, caplog):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "token").write_text(TOKEN)
    users = {name: sha256(name.encode()).hexdigest() for name in ("the token of ada", "the token of bob")}
    (tmp_path / "users").write_text("ada operator {}\nbob auditor {}\n".format(*users.values()))
    options = {"port": port, "token_file": tmp_path / "token", "users": tmp_path / "users"}
    as_ada, as_bob = ({"headers": {"Authorization": f"Bearer {token}"}} for token in users)
    with running(onnx_file, tmp_path, [station("cap")], **options) as here:
        context = browser.new_context(viewport=DESK)
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_role("textbox", name="Token").fill("no token of anybody")
        page.keyboard.press("Enter")
        expect(page.locator("#token-words")).to_contain_text("refused")
        page.get_by_role("textbox", name="Token").fill("the token of bob")
        page.keyboard.press("Enter")
        shows(tile(page), "waiting")
        assert push(here, images["pass"], **as_ada)["verdict"] == "pass"
        refused = here.client.post("/api/stations/cap/parts", content=images["pass"], **as_bob)
        assert refused.status_code == 403 and "bob is auditor" in refused.json()["detail"]
        shows(tile(page), "pass")
    assert not [record for record in caplog.records if record.exc_info]  # though somebody watched
    shows(tile(page), "lost", "No contact")
    expect(page.locator("#cut")).to_contain_text("take every part for a fault")
    page.keyboard.press("f")
    shows(page.locator("#cells > li"), "lost", "No contact")
    assert page.locator("[data-kind=pass]").count() == 0
    with running(onnx_file, tmp_path, [station("cap")], **options):
        shows(page.locator("#cells > li"), "waiting")  # what was before the restart lights nothing
        expect(page.locator("#token-dialog")).to_be_hidden()
        expect(page.locator("#cut")).to_be_hidden()
        context.close()


def test_the_files_keep_to_what_the_policy_allows(here):
    for path in WEB.iterdir():
        text = path.read_text()
        assert len(text.splitlines()) <= 300, path
        assert "innerHTML" not in text and "style=" not in text and "https://" not in text, path
    page = here.client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "onclick=" not in page.text and "<script>" not in page.text
    assert here.client.get("/index.html").text == page.text
    assert here.client.get("/app.js").status_code == 404  # the service's own
