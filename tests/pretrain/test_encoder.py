"""The encoder: levels, seeds, and one file that comes back bit for bit or says why not."""

import json
import os
import subprocess

import pytest
import torch
from conftest import REPOSITORY
from safetensors import safe_open
from torch import nn

from pretrain.backbone import CHANNELS, LEVELS
from pretrain.command import UserError
from pretrain.encoder import Encoder, fingerprint, load_encoder, make_encoder
from pretrain.files import read_tensors, write_tensors
from pretrain.weights import Origin, Start, imagenet_file, read_state_dict

ORIGIN = Origin("demo", ("leather", "tile"), True, {"steps": 20, "crop": [0.5, 1.0], "loss": {"temperature": 0.1}})


def images(count: int = 4, height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def trained() -> Encoder:
    """A ResNet-18 with batch statistics of its own, as after training."""
    encoder = Encoder(
        "resnet18", seed=1, input_size_px=64, levels=("level2", "level3"), std=(0.2, 0.25, 0.3), origin=ORIGIN
    )
    encoder.train()
    with torch.no_grad():
        encoder.pooled(images())
    return encoder.eval()


@pytest.fixture
def file(trained, tmp_path):
    trained.save(tmp_path / "encoder.safetensors")
    return tmp_path / "encoder.safetensors"


def refusal(work, *arguments, **named) -> str:
    """What the user reads: one sentence."""
    with pytest.raises(UserError) as raised:
        work(*arguments, **named)
    message = str(raised.value)
    assert "\n" not in message and message.endswith((".", "?"))
    return message


def states_equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(name == other_name and torch.equal(a, b) for (name, a), (other_name, b) in pairs)


@pytest.mark.parametrize("architecture", CHANNELS)
def test_every_architecture_gives_what_it_says(architecture):
    encoder = Encoder(architecture).eval()
    with torch.inference_mode():
        found = encoder(images(1, 64, 96))
        pooled = encoder.pooled(images(1, 64, 96))
    assert tuple(found) == LEVELS
    for level, maps in found.items():
        stride = encoder.strides[level]
        assert maps.shape == (1, encoder.channels[level], 64 // stride, 96 // stride)
    torch.testing.assert_close(pooled, found["level4"].mean((2, 3)))


def test_resnets_are_torchvisions(trained):
    from torchvision.models import resnet18

    theirs = resnet18().eval()
    state = {name.split(".", 1)[1]: weight for name, weight in trained.stages.state_dict().items()}
    assert theirs.load_state_dict(state, strict=False).missing_keys == ["fc.weight", "fc.bias"]
    theirs.fc = nn.Identity()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.2, 0.25, 0.3)))
    with torch.inference_mode():
        torch.testing.assert_close(trained.pooled(images()), theirs((images() - mean) / std))


@pytest.mark.parametrize("height, width", [(33, 32), (65, 47)])
def test_any_size(trained, height, width):
    found = trained(images(1, height, width), LEVELS)
    assert [maps.shape[2:] for maps in found.values()] == [(-(-height // s), -(-width // s)) for s in (4, 8, 16, 32)]


def test_only_what_was_asked_is_computed(trained):
    ran = []
    hooks = [trained.stages[level].register_forward_hook(lambda *_, level=level: ran.append(level)) for level in LEVELS]
    try:
        assert tuple(trained(images())) == ("level2", "level3")
        assert ran == ["level1", "level2", "level3"]
        ran.clear()
        alone = trained(images(), ("level1",))
        assert ran == ["level1"]
        assert tuple(trained(images(), ("level4", "level1"))) == ("level1", "level4")
    finally:
        for hook in hooks:
            hook.remove()
    # No later stage may write into what an earlier one gave.
    assert torch.equal(alone["level1"], trained(images(), LEVELS)["level1"])


def test_names_and_images_that_are_refused(trained):
    assert "did you mean resnet18?" in refusal(Encoder, "resnet81")
    assert "did you mean level3?" in refusal(Encoder, levels=("level1", "levle3"))
    assert "choose from level1" in refusal(trained, images(), ())
    with pytest.raises(TypeError, match="torch.uint8"):
        trained(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def test_a_seed_is_an_encoder_and_nothing_else_is_drawn():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, same, other = (
        make_encoder("resnet18", seed=3),
        make_encoder("resnet18", seed=3),
        make_encoder("resnet18", seed=4),
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert states_equal(first, same) and not states_equal(first, other)
    assert len({fingerprint(first), fingerprint(same), fingerprint(other)}) == 2
    assert first.origin is None and first.training


def test_features_do_not_depend_on_the_batch(trained):
    with torch.inference_mode():
        together = trained(images(6), LEVELS)
        alone = trained(images(6)[4:5], LEVELS)
        for level in LEVELS:
            torch.testing.assert_close(alone[level], together[level][4:5], rtol=1e-5, atol=1e-5)
        # In training mode they do, so the check above can fail.
        fresh = Encoder("resnet18")
        assert (fresh.pooled(images(6))[:2] - fresh.pooled(images(6)[:2])).abs().max() > 1e-3


def test_saved_is_loaded_bit_for_bit(trained, file):
    loaded = load_encoder(file)
    assert states_equal(loaded, trained) and not loaded.training
    assert torch.equal(loaded.mean, trained.mean) and torch.equal(loaded.std, trained.std)
    assert (loaded.origin, loaded.input_size_px, loaded.levels) == (ORIGIN, 64, ("level2", "level3"))
    with torch.inference_mode():
        assert torch.equal(loaded.pooled(images()), trained.pooled(images()))
    assert fingerprint(file) == fingerprint(str(file)) == fingerprint(loaded) == fingerprint(trained)
    make_encoder("resnet18").save(file)
    assert load_encoder(file).origin is None


def test_fingerprint_is_of_what_is_computed(trained, file):
    changed = load_encoder(file)
    changed.origin, changed.started_from, changed.levels, changed.input_size_px = None, None, LEVELS, 32
    assert fingerprint(changed) == fingerprint(trained)
    assert fingerprint(changed.double().to(memory_format=torch.channels_last)) == fingerprint(trained)
    changed.float()
    changed.mean[0, 1] += 1e-6
    assert fingerprint(changed) != fingerprint(trained)
    changed = load_encoder(file)
    with torch.no_grad():
        changed.stages.level3.layer3[0].conv1.weight[0, 0, 0, 0] += 1e-6
    assert fingerprint(changed) != fingerprint(trained)


def test_header_is_plain_json(file):
    with safe_open(file, framework="pt") as opened:
        header = json.loads(opened.metadata()["heldout"])
    assert (header["format"], header["architecture"], header["input_size_px"]) == (2, "resnet18", 64)
    assert header["origin"]["categories"] == ["leather", "tile"] and header["origin"]["is_demo"] is True
    assert header["origin"]["recipe"]["loss"] == {"temperature": 0.1}
    assert header["levels"] == ["level2", "level3"] and header["std"] == pytest.approx([0.2, 0.25, 0.3])
    assert header["versions"]["torch"] == torch.__version__ and header["versions"].keys() >= {"heldout", "torchvision"}
    git = subprocess.run(["git", "-C", REPOSITORY, "rev-parse", "HEAD"], capture_output=True, text=True)
    assert (header["commit"] or "").removesuffix("-dirty") == git.stdout.strip()


def test_a_failing_write_leaves_the_old_file_whole(file, monkeypatch):
    before = file.read_bytes()

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        make_encoder("resnet18", seed=9).save(file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def rewrite(file, weights=None, **metadata):
    """The encoder file with some weights or metadata replaced; None removes."""
    old_weights, old_metadata = read_tensors(file)
    merged = [{**old, **(new or {})} for old, new in ((old_weights, weights), (old_metadata, metadata))]
    write_tensors(file, *({name: value for name, value in part.items() if value is not None} for part in merged))


def test_files_that_cannot_be_read(file, tmp_path):
    assert "no encoder file" in refusal(load_encoder, tmp_path / "none.safetensors")
    whole = file.read_bytes()
    flipped = whole[:-1000] + bytes([whole[-1000] ^ 1]) + whole[-999:]  # a bit of a weight
    for damaged in (flipped, whole[: len(whole) // 2], whole[:100], b"", b"\xff" * 1000):
        file.write_bytes(damaged)
        assert "damaged" in refusal(load_encoder, file)
        assert "damaged" in refusal(fingerprint, file)
    write_tensors(file, {"a": torch.ones(2)}, {"format": 1, "method": "PaDiM"})
    assert "is no encoder file" in refusal(load_encoder, file)


@pytest.mark.parametrize(
    "metadata, said",
    [
        ({"format": 3}, "update heldout"),
        ({"format": 3, "architecture": "vit_b_16", "mean": None}, "update heldout"),
        ({"architecture": "resnet81"}, "did you mean resnet18?"),
        ({"levels": ["level9"]}, "no feature level 'level9'"),
        ({"mean": None}, "header .* is damaged"),
        ({"mean": [0.5]}, "header .* is damaged"),
        ({"origin": {"data": "demo", "color": "red"}}, "header .* is damaged"),
        ({"started_from": {"name": "imagenet"}}, "header .* is damaged"),
        ({"architecture": "resnet34"}, "does not hold the weights of resnet34: .* missing"),
    ],
)
def test_headers_that_cannot_be_used(file, metadata, said):
    rewrite(file, **metadata)
    with pytest.raises(UserError, match=said):
        load_encoder(file)


@pytest.mark.parametrize(
    "weights, said",
    [
        ({"level1.conv1.weight": None, "level1.bn1.bias": None}, "2 missing (level1.conv1.weight, level1.bn1.bias)"),
        ({"level4.extra": torch.ones(1)}, "1 unexpected (level4.extra)"),
        ({"level1.conv1.weight": torch.ones(64, 3, 3, 3)}, "1 of another shape (level1.conv1.weight)"),
    ],
)
def test_weights_that_do_not_fit(file, weights, said):
    rewrite(file, weights)
    assert said in refusal(load_encoder, file)


@pytest.mark.parametrize("architecture", ["resnet18", "convnext_tiny"])
@pytest.mark.parametrize("with_head", [True, False])
def test_starts_from_a_torchvision_file(tmp_path, architecture, with_head):
    from torchvision.models import get_model

    theirs = get_model(architecture).eval()
    # The published files are older than batch norm's counters.
    dropped = ("num_batches_tracked",) if with_head else ("num_batches_tracked", "fc.weight", "fc.bias", "classifier")
    state = {name: weight for name, weight in theirs.state_dict().items() if not any(part in name for part in dropped)}
    torch.save(state, tmp_path / "weights.pth")
    encoder = make_encoder(architecture, tmp_path / "weights.pth", input_size_px=128).eval()
    assert states_equal(encoder.stages.level4[-1], theirs.layer4 if architecture == "resnet18" else theirs.features[7])
    assert "weights.pth" in encoder.origin.data and encoder.input_size_px == 128


class Evil(str):
    def __reduce__(self):
        return os.mkdir, (str(self),)


def test_starts_that_are_refused(file, tmp_path):
    pth = tmp_path / "weights.pth"
    assert "imagenet, hub, random" in refusal(make_encoder, "resnet18", "imagnet")
    assert "not a resnet34" in refusal(make_encoder, "resnet34", file)
    torch.save({"epoch": 3, "state_dict": {}}, pth)
    assert "no plain state dict" in refusal(make_encoder, "resnet18", pth)
    torch.save(make_encoder("resnet18").state_dict(), pth)
    message = refusal(make_encoder, "resnet18", pth)
    assert "missing (level1.conv1.weight," in message and "unexpected (stages.level1.conv1.weight," in message
    pth.write_bytes(b"not a pickle at all")
    assert "damaged" in refusal(make_encoder, "resnet18", pth)
    torch.save({"conv1.weight": Evil(tmp_path / "owned")}, pth)
    assert "no plain state dict" in refusal(make_encoder, "resnet18", pth)
    assert not (tmp_path / "owned").exists()


def test_what_it_started_from_is_kept_through_training_and_files(file, trained, tmp_path):
    encoder = make_encoder("resnet18", seed=3)
    start = Start("random", fingerprint(encoder))
    with torch.no_grad():
        encoder.pooled(images())  # moves batch statistics, as training does
    assert encoder.started_from == start and fingerprint(encoder) != start.fingerprint
    encoder.save(tmp_path / "first.safetensors")
    first = load_encoder(tmp_path / "first.safetensors")
    assert first.started_from == start and first.history == f"started from {start}"
    again = make_encoder("resnet18", tmp_path / "first.safetensors")
    assert again.started_from == Start(str(tmp_path / "first.safetensors"), fingerprint(encoder))
    imagenet = make_encoder(start="imagenet")
    assert imagenet.history == f"started from imagenet ({fingerprint(imagenet)}), saw ImageNet-1k"
    assert imagenet.as_json()["started_from"] == {"name": "imagenet", "fingerprint": fingerprint(imagenet)}
    # An encoder file of format 1 did not say: it can still be used.
    rewrite(file, format=1, started_from=None)
    old = load_encoder(file)
    assert states_equal(old, trained) and old.started_from is None
    assert old.history == "started from weights that are not known, saw leather, tile"


def test_continues_an_encoder_file(trained, file):
    encoder = make_encoder("resnet18", file, input_size_px=96, levels=("level4",), seed=77)
    assert states_equal(encoder, trained) and torch.equal(encoder.std, trained.std)
    assert (encoder.input_size_px, encoder.levels, encoder.training) == (96, ("level4",), True)
    origin = Origin("mvtec", ("tile", "wood"), False, {"steps": 5}).after(encoder.origin)
    assert (origin.data, origin.categories, origin.is_demo) == ("demo, then mvtec", ("leather", "tile", "wood"), False)
    assert origin.recipe == {"steps": 5, "continues": ORIGIN.recipe}
    assert ORIGIN.after(None) == ORIGIN


@pytest.mark.parametrize("size_px", [97, *(pytest.param(size_px, marks=pytest.mark.slow) for size_px in (64, 224))])
def test_lite0_is_timms_with_the_weights_of_the_package_bit_for_bit(size_px):
    from timm import create_model

    encoder = make_encoder(start="imagenet").eval()
    assert encoder.origin.data == "ImageNet-1k" and "efficientnet-lite0" in encoder.origin.recipe["start"]
    path, _ = imagenet_file("efficientnet_lite0")
    whole = create_model("tf_efficientnet_lite0")
    whole.load_state_dict(dict(zip(whole.state_dict(), read_state_dict(path).values(), strict=True)))
    theirs = create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3, 4)).eval()
    theirs.load_state_dict({name: whole.state_dict()[name] for name in theirs.state_dict()})
    images = torch.rand(2, 3, size_px, size_px, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = theirs((images * 255 - 127) / 128)
        found = encoder(images)
    assert [maps.shape[1] for maps in expected] == list(encoder.channels.values())
    for ours, maps in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(ours, maps, rtol=1e-4, atol=1e-4)  # (x - mean) / std is rounded otherwise
    with torch.inference_mode():
        assert all(map(torch.equal, found.values(), theirs((images - encoder.mean) / encoder.std)))


def test_lite0_in_timms_naming_and_files_that_do_not_fit(tmp_path):
    from timm import create_model

    theirs = create_model("tf_efficientnet_lite0")
    torch.save(theirs.state_dict(), tmp_path / "own.pth")
    encoder = make_encoder(start=tmp_path / "own.pth")
    assert torch.equal(encoder.stages.level4.blocks_6[0].conv_pw.weight, theirs.blocks[6][0].conv_pw.weight)
    torch.save(create_model("tf_efficientnet_lite2").state_dict(), tmp_path / "other.pth")
    message = refusal(make_encoder, start=tmp_path / "other.pth")
    assert "does not hold the weights of efficientnet_lite0" in message
