"""VGG16-CAM's network: torchvision's layers, what is frozen, and maps that are the weighted sum of channels."""

import pytest
import torch
from torch.nn import functional as F

from baselines.cam import network as vgg_network
from baselines.cam.network import FROZEN, make_network
from pretrain.command import UserError


def test_features_are_torchvisions():
    from torchvision.models import vgg16

    theirs, ours = vgg16(weights=None).features[:-1], make_network()
    theirs.load_state_dict(ours.features.state_dict())
    images = torch.rand(2, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalized = (images - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(ours.late(ours.early(images)), theirs(normalized), rtol=1e-4, atol=1e-5)
    # conv4_3 is number 21: it is the last that is frozen, and 24 is conv5_1.
    assert isinstance(theirs[21], torch.nn.Conv2d) and theirs[21].out_channels == 512
    assert isinstance(theirs[FROZEN], torch.nn.Conv2d) and len(theirs) == len(ours.features) == 30


def test_head_is_pooling_by_two_then_by_seven():
    network = make_network(width=1 / 16)
    late = torch.rand(3, 32, 14, 14)
    pooled = F.avg_pool2d(F.max_pool2d(late, 2), 7).flatten(1)
    torch.testing.assert_close(network.logits(late), network.classifier(pooled))


def test_map_is_the_weighted_sum_of_channels():
    network = make_network(width=1 / 16)
    late = torch.rand(2, 32, 3, 4)
    expected = torch.zeros(2, 3, 4)
    for k in range(32):
        expected += network.classifier.weight[1, k] * late[:, k]
    torch.testing.assert_close(network.activation_maps(late), expected)


def test_pretrained_layers_are_frozen_and_random_ones_are_not(weights_file):
    network = make_network(str(weights_file))
    trained = [name for name, weights in network.named_parameters() if weights.requires_grad]
    assert trained == [f"{part}.{kind}" for part in ("features.24", "features.26", "features.28", "classifier")
                       for kind in ("weight", "bias")]  # fmt: skip
    assert torch.equal(network.features[0].weight, make_network(seed=9).features[0].weight)
    assert all(weights.requires_grad for weights in make_network().parameters())


def test_weights_that_cannot_be_had_are_refused(tmp_path, weights_file, monkeypatch):
    with pytest.raises(UserError, match="no file"):
        make_network(str(tmp_path / "none.pth"))
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not hold a VGG16"):
        make_network(str(tmp_path / "other.pth"))
    (tmp_path / "bytes.pth").write_bytes(b"no weights at all")
    with pytest.raises(UserError, match="damaged"):
        make_network(str(tmp_path / "bytes.pth"))
    with pytest.raises(UserError, match="width 1"):
        make_network(str(weights_file), width=0.5)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: (_ for _ in ()).throw(OSError("offline")))
    assert not vgg_network.has_imagenet_weights()
    with pytest.raises(UserError, match="not on this machine: give hub.*weights random"):
        make_network("imagenet")
    with pytest.raises(UserError, match="offline.*elsewhere.*weights random"):
        make_network("hub")
