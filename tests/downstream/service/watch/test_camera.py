"""The camera: what is wrong is named, and good images are called wrong as rarely as stated."""

import numpy as np
import pytest

from downstream.service.watch.camera import (
    CHECK_FALSE_ALARM_RATE,
    FROZEN_IMAGES,
    REFERENCES,
    SMALL_PX,
    is_frozen,
    look_at,
    look_from,
    problems,
    references_of,
    usual,
)

SIDE = 96


def product(
    random: np.random.Generator, x: int = 48, y: int = 48, light: float = 1.0, is_disc: bool = True
) -> np.ndarray:
    """uint8 (SIDE, SIDE, 3): a bright disc, or a bar, on gray, with a sensor's noise and a light that is never quite
    the same."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    inside = np.hypot(columns - x, rows - y) < 22 if is_disc else np.abs(columns - rows) < 8
    gray = np.where(inside, 150 + 20 * np.sin(columns / 2), 70.0) * light * random.normal(1, 0.02)
    noisy = gray + random.normal(0, 3, gray.shape)
    return np.repeat(noisy.clip(0, 255)[..., None], 3, axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def references():
    random = np.random.default_rng(0)
    return references_of([look_at(product(random, *random.integers(46, 51, 2))) for _ in range(REFERENCES)])


def blurred(pixels: np.ndarray) -> np.ndarray:
    for axis in (0, 1):
        pixels = sum(np.roll(pixels.astype(float), by, axis) for by in range(-2, 3)) / 5
    return pixels.astype(np.uint8)


def test_what_is_wrong_is_named(references):
    random = np.random.default_rng(1)
    cases = {
        "too dark": product(random, light=0.5), "too bright": product(random, light=1.5),
        "blurred": blurred(product(random)), "moved": product(random, x=72, y=40),
        "another product": product(random, is_disc=False),
    }  # fmt: skip
    for wanted, pixels in cases.items():
        assert wanted in problems(look_at(pixels), references), wanted
    assert problems(look_at(product(random)), references) == []
    assert "another product" not in problems(look_at(product(random, x=72, y=40)), references)


def test_good_images_are_called_wrong_as_rarely_as_stated():
    """Of a normal statistic, over many draws of references: each bound, by itself."""
    random = np.random.default_rng(2)
    for rate, draws in ((0.01, 3000), (CHECK_FALSE_ALARM_RATE, 6000)):
        above = below = total = 0
        for _ in range(draws):
            bounds = usual(random.normal(100, 7, REFERENCES), 0.0, rate)
            further = random.normal(100, 7, 20)
            above, below = above + (further > bounds.high).sum(), below + (further < bounds.low).sum()
            total += 20
        for count in (above, below):
            assert count / total == pytest.approx(rate, abs=5 * np.sqrt(rate / total) + rate / 10)


def test_a_statistic_that_never_moved_gets_a_spread_all_the_same():
    bounds = usual([5.0] * REFERENCES, 1.0)
    assert bounds.low < 4 and bounds.high > 6


def test_the_small_image_is_the_mean_of_its_cells_and_survives_json():
    pixels = np.random.default_rng(3).integers(0, 256, (SMALL_PX * 3, SMALL_PX * 2, 3)).astype(np.uint8)
    gray = pixels @ np.array([0.299, 0.587, 0.114])
    cells = gray.reshape(SMALL_PX, 3, SMALL_PX, 2).mean(axis=(1, 3))
    look = look_at(pixels)
    assert np.corrcoef(look.small.ravel(), cells.ravel())[0, 1] == pytest.approx(1)
    assert np.linalg.norm(look.small) == pytest.approx(1) and look.small.mean() == pytest.approx(0, abs=1e-9)
    again = look_from(look.as_json())
    np.testing.assert_allclose(again.small, look.small, atol=1e-5)
    assert (again.brightness, again.sharpness) == (look.brightness, look.sharpness)
    flat = look_at(np.full((30, 50, 3), 9, np.uint8))  # has no direction, and no fault comes of it
    assert np.isfinite(flat.small).all() and np.isfinite(flat.sharpness)
    tiny = look_at(np.arange(6, dtype=np.uint8).reshape(1, 2, 3))
    assert np.isfinite(tiny.small).all() and np.isfinite(tiny.sharpness)
    large = look_at(np.zeros((3000, 2000, 3), np.uint8) + np.arange(2000, dtype=np.uint16)[:, None].astype(np.uint8))
    assert large.small.shape == (SMALL_PX, SMALL_PX)


def test_one_image_again_and_again_is_a_frozen_frame():
    assert is_frozen(["a"] + ["b"] * FROZEN_IMAGES)
    assert not is_frozen(["b"] * (FROZEN_IMAGES - 1))
    assert not is_frozen(["b"] * FROZEN_IMAGES + ["a"])
