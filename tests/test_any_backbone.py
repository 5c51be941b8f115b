"""Models of timm through all that takes an encoder: training, detection, vectors, export, folding, restoration."""

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from fitted_models import run_detect, run_export
from refusals import refusal
from torch import nn

from baselines.autoencoders.cae import BackboneCAE
from downstream.exporting.onnx_file import predicted_arrays
from downstream.inspection.inspector import Inspector
from downstream.methods.exported import Exported
from downstream.restoration.network import EncoderRestoration
from embeddings.config import Extract
from embeddings.encoding import encoder_of
from embeddings.extract import extract
from embeddings.vectors import Vectors
from pretrain.command import run_command
from pretrain.config import Config
from pretrain.encoder import Encoder, fingerprint, load_encoder, make_encoder
from pretrain.folding import folded
from pretrain.simclr import main

SIZE_PX = 96
NAMES = ("timm/test_vit", "timm/test_efficientnet", "timm/test_resnet")


def trained(name: str) -> Encoder:
    """With batch statistics and scales of its own, as after a training, so that folding has something to do."""
    encoder, generator = make_encoder(name, seed=1, input_size_px=SIZE_PX), torch.Generator().manual_seed(0)
    for layer in encoder.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.running_mean, layer.weight.data, layer.bias.data, layer.running_var):
                tensor.copy_(tensor + 0.4 * torch.rand(tensor.shape, generator=generator))
    return encoder.eval()


@pytest.fixture(scope="module", params=NAMES)
def file(request, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("timm") / "encoder.safetensors"
    trained(request.param).save(path)
    return path


@pytest.mark.parametrize("more", [(), ("--image-weight", "0", "--synthetic-negatives")])
@pytest.mark.parametrize("name", NAMES)
def test_simclr_trains_it(demo_folder, tmp_path, name, more):
    options = ("--architecture", name, "--start", "random", "--size-px", "64", "--batch", "8", "--steps", "2",
               "--precision", "32-true", "--monitor-every", "2", "--keep", "last")  # fmt: skip
    with redirect_stdout(StringIO()) as printed:
        assert run_command(main, Config, ["--data", str(demo_folder), "--out", str(tmp_path), *options, *more]) == 0
    encoder = load_encoder(tmp_path / "encoder.safetensors")
    assert encoder.architecture == name and encoder.started_from.fingerprint != fingerprint(encoder)
    assert f"started from random ({encoder.started_from.fingerprint})" in printed.getvalue()


# The one that is no CNN: those are detected with and exported in most other tests.
@pytest.mark.parametrize(
    "file", ["timm/test_vit", *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])], indirect=True
)
def test_it_detects_is_saved_and_exported(file, demo_folder, tmp_path):
    name = load_encoder(file).architecture
    small = ("--size-px", SIZE_PX, "--encoder", file, "--options", "dimensions=20,grid=6")
    model = tmp_path / "model"
    assert run_detect("fit", "--data", demo_folder, "--category", "hazelnut", "--out", model, *small) == 0
    inspector = Inspector.load(model)
    assert inspector.metadata["encoder"]["architecture"] == name
    assert run_export(model) == 0
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    ours, theirs = (
        predicted_arrays(method, pixels) for method in (inspector.method, Exported(model.with_suffix(".onnx")))
    )
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-4)


def test_its_vectors_are_extracted_and_their_encoder_found_again(file, demo_folder, tmp_path):
    out = extract(
        Extract(data=demo_folder, out=tmp_path, encoder=file, form="patches", size_px=SIZE_PX, precision="32-true")
    )
    vectors, encoder = Vectors(out), load_encoder(file)
    assert vectors.dimensions == encoder.channels["level2"] + encoder.channels["level3"]
    assert vectors.grid == (SIZE_PX // encoder.strides["level2"],) * 2
    assert fingerprint(encoder_of(vectors.config)) == fingerprint(encoder)


@pytest.mark.parametrize("name", NAMES)
def test_folded_it_says_the_same(name):
    encoder = trained(name)
    images = torch.rand(2, 3, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(1))
    quick = folded(encoder)
    with torch.inference_mode():
        for level, maps in encoder(images).items():
            assert (quick(images)[level] - maps).abs().max() < 1e-4 * maps.abs().max(), level
    left, had = (sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules()) for network in (quick, encoder))
    # In front of a ResNet's first one stands a sequence of convolutions, so it stays.
    assert (left, had > 0) == (int(name == "timm/test_resnet"), name != "timm/test_vit")


def test_a_network_that_would_be_folded_wrongly_is_left_as_it_is():
    encoder = trained("timm/test_resnet")
    block = encoder.stages.model.layer1[0]
    # In the order of their names the second batch normalization stands behind the first convolution.
    order = ("bn1", "conv2", "conv1", "bn2")
    block._modules = {name: block._modules[name] for name in (*order, *(block._modules.keys() - order))}
    images = torch.rand(1, 3, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(1))
    quick = folded(encoder)
    with torch.inference_mode():
        torch.testing.assert_close(quick(images), encoder(images), rtol=1e-4, atol=1e-4)
    assert quick.state_dict().keys() == encoder.state_dict().keys()


def test_channels_innermost_and_bf16_change_little(file):
    encoder = load_encoder(file)
    images = torch.rand(1, 3, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        plain = encoder.pooled(images)
        turned = encoder.to(memory_format=torch.channels_last).pooled(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = encoder.pooled(images).float()
    torch.testing.assert_close(turned, plain, rtol=1e-4, atol=1e-5)
    assert torch.nn.functional.cosine_similarity(half, plain).min() > 0.99


def test_restorer_and_auto_encoder_take_cnns_and_refuse_the_rest():
    images = torch.rand(1, 3, 64, 64)
    for name in ("timm/test_efficientnet", "timm/test_resnet"):
        network = EncoderRestoration(Encoder(name), channels=8, blocks=1)
        assert torch.equal(network(images), images) and len(network.groups()[1].weights)
        assert BackboneCAE(64, backbone=Encoder(name))(images).shape == images.shape
    for user in (EncoderRestoration, lambda encoder: BackboneCAE(64, backbone=encoder)):
        assert "strides 4, 8, 16 and 32" in refusal(user, Encoder("timm/test_vit"))
