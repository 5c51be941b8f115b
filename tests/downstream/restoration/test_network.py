"""The decoder on an encoder's levels: what it does untrained, any image size, and who is trained when."""

import pytest
import torch

from downstream.restoration.network import ENCODER_RATE, SIGMAS_PX, EncoderRestoration, _mixed
from pretrain.encoder import Encoder


@pytest.fixture(scope="module")
def network() -> EncoderRestoration:
    return EncoderRestoration(Encoder("resnet18", 0), channels=8, blocks=1, frozen=0.25)


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (33, 50)])
def test_untrained_it_changes_nothing_at_any_size(network, size):
    images = torch.rand(2, 3, *size)
    with torch.inference_mode():
        assert torch.equal(network(images), images)


def test_the_encoder_joins_later_and_slower_and_keeps_its_statistics(network):
    own, encoder = network.groups()
    assert (own.rate, own.begins) == (1, 0) and (encoder.rate, encoder.begins) == (ENCODER_RATE, 0.25)
    assert not {id(weights) for weights in own.weights} & {id(weights) for weights in encoder.weights}
    assert network.train().training and not network.encoder.training


def test_blurs_are_mixed_by_their_weights():
    """With weight 1 for one blur, in brightness and in color, the image is that blur; all blurs keep the mean."""
    images, number = torch.rand(1, 3, 40, 40), len(SIGMAS_PX)
    spread = [(images - images.mean((-2, -1), keepdim=True)).std().item()]
    for blur in range(number):
        mix = torch.zeros(1, 2 * number + 3, 40, 40)
        mix[:, [blur, number + blur]] = 1
        blurred = _mixed(images, mix)
        assert blurred.mean().item() == pytest.approx(images.mean().item(), abs=0.02)
        spread.append((blurred - blurred.mean((-2, -1), keepdim=True)).std().item())
    assert spread == sorted(spread, reverse=True)
    residual = torch.zeros(1, 2 * number + 3, 40, 40)
    residual[:, -3:] = 0.5
    torch.testing.assert_close(_mixed(images, residual), images + 0.5)
