"""The convolutional family: as large as published, its signal does not fade, skips and backbones do what they say."""

import pytest
import torch
from torch import nn

from baselines.autoencoders.networks import make_network
from pretrain.encoder import Encoder


def weights(network: nn.Module) -> int:
    return sum(part.numel() for part in network.parameters())


def conv(before: int, after: int, side: int, bias: bool = True) -> int:
    return before * after * side * side + bias * after


def test_the_convolutional_ones_by_their_layers():
    encoder = sum(conv(*layer) for layer in (
        (3, 32, 4), (32, 32, 4), (32, 32, 4), (32, 32, 3), (32, 64, 4), (64, 64, 3), (64, 128, 4), (128, 64, 3),
        (64, 32, 3)))  # fmt: skip
    decoder = sum(conv(*layer) for layer in (
        (32, 64, 3), (64, 128, 4), (128, 64, 3), (64, 64, 4), (64, 32, 3), (32, 32, 4), (32, 32, 4), (32, 32, 4),
        (32, 3, 4)))  # fmt: skip
    mvtec = encoder + conv(32, 100, 8) + conv(100, 32, 3) + decoder
    assert weights(make_network("mvtec", 256, 3, 0, {})) == mvtec == 928_935
    assert weights(make_network("mvtec2", 256, 3, 0, {})) == encoder + conv(32, 1, 8) + conv(1, 32, 3) + decoder
    widths = (32, 32, 64, 64, 128, 128)
    down = sum(conv(before, after, 3) + 2 * after for before, after in zip((3, *widths), widths, strict=False))
    up = sum(
        conv(before, after, 3) + 2 * after
        for before, after in ((128, 128), (128, 64), (64, 64), (64, 32), (32, 32), (32, 32))
    )
    dense = 128 * 16 * 64 * 2 + 64 + 128 * 16
    assert weights(make_network("baseline", 256, 3, 0, {})) == down + dense + up + conv(32, 3, 3)


@pytest.mark.parametrize("model", ["mvtec", "mvtec2", "skip"])
def test_without_normalization_the_signal_does_not_fade(model):
    """Two images that differ are still told apart at the end, by more than rounding."""
    network = make_network(model, 128, 3, 0, {}).eval()
    first, second = (network(images) for images in torch.rand(2, 1, 3, 128, 128))
    assert (first - second).abs().mean() > 1e-3


def test_skips_let_the_image_past_the_middle():
    with_skips, without = (make_network("inspection", 32, 3, 0, {"skips": skips}).eval() for skips in (True, False))
    assert weights(with_skips) == weights(without) == 4_118_595
    images = torch.rand(1, 3, 32, 32)
    assert not torch.equal(with_skips(images), without(images))


def test_backbone_is_the_encoder_that_was_given():
    encoder = Encoder("resnet34", 3, mean=(0.1, 0.2, 0.3)).eval()
    network = make_network("backbone", 64, 3, 0, {"backbone": encoder}).eval()
    images, seen = torch.rand(1, 3, 64, 64), {}
    network.stages["level4"].register_forward_hook(lambda layer, given, maps: seen.update(maps=maps))
    network(images)
    torch.testing.assert_close(seen["maps"], encoder(images)["level4"])
    assert network.architecture == "resnet34"
    assert torch.equal(network.state_dict()["mean"], encoder.mean)
