"""A CAM's network: VGG16 is torchvision's, others the encoder's; what is frozen; maps are channels' weighted sums."""

import pytest
import torch
from torch.nn import functional as F

from baselines.cam.network import (
    VGG16,
    check_start,
    has_imagenet_weights,
    make_network,
    title_of,
    untrained_backbone,
)
from pretrain.command import UserError
from pretrain.encoder import Encoder, make_encoder


def test_features_are_torchvisions():
    from torchvision.models import vgg16

    theirs, ours = vgg16(weights=None).features[:-1], make_network(VGG16)
    theirs.load_state_dict({name.partition(".")[2]: weight for name, weight in ours.features.state_dict().items()})
    images = torch.rand(2, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalized = (images - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(ours.late(ours.early(images)), theirs(normalized), rtol=1e-4, atol=1e-5)
    assert sum(len(level) for level in ours.features.values()) == len(theirs) == 30
    # conv4_3 is number 21: it is the last that is frozen, and 24 is conv5_1.
    assert (
        list(ours.features["level3"]._modules)[-3:] == ["21", "22", "23"] and "24" in ours.features["level4"]._modules
    )
    assert isinstance(theirs[21], torch.nn.Conv2d) and theirs[21].out_channels == 512
    assert isinstance(theirs[23], torch.nn.MaxPool2d) and isinstance(theirs[24], torch.nn.Conv2d)


@pytest.mark.parametrize("architecture", ["efficientnet_lite0", "resnet18", "timm/test_vit", "timm/test_efficientnet"])
def test_features_of_another_backbone_are_the_encoders(architecture):
    encoder = make_encoder(architecture, "imagenet" if architecture == "efficientnet_lite0" else "random", seed=4)
    network = make_network(architecture, "imagenet" if architecture == "efficientnet_lite0" else "random", seed=4)
    images = torch.rand(2, 3, 160, 160)
    with torch.no_grad():
        ours = network.eval().late(network.early(images))
        assert torch.equal(ours, encoder.eval()(images, ("level4",))["level4"])
        torch.testing.assert_close(network.logits(ours), network.classifier(ours.mean((2, 3))))
    assert network.activation_maps(ours).shape == (2, *ours.shape[2:])


def test_head_is_pooling_by_two_then_by_seven():
    network = make_network(VGG16, width=1 / 16)
    late = torch.rand(3, 32, 14, 14)
    pooled = F.avg_pool2d(F.max_pool2d(late, 2), 7).flatten(1)
    torch.testing.assert_close(network.logits(late), network.classifier(pooled))


def test_map_is_the_weighted_sum_of_channels():
    network = make_network(VGG16, width=1 / 16)
    late = torch.rand(2, 32, 3, 4)
    expected = torch.zeros(2, 3, 4)
    for k in range(32):
        expected += network.classifier.weight[1, k] * late[:, k]
    torch.testing.assert_close(network.activation_maps(late), expected)


def test_pretrained_levels_are_frozen_and_random_ones_are_not(weights_file):
    network = make_network(VGG16, str(weights_file))
    trained = [name for name, weights in network.named_parameters() if weights.requires_grad]
    convolutions = (f"features.level4.{number}" for number in (24, 26, 28))
    assert trained == [f"{part}.{kind}" for part in (*convolutions, "classifier") for kind in ("weight", "bias")]
    random = make_network(VGG16, seed=9)
    assert torch.equal(network.features["level1"][0].weight, random.features["level1"][0].weight)
    assert all(weights.requires_grad for weights in random.parameters())


def test_of_another_backbone_the_last_level_is_trained_and_no_statistics(tmp_path):
    for architecture in ("efficientnet_lite0", "timm/test_efficientnet"):
        start = "imagenet"
        if architecture.startswith("timm"):
            start = str(tmp_path / "encoder.safetensors")
            Encoder(architecture, 3).save(start)
        network = make_network(architecture, start)
        frozen = {id(weights) for weights in network.features.weights_until("level3")}
        by_id = {id(weights): weights.requires_grad for weights in network.parameters()}
        assert all(by_id[i] == (i not in frozen) for i in by_id) and 0 < len(frozen) < len(by_id) - 2
        assert not any(layer.training for layer in network.train().modules())
        assert make_network(architecture).train().training


def test_weights_that_cannot_be_had_are_refused(tmp_path, weights_file, monkeypatch):
    with pytest.raises(UserError, match="no file"):
        make_network(VGG16, str(tmp_path / "none.pth"))
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not hold a VGG16"):
        make_network(VGG16, str(tmp_path / "other.pth"))
    (tmp_path / "bytes.pth").write_bytes(b"no weights at all")
    with pytest.raises(UserError, match="damaged"):
        make_network(VGG16, str(tmp_path / "bytes.pth"))
    with pytest.raises(UserError, match="width 1"):
        make_network(VGG16, str(weights_file), width=0.5)
    with pytest.raises(UserError, match="resnet18 has one width: leave 0.5 out"):
        untrained_backbone("resnet18", 0.5)
    with pytest.raises(UserError, match="no file.*encoder file"):
        check_start("resnet18", str(tmp_path / "none.pth"), None)
    with pytest.raises(UserError, match="multiple of 16"):
        check_start("timm/test_vit", "random", 100)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: (_ for _ in ()).throw(OSError("offline")))
    assert not has_imagenet_weights()
    with pytest.raises(UserError, match="not on this machine: give hub.*weights random"):
        make_network(VGG16, "imagenet")
    with pytest.raises(UserError, match="offline.*elsewhere.*weights random"):
        make_network(VGG16, "hub")


def test_titles_name_the_backbone():
    assert title_of(VGG16) == "VGG16-CAM" and title_of("resnet18") == "CAM on resnet18"
