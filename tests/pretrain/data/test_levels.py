"""Images of more than 8 bits: what a file holds is read whole, and a range makes 256 levels of what lies in it."""

import os
from pathlib import Path

import kornia_rs.io
import numpy as np
import pytest
from PIL import Image

from pretrain.data.decode import Unreadable, decode, decode_bytes
from pretrain.data.levels import Range, as_range, in_range, is_deep, read_levels, without_range

LEVELS = np.random.default_rng(0).integers(0, 2**16, (12, 10), dtype=np.uint16)
COLOR = np.random.default_rng(1).integers(0, 2**16, (12, 10, 3), dtype=np.uint16)


@pytest.fixture
def files(tmp_path) -> dict[str, tuple[Path, np.ndarray]]:
    """By name: a file, and what it holds."""
    held = {"gray.png": LEVELS, "gray.tif": LEVELS, "heat.tif": LEVELS / np.float32(700) - 10, "plain.png": LEVELS >> 8,
            "whole.tif": LEVELS.astype(np.int32) * 3, "big.tif": LEVELS.astype(">u2")}  # fmt: skip
    for name, levels in held.items():
        Image.fromarray(levels.astype(np.uint8) if name == "plain.png" else levels).save(tmp_path / name)
    kornia_rs.io.write_image_png_u16(str(tmp_path / "color.png"), COLOR, "rgb")
    held["color.png"] = COLOR
    return {name: (tmp_path / name, levels) for name, levels in held.items()}


def test_what_a_file_holds_is_read_to_the_bit(files):
    plain, _ = files.pop("plain.png")
    for path, levels in files.values():
        assert is_deep(path) == [True]
        assert np.array_equal(read_levels(path.read_bytes())[0], levels)
    assert is_deep(plain) == is_deep(plain.with_name("none.png")) == [False]
    os.mkfifo(plain.with_name("pipe.png"))
    assert is_deep(plain.with_name("pipe.png")) == [False]  # nobody writes into it, and nobody waits
    assert np.array_equal(read_levels(plain.read_bytes())[0], decode(plain).pixels)


def test_a_turned_file_is_read_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(LEVELS).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_levels((tmp_path / "turned.png").read_bytes())[0], np.rot90(LEVELS, -1))


@pytest.mark.parametrize("levels", [LEVELS, COLOR, LEVELS.astype(np.float64)])
def test_a_range_becomes_256_levels(levels):
    found = in_range(levels, Range(10_000, 40_000))
    expected = np.rint(255 * np.clip((levels.astype(float) - 10_000) / 30_000, 0, 1))
    expected = np.broadcast_to(expected if levels.ndim == 3 else expected[:, :, None], found.shape)
    assert found.dtype == np.uint8 and np.abs(found - expected).max() <= 1  # of float32
    assert (found == expected).mean() > 0.99


def test_levels_are_averaged_before_they_are_rounded():
    levels = np.tile(np.array([[10.4, 10.4], [10.4, 11.4]], np.float32), (8, 8))
    assert (in_range(levels, Range(0, 255), (1, 1)) == 11).all()  # of rounded ones, 10


def test_numbers_that_are_none_are_the_lowest():
    levels = np.array([[np.nan, 2.0], [np.inf, -np.inf]], np.float32)
    assert in_range(levels, Range(1, 3))[:, :, 0].tolist() == [[0, 128], [255, 0]]


def test_without_a_range_16_bits_are_shifted_as_everywhere(files):
    path, levels = files["gray.png"]
    assert np.array_equal(without_range(levels, (6, 5)), decode_bytes(path.read_bytes(), (6, 5)).pixels)
    with pytest.raises(Unreadable, match="8 bits are expected"):
        without_range(files["heat.tif"][1])


def test_what_does_not_fit_is_refused(files):
    with pytest.raises(Unreadable, match="8 bits a channel, where values from 0 to 9 are expected"):
        in_range(np.zeros((4, 4, 3), np.uint8), Range(0, 9))
    with pytest.raises(Unreadable, match="no page 2"):
        read_levels(files["gray.tif"][0].read_bytes(), [1])
    for values in ([1, 1], [2, 1], [0, float("inf")], [0], "01", [0, "9"], [False, 1], None):
        with pytest.raises(ValueError):
            as_range(values)
