"""What the tests of the baselines share."""

from pathlib import Path

import pytest
import torch

from baselines.cam.network import VGG16, make_network


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory) -> Path:
    """A file like those of torchvision: convolutions and the classifier of a thousand classes, cut short."""
    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    ours = make_network(VGG16, seed=9).features.state_dict()
    state = {f"features.{name.partition('.')[2]}": weight for name, weight in ours.items()}
    torch.save(state | {"classifier.6.bias": torch.zeros(1000)}, path)
    return path
