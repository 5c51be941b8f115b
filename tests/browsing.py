"""A real browser for tests of pages: Debian's Chromium, driven by Playwright, which downloads nothing."""

import base64
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, JSHandle, Page, sync_playwright

# Without a window a page takes a third of the time.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
# Below this the browser is stuck, whatever else the machine does.
PATIENCE_MS = 15_000


@contextmanager
def chromium() -> Iterator[Browser]:
    """Where none is installed, the test is skipped and says so; in CI, which installs one, it fails."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        reason = "Chromium is not installed, so the dashboard is NOT tested here; on Debian: apt install chromium"
        if os.environ.get("HELDOUT_REQUIRE_CHROMIUM"):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, url: str, expected: tuple[str, ...] = (), **options: object) -> Iterator[Page]:
    """A page of its own, with nothing stored. At the end it has asked no other host and had no error: no exception, no
    breach of the content security policy, no refused request but those whose console message has a word of `expected`.
    """
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    page, errors, elsewhere = context.new_page(), [], []
    own = ("/".join(url.split("/")[:3]) + "/", "blob:", "data:")
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: (errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda asked: None if asked.url.startswith(own) else elsewhere.append(asked.url))
    page.goto(url)
    yield page
    context.close()
    assert elsewhere == []
    assert [error for error in errors if not any(word in error for word in expected)] == []


def carried(page: Page, files: dict[str, bytes]) -> JSHandle:
    """A DataTransfer with files, as a drop and a paste bring it."""
    packed = [[name, base64.b64encode(data).decode()] for name, data in files.items()]
    return page.evaluate_handle(
        """files => {
            const transfer = new DataTransfer();
            for (const [name, data] of files) {
                const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
                const type = name.endsWith(".png") ? "image/png" : "";
                transfer.items.add(new File([bytes], name, { type }));
            }
            return transfer;
        }""",
        packed,
    )


def drop(page: Page, files: dict[str, bytes], where: str = "#stage") -> None:
    transfer = carried(page, files)
    for kind in ("dragenter", "dragover", "drop"):
        page.dispatch_event(where, kind, {"dataTransfer": transfer})


def assert_accessible(page: Page) -> None:
    """Nothing that axe finds: names, roles, contrast, structure."""
    # Its half a megabyte once a page.
    found = (Axe("") if page.evaluate("'axe' in window") else Axe()).run(page)
    assert found.response["passes"], "axe looked at nothing"
    assert found.violations_count == 0, found.generate_report()


# Of every element with text of its own that can be seen: its contrast to what lies beneath, as WCAG 2 defines it.
CONTRASTS = """() => {
    const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const rgba = color => {
        context.clearRect(0, 0, 1, 1);
        context.fillStyle = color;
        context.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
        return [r, g, b, a / 255];
    };
    const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
    const beneath = element => {
        const layers = [];
        for (let one = element; one; one = one.parentElement) layers.push(rgba(getComputedStyle(one).backgroundColor));
        return layers.reduceRight((below, top) => over(top, below), [255, 255, 255]);
    };
    const luminance = color => {
        const [r, g, b] = color.map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const found = [];
    for (const element of document.body.querySelectorAll("*")) {
        const hasText = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
        const isField = element.matches("select, input:not([type=range], [type=checkbox])");
        if (!(hasText || isField) || !element.checkVisibility({ visibilityProperty: true })) continue;
        if (element.closest(".marks, .unseen, noscript, option, .symbols, title")) continue;
        const style = getComputedStyle(element);
        const below = beneath(element);
        const color = element instanceof SVGElement ? style.fill : style.color;
        const [high, low] = [luminance(over(rgba(color), below)), luminance(below)].sort((a, b) => b - a);
        found.push([`${element.tagName}.${element.className?.baseVal ?? element.className}#${element.id}`
            + ` "${element.textContent.trim().slice(0, 30)}"`, (high + 0.05) / (low + 0.05)]);
    }
    return found;
}"""
