"""Folding changes how long an encoder takes, not what it says."""

import pytest
import timm.layers
import torch
from torch import nn

from pretrain.encoder import Encoder, fingerprint
from pretrain.folding import folded


def with_history(architecture: str) -> Encoder:
    """An encoder whose batch normalization has seen something, as after a training."""
    encoder, generator = Encoder(architecture).eval(), torch.Generator().manual_seed(0)
    for layer in encoder.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.running_mean, layer.weight.data, layer.bias.data):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2 + (tensor is not layer.bias.data))
            layer.running_var.copy_(torch.rand(layer.running_var.shape, generator=generator) + 0.5)
    return encoder


@pytest.mark.parametrize("height", [pytest.param(64, marks=pytest.mark.slow), 70])  # 70 is odd from level2 on
@pytest.mark.parametrize("architecture", ["resnet18", "resnet50", "convnext_tiny", "efficientnet_lite0"])
def test_maps_stay_the_same(architecture, height):
    encoder = with_history(architecture)
    before = fingerprint(encoder)
    images = torch.rand(2, 3, height, 64, generator=torch.Generator().manual_seed(1))
    quick = folded(encoder)
    with torch.inference_mode():
        for level, maps in encoder(images).items():
            difference = (quick(images)[level] - maps).abs().max()
            assert float(difference) < 2e-5 * float(maps.abs().max()), level
    assert fingerprint(encoder) == before


def test_no_batch_normalization_is_left_in_a_resnet():
    layers = list(folded(Encoder("resnet18")).modules())
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in layers)
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in Encoder("resnet18").modules())


def test_no_copy_is_padded_in_a_lite(monkeypatch):
    padded = []
    same = timm.layers.Conv2dSame.forward
    monkeypatch.setattr(timm.layers.Conv2dSame, "forward", lambda self, x: padded.append(self) or same(self, x))
    encoder, images = Encoder("efficientnet_lite0").eval(), torch.rand(1, 3, 64, 64)
    encoder(images)
    assert len(padded) == 5
    folded(encoder)(images)
    assert len(padded) == 5
