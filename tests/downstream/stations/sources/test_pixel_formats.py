"""Bytes as cameras send them become 8-bit RGB: beside a naive reader of bits, and harvesters' own unpacking."""

import numpy as np
import pytest

from downstream.stations.sources.pixel_formats import PATTERNS, rgb_of
from pretrain.command import UserError

HEIGHT, WIDTH = 6, 10


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize(("name", "order"), [("RGB8", "012"), ("BGR8", "210"), ("RGBa8", "0123"), ("BGRa8", "2103")])
def test_three_colors_come_in_their_order(random, name, order, padding):
    rgb = random.integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
    sent = rgb[..., [int(place) for place in order]].reshape(HEIGHT, -1)
    sent = np.pad(sent, ((0, 0), (0, padding)), constant_values=7)
    assert np.array_equal(rgb_of(name, sent.ravel(), HEIGHT, WIDTH, padding), rgb[..., :3])


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_one_light_keeps_its_highest_eight_bits(random, bits):
    levels = random.integers(0, 2**bits, (HEIGHT, WIDTH), dtype=np.uint16)
    sent = np.pad(levels.astype("<u2" if bits > 8 else np.uint8), ((0, 0), (0, 3))).view(np.uint8).ravel()
    found = rgb_of(f"Mono{bits}", sent, HEIGHT, WIDTH, 6 if bits > 8 else 3)
    assert np.array_equal(found, np.repeat((levels >> (bits - 8))[..., None], 3, axis=2))


def packed_by_bits(levels: np.ndarray, bits: int) -> np.ndarray:
    """The lowest bit first, one after another, as PFNC has it for a p at the end of a name."""
    text = "".join(f"{level:0{bits}b}"[::-1] for level in levels.ravel())
    return np.array([int(text[at : at + 8][::-1], 2) for at in range(0, len(text), 8)], np.uint8)


@pytest.mark.parametrize("width", [10, 7])  # whose last group is whole, or cut off
@pytest.mark.parametrize("bits", [10, 12])
def test_packed_levels_are_those_of_single_bits(random, bits, width):
    levels = random.integers(0, 2**bits, (5, width), dtype=np.uint16)
    sent = packed_by_bits(levels, bits)
    assert np.array_equal(rgb_of(f"Mono{bits}p", sent, 5, width)[..., 1], levels >> (bits - 8))
    with pytest.raises(ValueError):
        rgb_of(f"Mono{bits}p", sent[:-1], 5, width)


@pytest.mark.parametrize("name", ["Mono10p", "Mono12p", "Mono10Packed", "Mono12Packed"])
def test_packed_levels_are_those_that_harvesters_unpacks(random, name):
    from harvesters.util.pfnc import Dictionary

    sent = random.integers(0, 256, HEIGHT * WIDTH * 15 // 10 if "12" in name or "P" in name else 75, dtype=np.uint8)
    unpacked = Dictionary.get_proxy(symbolic=name).expand(sent)[: HEIGHT * WIDTH].reshape(HEIGHT, WIDTH)
    assert np.array_equal(rgb_of(name, sent, HEIGHT, WIDTH)[..., 0], unpacked >> (int(name[4:6]) - 8))


@pytest.mark.parametrize("bits", ["8", "12", "12p"])
@pytest.mark.parametrize("name", PATTERNS)
def test_a_mosaic_of_one_color_is_that_color(name, bits):
    color = np.array([200, 120, 40])
    first = {"RG": "RGGB", "GR": "GRBG", "GB": "GBRG", "BG": "BGGR"}[name[-2:]]
    lights = color[["RGB".index(light) for light in first]].reshape(2, 2)
    levels = np.tile(lights, (HEIGHT // 2, WIDTH // 2)).astype(np.uint16)
    sent = {"8": levels.astype(np.uint8).ravel(), "12": (levels << 4).view(np.uint8).ravel(),
            "12p": packed_by_bits(levels << 4, 12)}[bits]  # fmt: skip
    found = rgb_of(f"{name}{bits}", sent, HEIGHT, WIDTH)
    assert found.shape == (HEIGHT, WIDTH, 3) and np.abs(found.astype(int) - color).max() <= 1


@pytest.mark.parametrize("name", ["YCbCr422_8", "Coord3D_ABC32f", "RGB12", "Mono14p", "0x80000001"])
def test_others_are_refused_by_name(name):
    with pytest.raises(UserError, match=f"pixel format {name} is none that can be read: set PixelFormat"):
        rgb_of(name, np.zeros(10_000, np.uint8), HEIGHT, WIDTH)


def test_too_few_bytes_are_no_image():
    for name in ("RGB8", "Mono8", "Mono16", "BayerRG8"):
        with pytest.raises(ValueError):
            rgb_of(name, np.zeros(HEIGHT * WIDTH - 1, np.uint8), HEIGHT, WIDTH)
