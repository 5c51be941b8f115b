"""What the tests of the baselines share."""

from pathlib import Path

import pytest
import torch

from baselines.cam.network import make_network


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory) -> Path:
    """A file like those of torchvision: convolutions and the classifier of a thousand classes, cut short."""
    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    state = {f"features.{name}": weight for name, weight in make_network(seed=9).features.state_dict().items()}
    torch.save(state | {"classifier.6.bias": torch.zeros(1000)}, path)
    return path
