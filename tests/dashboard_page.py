"""The page of the service as its tests open it, and what they look for there."""

from contextlib import AbstractContextManager

from browsing import PATIENCE_MS, opened
from playwright.sync_api import Browser, Page, expect

expect.set_options(timeout=PATIENCE_MS)
TOKEN = "a token of some length"


def inspecting(browser: Browser, url: str, **options: object) -> AbstractContextManager[Page]:
    """The page as where no token is wanted: the browser brings it, of which the page knows nothing."""
    return opened(browser, url, extra_http_headers={"Authorization": f"Bearer {TOKEN}"}, **options)


def ready(page: Page) -> Page:
    expect(page.locator("#service")).to_have_attribute("data-state", "good")
    return page


def judged(page: Page, words: str) -> None:
    """All images have come to their end, with this summary."""
    expect(page.locator("#batch-words")).to_have_text(words)


def row(page: Page, name: str):
    return page.locator("#items li").filter(has=page.get_by_text(name, exact=True))
