"""The range that good images tell, and the lights of one part, whichever files hold them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pretrain.command import UserError
from pretrain.data.cache import store_folder
from pretrain.data.channels import PLAIN, Channels, ToFind, as_parts, files_of, read_image, typed_range
from pretrain.data.dataset import load
from pretrain.data.decode import Unreadable, decode
from pretrain.data.images import Record
from pretrain.data.levels import Range

RNG = np.random.default_rng(0)
TWO = Channels((None, Range(1000, 3000)))


def light(deep: bool) -> np.ndarray:
    low, high, dtype = (1000, 3000, np.uint16) if deep else (0, 256, np.uint8)
    return RNG.integers(low, high, (12, 10), dtype=dtype)


@pytest.fixture
def parts(tmp_path) -> Path:
    """Three parts of two lights: color in 8 bits and heat in 16."""
    for number in range(3):
        for name, deep in (("light1.png", False), ("light2.tif", True)):
            Image.fromarray(light(deep)).save(tmp_path / f"{number}_{name}")
    return tmp_path


def test_a_range_is_that_of_all_but_dead_pixels(tmp_path):
    for number in range(4):
        levels = RNG.integers(1000, 3000, (200, 200), dtype=np.uint16)
        levels[0, :20] = 65535 if number else 0
        Image.fromarray(levels).save(tmp_path / f"{number}.png")
    (found,) = ToFind().found(sorted(tmp_path.iterdir())).ranges
    assert found == pytest.approx((800, 3200), abs=20)  # a tenth of the width at either end is for defects
    assert ToFind(typed=Range(0, 4095)).found(sorted(tmp_path.iterdir())) == Channels((Range(0, 4095),))


def test_a_range_stays_within_what_the_numbers_can_be(tmp_path):
    Image.fromarray(RNG.integers(0, 2**16, (80, 80), dtype=np.uint16)).save(tmp_path / "all.png")
    assert ToFind().found([tmp_path / "all.png"]).ranges == (Range(0, 65535),)


def test_images_of_8_bits_stay_as_they_are(tmp_path):
    path = tmp_path / "plain.png"
    Image.fromarray(light(False)).save(path)
    assert ToFind().found([path]) == PLAIN == Channels.from_json(PLAIN.as_json())
    assert store_folder(tmp_path, 8) == store_folder(tmp_path, 8, PLAIN) != store_folder(tmp_path, 8, TWO)
    assert np.array_equal(read_image(path, 8).pixels, decode(path, 8).pixels)
    with pytest.raises(UserError, match="more than 8 bits"):
        ToFind(typed=Range(0, 1)).found([path])


def test_a_few_of_another_depth_are_left_out(tmp_path, capsys):
    for number in range(5):
        Image.fromarray(light(number > 0)).save(tmp_path / f"{number}.png")
    images = load(tmp_path, (12, 10), allow_plain=True, channels=ToFind())
    assert len(images) == 4 and images.channels != PLAIN
    assert "0.png: has 8 bits a channel, where values from" in capsys.readouterr().err


def test_lights_are_one_part_in_files_and_in_pages(parts, tmp_path):
    first, second = (parts / "1_light1.png"), (parts / "1_light2.tif")
    stack = tmp_path / "stack.tif"
    with Image.open(first) as color, Image.open(second) as heat:
        color.save(stack, save_all=True, append_images=[heat])
    for path in (first, second, stack):
        found = read_image(path, 8, TWO)
        assert found.pixels.shape == (8, 8, 6) and (found.height, found.width) == (12, 10)
        assert np.array_equal(found.pixels[:, :, :3], decode(first, 8).pixels)
        assert np.array_equal(found.pixels[:, :, 3:], read_image(second, 8, Channels((TWO.ranges[1],))).pixels)
    assert files_of(first, 2) == [first, second] and files_of(stack, 2) == [stack]
    found = ToFind(lights=True).found([stack])
    assert found.lights == 2 and found.ranges[0] is None and found.ranges[1] == pytest.approx((800, 3200), abs=80)


def test_a_folder_of_lights_is_cached_by_parts(parts):
    images = load(parts, (12, 10), allow_plain=True, channels=ToFind(lights=True))
    assert [record.path.name for record in images.records] == [f"{number}_light1.png" for number in range(3)]
    assert images.batch([2]).shape == (1, 12, 10, 6)
    assert np.array_equal(images.batch([2])[0], read_image(parts / "2_light1.png", (12, 10), images.channels).pixels)
    Image.fromarray(light(True) // 2).save(parts / "2_light2.tif")  # another second light is another part
    again = load(parts, (12, 10), allow_plain=True, channels=images.channels)
    assert again.entries[2].digest != images.entries[2].digest and again.entries[1] == images.entries[1]


def test_parts_of_other_lights_are_named_in_a_sentence(parts, capsys):
    (parts / "1_light2.tif").unlink()
    Image.fromarray(light(True)).save(parts / "2_light3.tif")
    Image.fromarray(light(False)).save(parts / "one.png")
    images = load(parts, (12, 10), allow_plain=True, channels=TWO)
    assert [record.path.name for record in images.records] == ["0_light1.png"]
    said = capsys.readouterr().err
    assert "1_light1.png: its light 1_light2" in said and "a further light, 2_light3.tif" in said
    assert "one.png: has 1 page, where 2 lights" in said
    Image.fromarray(np.zeros((5, 5), np.uint16)).save(parts / "0_light2.tif")
    with pytest.raises(Unreadable, match="lights of 2 sizes"):
        read_image(parts / "0_light1.png", None, TWO)
    with pytest.raises(UserError, match="one.png is one of 1"):
        ToFind(lights=True).found([parts / "one.png"])


def test_each_part_is_inspected_once(parts):
    records = [Record(path, "", "", "") for path in [*sorted(parts.iterdir()), parts / "stack.tif"]]
    assert [record.path.name for record in as_parts(records)] == [*(f"{i}_light1.png" for i in range(3)), "stack.tif"]


@pytest.mark.parametrize("stored", [[], None, 3, [[1, 0]], [[0, 1, 2]], ["0,1"], [None] * 65])
def test_what_is_stored_is_checked(stored):
    with pytest.raises(ValueError):
        Channels.from_json(stored)


def test_ranges_as_they_are_typed():
    assert typed_range(["0", "4095"]) == (0, 4095) and typed_range([]) is None
    for typed in (["0"], ["9", "1"], ["a", "b"], ["0", "1", "2"]):
        with pytest.raises(UserError, match="give the lowest and the highest value"):
            typed_range(typed)
    assert Channels.from_json(TWO.as_json()) == TWO
