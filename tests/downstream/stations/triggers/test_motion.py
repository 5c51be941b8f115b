"""A part that comes, stops and goes is one part, in noise and on a large image too."""

from io import BytesIO

import numpy as np
import pytest
from line_here import surroundings
from PIL import Image

from downstream.stations.contract import Frame
from downstream.stations.triggers.config import Motion as Options
from downstream.stations.triggers.motion import Motion


def belt(position: int | None, rng, noise: float = 4.0, size=(240, 320)) -> np.ndarray:
    """A gray belt, with a bright part on it."""
    picture = np.full((*size, 3), 90.0)
    if position is not None:
        picture[60:160, position : position + 90] = 190
    return np.clip(picture + rng.normal(0, noise, picture.shape), 0, 255).astype(np.uint8)


def scene(rng) -> list[np.ndarray]:
    """Empty, a part comes, rests for eight frames, goes, empty; and another one."""
    once = [None] * 5 + [*range(0, 120, 20)] + [120] * 8 + [*range(140, 320, 20)] + [None] * 1
    return [belt(position, rng) for position in once + once + [None] * 5]


@pytest.mark.parametrize("as_files", [False, True])
def test_a_part_begins_where_it_rests(tmp_path, as_files):
    trigger, begun = Motion(Options(), surroundings(tmp_path)), []
    for number, picture in enumerate(scene(np.random.default_rng(0))):
        written = BytesIO()
        Image.fromarray(picture).save(written, "BMP")
        frame = Frame("", 0, data=written.getvalue()) if as_files else Frame("", 0, pixels=picture)
        if trigger.begins(frame):
            begun.append(number)
    resting = [number for start in (11, 40) for number in range(start, start + 8)]
    assert [number for number in begun if number in resting] == [14, 43]
    assert len(begun) <= 4  # and where the belt is empty again


def test_noise_alone_and_what_lies_there_at_first_are_no_parts(tmp_path):
    trigger, rng = Motion(Options(), surroundings(tmp_path)), np.random.default_rng(1)
    assert not any(trigger.begins(Frame("", 0, pixels=belt(100, rng))) for _ in range(30))
    assert not trigger.begins(Frame("", 0, data=b"no image"))


def test_an_image_of_another_size_begins_nothing(tmp_path):
    trigger, rng = Motion(Options(rest_frames=1), surroundings(tmp_path)), np.random.default_rng(2)
    assert not trigger.begins(Frame("", 0, pixels=belt(0, rng)))
    assert not trigger.begins(Frame("", 0, pixels=belt(0, rng, size=(120, 320))))
