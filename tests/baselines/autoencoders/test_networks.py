"""The networks: as large as published, images in and images out, and sizes that do not fit are told."""

import pytest
import torch
from torch import nn

from baselines.autoencoders.networks import AE, ARCHITECTURES, VAE, make_network
from pretrain.command import UserError


def weights(network: nn.Module) -> int:
    return sum(part.numel() for part in network.parameters())


def conv(before: int, after: int, side: int, bias: bool = True) -> int:
    return before * after * side * side + bias * after


def test_ae_and_vae_are_as_large_as_published():
    ends = 2 * conv(3, 128, 4, False)
    middles = 2 * sum(conv(width, 2 * width, 4, False) for width in (128, 256, 512, 1024))
    norms = 2 * sum((256, 512, 1024, 2048)) + 2 * sum((128, 256, 512, 1024, 2048))
    code = conv(2048, 100, 4, False)
    with torch.device("meta"):  # 96 million weights need not be drawn to be counted
        ae, vae = AE(128, 3), VAE(128, 3)
    assert weights(ae) == ends + middles + norms + 2 * code == 95_710_464
    assert weights(vae) == ends + middles + norms + 3 * code == 98_987_264


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
def test_sizes_that_do_not_fit_are_refused(model, size_px, words):
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
