"""Pages of several bands, as other programs write them: every number is read, and each band is a light."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tifffile import imwrite

from pretrain.command import UserError
from pretrain.data import levels as reading
from pretrain.data.channels import PLAIN, Channels, ToFind, read_image
from pretrain.data.dataset import load
from pretrain.data.decode import Unreadable, decode, size_on_disk
from pretrain.data.levels import Range, is_deep, read_levels

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 40, 52
KINDS = {
    "as they are": {},
    "compressed": {"compression": "zlib"},
    "differences": {"compression": "zlib", "predictor": True},
    "differences in tiles": {"compression": "zlib", "predictor": True, "tile": (16, 32)},
    "in tiles": {"tile": (16, 32)},
    "in strips": {"rowsperstrip": 7, "byteorder": ">"},
    "one after the other": {"planarconfig": "separate", "rowsperstrip": 7, "compression": "zlib"},
    "large": {"bigtiff": True, "rowsperstrip": 7},
}


def bands(count: int, dtype: type = np.uint16, highest: int = 4096) -> np.ndarray:
    return RNG.integers(0, highest, (HEIGHT, WIDTH, count)).astype(dtype)


def written(path: Path, levels: np.ndarray, **options: object) -> Path:
    """Gray bands, (h, w, bands)."""
    options = {"photometric": "minisblack", "planarconfig": "contig", **options}
    imwrite(path, levels.transpose(2, 0, 1) if options["planarconfig"] == "separate" else levels, **options)
    return path


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_bands_are_read_to_the_bit(name, dtype, tmp_path):
    if dtype == np.float32 and "differences" in name:
        return  # by another predictor, which is refused
    levels = bands(5, dtype, 256) - dtype(100 * (dtype == np.int16))
    path = written(tmp_path / "five.tif", levels, **KINDS[name])
    found = read_levels(path.read_bytes(), range(5))
    assert np.array_equal(np.stack(found, axis=2), levels)
    assert is_deep(path, range(6)) == [dtype != np.uint8] * 5 + [False] and size_on_disk(path) == (HEIGHT, WIDTH)
    assert np.array_equal(read_levels(path.read_bytes(), [3])[0], levels[:, :, 3])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_bands_of_a_turned_page_lie_upright(orientation, tmp_path):
    levels = bands(4, np.uint8, 256)
    extra = [(274, "H", 1, orientation, True)]
    path = written(tmp_path / "turned.tif", levels, extratags=extra)
    gray = tmp_path / "gray.tif"
    imwrite(gray, levels[:, :, 2], photometric="minisblack", extratags=extra)
    expected = decode(gray).pixels[:, :, 0]  # as Pillow turns it
    assert np.array_equal(read_levels(path.read_bytes(), [2])[0], expected) and size_on_disk(path) == expected.shape


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_color_is_one_light_and_each_band_beyond_it_another(dtype, tmp_path):
    levels = bands(5, dtype, np.iinfo(dtype).max)
    path = tmp_path / "infrared.tif"
    imwrite(path, levels, photometric="rgb", extrasamples=("unspecified", "unspecified"))
    color, *others = read_levels(path.read_bytes(), range(3))
    assert np.array_equal(color, levels[:, :, :3])
    assert all(np.array_equal(each, levels[:, :, band]) for band, each in zip((3, 4), others, strict=True))
    assert ToFind(lights=True).found([path]).lights == 3 and ToFind().found([path]).lights == 1


def test_transparency_is_no_band(tmp_path):
    path = tmp_path / "transparent.tif"
    for levels, extra in ((bands(4, np.uint8, 256), ["unassalpha"]), (bands(4), ["unassalpha"])):
        imwrite(path, levels, photometric="rgb", extrasamples=extra)
        assert ToFind().found([path]) == PLAIN
        with pytest.raises(UserError, match="transparent.tif is one of 1"):
            ToFind(lights=True).found([path])
    imwrite(path, bands(5), photometric="rgb", extrasamples=["unassalpha", "unspecified"])
    assert ToFind(lights=True).found([path]).lights == 2


def test_color_of_16_bits_keeps_them(tmp_path):
    levels = bands(3)
    imwrite(tmp_path / "color.tif", levels, photometric="rgb")
    assert np.array_equal(read_levels((tmp_path / "color.tif").read_bytes())[0], levels)
    found = ToFind().found([tmp_path / "color.tif"])
    assert found.ranges[0] == pytest.approx((0, 4505), abs=20)
    assert decode(tmp_path / "color.tif").pixels.max() == 15  # without a range, as ever: the upper 8


def test_each_band_has_a_range_of_its_own_and_is_cached_as_a_light(tmp_path):
    for number in range(3):
        levels = bands(4) + np.uint16(1000) * np.arange(4, dtype=np.uint16)
        written(tmp_path / f"{number}.tif", levels, compression="zlib")
    images = load(tmp_path, (10, 13), allow_plain=True, channels=ToFind(lights=True))
    assert images.channels.lights == 4 and images.pixels.shape[1:] == (10, 13, 12)
    lowest = [limits.low for limits in images.channels.ranges]
    assert np.diff(lowest[1:]) == pytest.approx([1000, 1000], abs=30)
    again = read_image(tmp_path / "2.tif", (10, 13), images.channels)
    assert np.array_equal(images.batch([2])[0], again.pixels) and (again.height, again.width) == (HEIGHT, WIDTH)
    pages = tmp_path / "pages" / "2.tif"  # the same as pages is the same part
    pages.parent.mkdir()
    imwrite(pages, levels.transpose(2, 0, 1), photometric="minisblack", metadata=None)
    assert np.array_equal(read_image(pages, (10, 13), images.channels).pixels, again.pixels)


def test_what_does_not_fit_is_refused_in_a_sentence(tmp_path):
    path = written(tmp_path / "five.tif", bands(5, np.uint8, 256))
    with pytest.raises(Unreadable, match="holds 5 bands: detect.py fit --lights sees each"):
        decode(path)
    for channels, fault in (
        (Channels((None,) * 4), "has 5 lights in its bands, where 4 lights are expected"),
        (Channels((Range(0, 9),)), "holds 5 bands: detect.py fit --lights"),
        (Channels((Range(0, 9),) * 5), "has 8 bits a channel, where values from 0 to 9"),
    ):
        with pytest.raises(Unreadable, match=fault):
            read_image(path, None, channels)
    for number in (1, 2):
        written(tmp_path / f"a_light{number}.tif", bands(3))
    with pytest.raises(Unreadable, match="holds 3 bands"):
        read_image(tmp_path / "a_light1.tif", None, Channels((None, None)))
    imwrite(tmp_path / "floats.tif", bands(3, np.float32), photometric="rgb")
    with pytest.raises(Unreadable, match="holds 32 bits a channel: save it with 8 or 16"):
        decode(tmp_path / "floats.tif")


def test_what_cannot_be_unpacked_is_said(tmp_path, monkeypatch):
    path = written(tmp_path / "five.tif", bands(5), compression="zlib")
    whole = path.read_bytes()

    def with_field(field: int, value: int) -> bytes:
        at = whole.index(field.to_bytes(2, "little") + (3).to_bytes(2, "little")) + 8
        return whole[:at] + value.to_bytes(4, "little") + whole[at + 4 :]

    for data, fault in (
        (with_field(259, 7), "^holds bands that are compressed by method 7: save them by deflate"),
        (with_field(259, 1), "damaged or cut off"),
        (whole[: len(whole) // 2], "beyond its end"),
        (whole[:9], "beyond its end"),
    ):
        with pytest.raises(Unreadable, match=fault):
            read_levels(data, range(5))
    floats = written(tmp_path / "floats.tif", bands(5, np.uint16), compression="zlib", predictor=2).read_bytes()
    at = floats.index(b"\x3d\x01\x03\x00") + 8
    with pytest.raises(Unreadable, match="^holds bands that are packed by predictor 3: save them without"):
        read_levels(floats[:at] + b"\x03" + floats[at + 1 :], range(5))
    monkeypatch.setattr(reading, "MAX_PIXELS", 5 * HEIGHT * WIDTH - 1)
    with pytest.raises(Unreadable, match="million pixels: a decompression bomb"):
        read_levels(whole, range(5))


def test_a_file_that_was_cut_off_or_changed_is_unreadable_and_no_traceback(tmp_path):
    whole = written(tmp_path / "five.tif", bands(5)).read_bytes()
    refused = 0
    for at in range(8, 400, 3):
        changed = whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]
        for data in (whole[:at], changed):
            try:
                read_levels(data, range(5))
            except Unreadable as unreadable:
                refused += bool(str(unreadable))
    assert refused > 131  # all that were cut off, and some that were changed


def test_bands_and_pages_of_one_file_are_lights_in_their_order(tmp_path):
    path = tmp_path / "both.tif"
    first, second = bands(4, np.uint8, 256), bands(1)[:, :, 0]
    imwrite(path, first, photometric="rgb", extrasamples=["unspecified"], metadata=None)
    imwrite(path, second, photometric="minisblack", metadata=None, append=True)
    color, infrared, heat = read_levels(path.read_bytes(), range(3))
    assert np.array_equal(color, first[:, :, :3]) and np.array_equal(infrared, first[:, :, 3])
    assert np.array_equal(heat, second) and ToFind(lights=True).found([path]).lights == 3
    Image.fromarray(first[:, :, :3]).save(tmp_path / "plain.tif")
    with pytest.raises(Unreadable, match="has 1 page, where 3 lights are expected"):
        read_image(tmp_path / "plain.tif", None, Channels((None,) * 3))
