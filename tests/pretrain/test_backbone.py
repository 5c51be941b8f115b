"""Backbones by timm's names: the same features as timm's own, bit for bit, or a sentence that says why not."""

import re

import pytest
import timm
import torch
from refusals import refusal

from pretrain.backbone import LEVELS, CutBackbone, TimmBackbone, make_backbone
from pretrain.data.size import keeping_aspect
from pretrain.encoder import Encoder

NAMES = ("resnet18.a1_in1k", "mobilenetv3_small_100", "tf_efficientnet_lite0", "test_convnext", "vit_tiny_patch16_224",
         "test_vit4")  # fmt: skip
SIZES = ((64, 64), (96, 128), (97, 65), (224, 224))


def noise(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def theirs(name: str, ours: TimmBackbone, **options) -> torch.nn.Module:
    """timm's own network of features, with our weights."""
    model = timm.create_model(name, features_only=True, out_indices=list(ours.indices.values()), **options).eval()
    weights = {key.replace(".", "_"): weight for key, weight in ours.model.state_dict().items()}
    names = {key: key.removeprefix("model.").replace(".", "_") for key in model.state_dict()}
    model.load_state_dict({key: weights[ours_name] for key, ours_name in names.items()})
    return model


@pytest.mark.parametrize("name", NAMES)
def test_features_are_timms_bit_for_bit(name):
    ours = TimmBackbone(f"timm/{name}", 0).eval()
    is_vit = "vit" in name
    model = theirs(name, ours, **({"dynamic_img_size": True} if is_vit else {}))
    for height, width in [size for size in SIZES if not is_vit or size != (97, 65)]:
        with torch.inference_mode():
            found, expected = ours(noise(height, width), LEVELS), model(noise(height, width))
            alone = ours(noise(height, width), ("level2",))
        assert tuple(found) == LEVELS and tuple(alone) == ("level2",)
        assert all(map(torch.equal, found.values(), expected)) and torch.equal(alone["level2"], found["level2"])
        for level, maps in found.items():
            assert maps.shape[1] == ours.channels[level]
            assert abs(maps.shape[2] - height / ours.strides[level]) < 1
            assert abs(maps.shape[3] - width / ours.strides[level]) < 1


def test_channels_and_strides_are_known_without_an_image():
    vit, cnn = Encoder("timm/vit_tiny_patch16_224"), Encoder("timm/mobilenetv3_small_100")
    assert list(vit.channels.values()) == [192] * 4 and list(vit.strides.values()) == [16] * 4
    assert list(vit.stages.indices.values()) == [2, 5, 8, 11]
    assert list(cnn.channels.values()) == [16, 24, 48, 576] and list(cnn.strides.values()) == [4, 8, 16, 32]
    assert vit.mean.flatten().tolist() == [0.5] * 3 and cnn.mean.flatten()[0] == pytest.approx(0.485)


def test_what_follows_the_last_level_is_dropped_and_a_seed_is_a_backbone():
    first, same, other = (TimmBackbone("timm/test_vit", seed) for seed in (3, 3, 4))
    names = first.state_dict().keys()
    assert not any(re.search(r"head|fc_norm|\bnorm\.", name) for name in names)
    assert {f"model.blocks.{index}.norm1.weight" for index in first.indices.values()} <= names
    weights = [backbone.state_dict()["model.patch_embed.proj.weight"] for backbone in (first, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("architecture", ["efficientnet_lite0", "resnet18", "convnext_tiny", "timm/test_vit"])
def test_without_a_seed_nothing_is_drawn_and_it_ends(architecture):
    """torch draws a truncated normal again until all of it lies within its bounds."""
    undrawn, before = make_backbone(architecture, None), torch.get_rng_state()
    assert all(torch.equal(each.max(), each.min()) for each in undrawn.parameters() if each.ndim > 1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("architecture", ["timm/test_vit", "timm/test_efficientnet", "resnet18"])
def test_the_weights_that_a_level_needs(architecture):
    backbone = make_backbone(architecture, 0).eval()
    needed = backbone.weights_until("level3")
    backbone(noise(64, 64), ("level1", "level3"))["level3"].sum().backward()
    with_gradient = [weights for weights in backbone.parameters() if weights.grad is not None]
    assert 0 < len(needed) < len(list(backbone.parameters()))
    assert set(needed) >= set(with_gradient)
    assert len(needed) - len(with_gradient) <= 1  # the class token of a ViT is in no feature of its last block
    expected = backbone(noise(64, 64), ("level2",))["level2"]
    backbone.drop_after("level2")
    assert torch.equal(backbone(noise(64, 64), ("level2",))["level2"], expected)


@pytest.mark.parametrize(
    "name, said",
    [
        ("resnet81", "did you mean timm/resnet"),
        ("resnet18.no_such_tag", "of resnet18 it has .*a1_in1k"),
        ("hf-hub:someone/model", "timm has no model"),
        ("levit_128", "strides 16, 32, 64; those at 4, 8, 16 and 32 are needed"),
        ("nest_tiny", "strides 4, 8, 16;"),
    ],
)
def test_names_that_are_refused(name, said):
    assert re.search(said, refusal(Encoder, f"timm/{name}"))
    assert "timm/NAME" in refusal(Encoder, "vit_tiny_patch16_224")


def test_a_model_without_features_is_refused(monkeypatch):
    monkeypatch.setattr("timm.models.resnet.ResNet.forward_intermediates", property(lambda self: self.none))
    assert "gives no features" in refusal(Encoder, "timm/test_resnet")


def test_sizes_that_are_refused():
    vit = Encoder("timm/test_vit").eval()
    message = refusal(vit, torch.zeros(1, 3, 97, 97))
    assert "patches of 16 px" in message and "97x97" in message and "give 96," in message
    message = refusal(vit, torch.zeros(1, 3, *keeping_aspect(96, 2.4)))
    (size_px,) = map(int, re.findall(r"give --size-px (\d+)", message))
    rectangle = keeping_aspect(size_px, 2.4)
    assert rectangle != keeping_aspect(96, 2.4) and size_px < 200
    vit(torch.zeros(1, 3, *rectangle))
    assert "multiple of 14" in refusal(Encoder, "timm/eva02_tiny_patch14_224", input_size_px=128)
    fixed = Encoder("timm/vit_relpos_small_patch16_224").eval()
    assert fixed.input_size_px == 224
    assert "224x224 pixels alone, not 64x64" in refusal(fixed, torch.zeros(1, 3, 64, 64))
    with torch.inference_mode():
        assert fixed(torch.zeros(1, 3, 224, 224), ("level1",))["level1"].shape[2:] == (14, 14)


@pytest.mark.skipif(not hasattr(timm.models.DLA, "forward_intermediates"), reason="of timm before 1.0.31")
def test_strides_that_are_no_levels_and_sizes_that_timm_does_not_say_beforehand():
    """DLA has strides 1 and 2 too."""
    dla = TimmBackbone("timm/dla46_c", 0)
    assert list(dla.strides.values()) == [4, 8, 16, 32] and list(dla.indices.values()) == [2, 3, 4, 5]
    assert "try a multiple of 32" in refusal(Encoder("timm/dla46_c").eval(), torch.zeros(1, 3, 97, 97))


def test_who_needs_levels_that_halve_says_so():
    message = refusal(make_backbone("timm/test_vit", 0).check_halves, "timm/test_vit", "the restorer")
    assert "the restorer needs levels at strides 4, 8, 16 and 32" in message
    make_backbone("timm/test_resnet", 0).check_halves("timm/test_resnet", "the restorer")


def test_torchvisions_keep_the_names_of_their_weights():
    """Encoder files hold them."""
    names = CutBackbone("resnet18", 0).state_dict().keys()
    assert {"level1.conv1.weight", "level4.layer4.1.bn2.running_var"} <= names
    assert "level1.blocks_1.0.conv_pw.weight" in CutBackbone("efficientnet_lite0", 0).state_dict()
