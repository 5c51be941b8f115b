"""A frame is the same image whether it came as a file, as bytes or as pixels."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from downstream.stations.contract import Frame
from downstream.stations.frames import Unreadable, keep_image, opened


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png", pixels


def test_three_ways_to_the_same_image(picture):
    path, pixels = picture
    by_path, by_data, by_pixels = (
        opened(frame, 32)
        for frame in (Frame("", 0, path=path), Frame("", 0, data=path.read_bytes()), Frame("", 0, pixels=pixels))
    )
    assert (by_path.decoded.height, by_path.decoded.width) == (48, 64)
    assert (by_path.decoded.pixels == by_pixels.decoded.pixels).all()
    assert (by_data.decoded.pixels == by_pixels.decoded.pixels).all()
    assert by_path.digest == by_data.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert by_pixels.digest == hashlib.sha256(pixels.tobytes()).hexdigest()


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_image_says_so(data, tmp_path):
    for frame in (Frame("", 0, data=data), Frame("", 0, path=tmp_path / "gone.png")):
        with pytest.raises(Unreadable):
            opened(frame, 32)


def test_a_cut_off_file_is_no_image(picture):
    data = picture[0].read_bytes()
    with pytest.raises(Unreadable):
        opened(Frame("", 0, data=data[: len(data) // 2]), 32)


def test_kept_it_is_the_file_that_came_or_a_jpeg(picture, tmp_path):
    path, pixels = picture
    kept = keep_image(Frame("", 0, path=path), tmp_path / "kept", "one")
    assert kept.name == "one.png" and kept.read_bytes() == path.read_bytes()
    kept = keep_image(Frame("", 0, pixels=pixels), tmp_path / "kept", "two")
    assert kept.name == "two.jpg" and np.asarray(Image.open(kept)).shape == pixels.shape
    with pytest.raises(Unreadable):
        keep_image(Frame("", 0, data=b"no image"), tmp_path / "kept", "three")
