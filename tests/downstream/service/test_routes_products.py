"""All products over HTTP, and as a page in a real browser."""

from datetime import UTC, datetime

import pytest
from browsing import PATIENCE_MS, assert_accessible, chromium, opened
from playwright.sync_api import expect
from serving_here import serving_here

from downstream.service.products import DAYS
from downstream.service.routes_products import ProductsResponse
from scripts.attacks.serving import image_bytes

expect.set_options(timeout=PATIENCE_MS)
DESK, PHONE = {"width": 1280, "height": 860}, {"width": 320, "height": 700}


@pytest.fixture(scope="module")
def serving(models_folder, tmp_path_factory):
    with serving_here(models_folder, tmp_path_factory.mktemp("products"), model="mean") as serving:
        for seed, threshold in ((1, 1e9), (2, 1e9), (3, -1e9)):
            assert serving.test(image_bytes(seed), threshold=threshold).status_code == 200
        assert serving.client.put("/api/threshold", json={"value": 3.5}).status_code == 200
        yield serving


def test_every_model_is_there_also_one_that_has_judged_nothing(serving):
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0).isoformat()
    for query in ({}, {"today": today}):
        hazelnut, mean = ProductsResponse(**serving.client.get("/api/products", params=query).json()).products
        assert (hazelnut.model, hazelnut.is_in_use, hazelnut.images_today, hazelnut.last_image) == (
            "hazelnut", False, 0, None)  # fmt: skip
        assert (mean.is_in_use, mean.images_today, mean.defective_today) == (True, 3, 1)
        assert len(mean.trend) == DAYS and mean.trend[-1].images == 3 and mean.trend[0].images == 0
        assert list(serving.service.models._loaded) == ["mean"]  # none is loaded to be listed
        assert (hazelnut.drift, mean.drift, hazelnut.waiting) == (None, "learning", 0)
        assert mean.last_change.action == "threshold" and hazelnut.last_change.action == "model version"
    for year in ("0001-01-05T00:00:00", "9999-12-31T00:00:00", "0001-01-01T00:00:00%2B14:00", "0", "1.5e9"):
        assert serving.client.get(f"/api/products?today={year}").status_code == 422


@pytest.mark.parametrize(
    ("viewport", "scheme"),
    [pytest.param(DESK, "light", id="desk", marks=pytest.mark.slow), pytest.param(PHONE, "dark", id="phone")],
)
def test_the_page_shows_them_with_keys_alone_at_any_width(serving, viewport, scheme):
    with chromium() as browser, opened(browser, serving.url, viewport=viewport, color_scheme=scheme) as page:
        expect(page.locator("#service")).not_to_have_text("connecting")
        page.keyboard.press("4")
        cards = page.locator("#products-list > li")
        expect(cards).to_have_count(2)
        expect(cards.nth(1)).to_contain_text("mean")
        expect(cards.nth(1)).to_contain_text("3 images today")
        expect(cards.nth(1)).to_contain_text("1 defective, 33 %")
        expect(cards.nth(1)).to_contain_text("threshold,")
        expect(cards.nth(0)).to_contain_text("none judged")
        assert_accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.keyboard.press("j")
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        expect(page.locator("#history-count")).to_contain_text("3")
        expect(page.locator("#filter-model")).to_have_value("mean")
        # On a phone the filters are folded away.
        page.locator("#filter-name").evaluate(
            "input => { input.value = 'no image is called so'; input.dispatchEvent(new Event('input')); }"
        )
        expect(page.locator("#history-count")).to_contain_text("0 results")
        page.evaluate("location.hash = '#products'")
        cards.nth(1).get_by_role("button", name="History of mean").click()
        expect(page.locator("#history-count")).to_contain_text("3 results")  # all that it judged
        expect(page.locator("#filter-name")).to_have_value("")
