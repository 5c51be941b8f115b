"""Remembered maps: they are those of the encoder, of each image alone, and are computed once."""

import pytest
import torch

from pretrain.encoder import LEVELS, Encoder
from pretrain.folding import folded
from pretrain.remembered_maps import MEMORY, remembered_maps, seconds

SIDE_PX = 32
SHALLOW = LEVELS[:2]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder("resnet18", 3).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(4, 3, SIDE_PX, SIDE_PX, generator=torch.Generator().manual_seed(0))


def count_images(remembering) -> list[int]:
    """How many images its encoder is asked for, call by call."""
    counts = []
    remembering.encoder.register_forward_hook(lambda module, inputs, output: counts.append(len(inputs[0])))
    return counts


def test_maps_are_those_of_the_encoder(encoder, images):
    with remembered_maps(), torch.inference_mode():
        maps = folded(encoder)(images, SHALLOW)
        plain = folded(encoder).encoder(images, SHALLOW)
    assert list(maps) == list(plain)
    for level in SHALLOW:
        torch.testing.assert_close(maps[level], plain[level])


def test_an_image_is_computed_once_whatever_lies_beside_it(encoder, images):
    with remembered_maps(), torch.inference_mode():
        first, second = folded(encoder), folded(encoder)
        counts = [count_images(first), count_images(second)]
        before = first(images[:3], SHALLOW)
        after = second(images.flip(0).contiguous(memory_format=torch.channels_last), SHALLOW)
        assert counts == [[1, 1, 1], [1]]
        for level in SHALLOW:
            assert torch.equal(after[level][1:], before[level].flip(0))


def test_it_says_of_itself_what_its_encoder_does(encoder):
    """As patches ask where an image is large, and is cut into tiles."""
    with remembered_maps():
        asked = folded(encoder)
    assert (asked.strides, asked.input_size_px) == (encoder.strides, encoder.input_size_px)
    assert torch.equal(asked.mean, encoder.mean)


def test_other_weights_other_pixels_and_deeper_levels_are_computed(encoder, images):
    with remembered_maps(), torch.inference_mode():
        asked, other = folded(encoder), folded(Encoder("resnet18", 4).eval())
        counts = [count_images(asked), count_images(other)]
        asked(images[:1], SHALLOW)
        asked(images[:1] + 0.01, SHALLOW)
        other(images[:1], SHALLOW)
        deep = asked(images[:1], LEVELS)
        assert counts == [[1, 1, 1], [1]]
        again = asked(images[:1], SHALLOW)
        assert counts[0] == [1, 1, 1] and list(again) == list(SHALLOW)
        assert torch.equal(again["level2"], deep["level2"])


def test_memory_is_bounded_and_the_oldest_goes(encoder, images):
    with remembered_maps() as memory, torch.inference_mode():
        folded(encoder)(images[:1], SHALLOW)
        of_one = memory.bytes
    with remembered_maps(most_bytes=2 * of_one) as memory, torch.inference_mode():
        asked = folded(encoder)
        counts = count_images(asked)
        for position in (0, 1, 0, 2, 0, 1):
            asked(images[position : position + 1], SHALLOW)
            assert memory.bytes <= 2 * of_one
        assert len(counts) == 4  # 0, 1, 2, and 1 again, which had to go for 2


def test_what_was_saved_counts_as_if_it_had_been_computed(encoder, images):
    with remembered_maps() as memory, torch.inference_mode():
        asked = folded(encoder)
        asked(images, SHALLOW)
        start_s = seconds()
        asked(images, SHALLOW)
        assert 0 < memory.saved_s <= seconds() - start_s


def test_nothing_is_remembered_outside(encoder):
    assert MEMORY.get() is None
    assert isinstance(folded(encoder), Encoder)
