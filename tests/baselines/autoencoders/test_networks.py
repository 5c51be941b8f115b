"""The networks: as large as published, images in and images out, and sizes that do not fit are told."""

import pytest
import torch
from torch import nn

from baselines.autoencoders.networks import ARCHITECTURES, VAE, make_network
from pretrain.command import UserError
from pretrain.encoder import Encoder


def weights(network: nn.Module) -> int:
    return sum(part.numel() for part in network.parameters())


def conv(before: int, after: int, side: int, bias: bool = True) -> int:
    return before * after * side * side + bias * after


def test_ae_and_vae_are_as_large_as_published():
    ends = 2 * conv(3, 128, 4, False)
    middles = 2 * sum(conv(width, 2 * width, 4, False) for width in (128, 256, 512, 1024))
    norms = 2 * sum((256, 512, 1024, 2048)) + 2 * sum((128, 256, 512, 1024, 2048))
    code = conv(2048, 100, 4, False)
    assert weights(make_network("ae", 128, 3, 0, {})) == ends + middles + norms + 2 * code == 95_710_464
    assert weights(make_network("vae", 128, 3, 0, {})) == ends + middles + norms + 3 * code == 98_987_264


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


FASTER = {"ae": {"width": 4}, "vae": {"width": 4}}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("model", ARCHITECTURES)
def test_images_in_images_out(model, channels):
    for size_px in (64, 128):
        network = make_network(model, size_px, channels, 0, FASTER.get(model, {})).eval()
        restored = network(torch.rand(2, channels, size_px, size_px))
        assert restored.shape == (2, channels, size_px, size_px)
        assert 0 <= restored.min() < restored.max() <= 1


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_every_weight_is_used(model):
    network = make_network(model, 64, 3, 0, FASTER.get(model, {}))
    images = torch.rand(2, 3, 64, 64)
    restored = network.sampled(images, torch.rand(2, 100))[0] if model == "vae" else network(images)
    (restored - images).square().mean().backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []


def test_weights_are_a_function_of_the_seed_alone():
    first, again, other = (
        nn.utils.parameters_to_vector(make_network("mvtec", 64, 3, seed, {}).parameters()) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    before = torch.get_rng_state()
    make_network("skip", 64, 3, 0, {})
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("model", "size_px", "words"),
    [
        ("ae", 100, "a power of two, 32, 64"),
        ("vae", 16, "a power of two"),
        ("skip", 96, "a power of two"),
        ("mvtec", 100, "a multiple of 32 from 64"),
        ("mvtec2", 32, "a multiple of 32 from 64"),
        ("baseline", 96, "a multiple of 64"),
        ("inception", 32, "a multiple of 64"),
        ("backbone", 72, "a multiple of 32 from 64"),
        ("inspection", 60, "a multiple of 8 from 32"),
        ("mvtec", 2048, "to 1024"),
    ],
)
def test_sizes_that_do_not_fit_are_told(model, size_px, words):
    with pytest.raises(UserError, match=words):
        make_network(model, size_px, 3, 0, {})


def test_options_and_names_that_there_are_not():
    with pytest.raises(UserError, match="mvtec2 has no option latent: it has none of its own"):
        make_network("mvtec2", 64, 3, 0, {"latent": 5})
    with pytest.raises(UserError, match="mvtec has no option width: its own are latent"):
        make_network("mvtec", 64, 3, 0, {"width": 5})
    with pytest.raises(UserError, match="did you mean mvtec"):
        make_network("mvtek", 64, 3, 0, {})


def test_divergence_is_that_from_the_standard_gaussian():
    network = VAE(32, 3, width=4, latent=6).eval()
    images = torch.rand(3, 3, 32, 32)
    mean, log_variance = (part.flatten(1) for part in network.distribution(images))
    restored, divergence = network.sampled(images, torch.zeros(3, 6))
    drawn = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(drawn, torch.distributions.Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(divergence, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(restored, network(images))
    assert not torch.equal(network.sampled(images, torch.ones(3, 6))[0], restored)


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
