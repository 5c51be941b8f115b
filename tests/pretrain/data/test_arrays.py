"""Images as Python has them: every form of one image is the same image, and what is none is refused in a sentence."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pretrain.command import UserError
from pretrain.data.arrays import given, name_of, opened, rgb, size_of
from pretrain.data.decode import decode

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)


@pytest.fixture
def file(tmp_path) -> Path:
    Image.fromarray(PIXELS).save(tmp_path / "bolt.png")
    return tmp_path / "bolt.png"


def test_one_image_in_every_form_is_the_same(file):
    channels_first = PIXELS.transpose(2, 0, 1)
    forms = [file, str(file), PIXELS, Image.fromarray(PIXELS), channels_first, torch.from_numpy(channels_first.copy()),
             PIXELS / 255, np.float32(channels_first / 255), PIXELS.astype(np.uint16) * 257,
             np.dstack([PIXELS, np.full((24, 30), 255, np.uint8)])]  # fmt: skip
    for form in forms:
        found = opened(form)
        assert size_of(form) == (24, 30)
        assert np.array_equal(found.pixels, PIXELS) and (found.height, found.width) == (24, 30)
        assert np.array_equal(opened(form, (12, 15)).pixels, decode(file, (12, 15)).pixels)


def test_gray_and_transparent_ones_are_as_in_files(tmp_path):
    gray = PIXELS[:, :, 0]
    for form in (gray, gray[:, :, None], gray[None], Image.fromarray(gray)):
        assert np.array_equal(opened(form).pixels, np.repeat(gray[:, :, None], 3, axis=2))
    clear = np.dstack([PIXELS, np.zeros((24, 30), np.uint8)])
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert np.array_equal(opened(clear).pixels, decode(tmp_path / "clear.png").pixels)
    assert (opened(Image.fromarray(clear)).pixels == 255).all()


def test_one_is_told_from_many(file):
    for one in (file, PIXELS, PIXELS[:, :, 0], Image.fromarray(PIXELS), torch.zeros(3, 8, 8)):
        assert given(one).is_one and len(given(one).images) == 1
    for many in (file.parent, [file], np.stack([PIXELS]), torch.zeros(1, 3, 8, 8), (each for each in [PIXELS])):
        images, is_one = given(many)
        assert not is_one and len(images) == 1
    assert [name_of(each, i) for i, each in enumerate(given([file, PIXELS]).images)] == [file, Path("image 1")]


def test_a_folders_images_are_those_of_its_layout_and_no_masks(demo_folder, file):
    nuts = demo_folder / "hazelnut"
    images, is_one = given(nuts)
    assert not is_one and len(list((nuts / "ground_truth").rglob("*.png"))) > 0
    assert images == sorted(path for part in ("train", "test") for path in (nuts / part).rglob("*.png"))
    (file.parent / "more").mkdir()
    file.rename(deeper := file.parent / "more" / file.name)
    assert given(str(file.parent)).images == [deeper]
    deeper.unlink()
    with pytest.raises(UserError, match="no images in"):
        given(file.parent)


def test_several_gray_images_are_many_with_their_channel_alone():
    grays = np.zeros((9, 24, 30), np.uint8)
    assert [opened(each).pixels.shape for each in given(grays[..., None]).images] == [(24, 30, 3)] * 9
    with pytest.raises(UserError, match=r"of gray ones \(n, h, w, 1\)"):
        opened(*given(grays).images)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((5, 4, 7), np.uint8), r"shape \(5, 4, 7\) is no image: give"),
        (np.zeros(5), r"shape \(5,\)"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\)"),
        (np.full((4, 4), 2.0), "floats from 2 to 2 .* from 0 to 1"),
        (np.full((4, 4), np.nan), "floats from nan"),
        (np.zeros((4, 4), np.int64), "an array of int64"),
        (np.zeros((4, 4), bool), "an array of bool"),
        ("gone.png", "gone.png: No such file"),
    ],
)
def test_what_is_no_image_is_one_sentence(image, words):
    with pytest.raises(UserError, match=words):
        opened(image)


def test_what_holds_no_image_is_refused():
    with pytest.raises(UserError, match="a int is no image"):
        given(5)
    with pytest.raises(UserError, match="is no image"):
        rgb(np.array(["a"]))
