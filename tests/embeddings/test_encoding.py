"""Which encoder makes which vectors, and that they are the same whatever the batch."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refusal

from embeddings.encoding import Encoding, Source, choose_encoder, encoder_of, make_source, safe_precision
from pretrain.command import UserError
from pretrain.data.dataset import load
from pretrain.encoder import Encoder, fingerprint
from pretrain.weights import Origin

SIZE_PX = 64


def test_which_encoder_is_used(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    encoder, path = choose_encoder(None, 4, is_demo=False)
    assert (encoder.architecture, path) == ("efficientnet_lite0", Path("imagenet"))
    assert encoder.origin.data == "ImageNet-1k" and not encoder.training
    better = {"start": "imagenet", "synthetic_auroc": 0.95, "synthetic_auroc_of_start": 0.9}
    Encoder(seed=9, origin=Origin("demo", is_demo=True, recipe=better)).save("runs/simclr/encoder.safetensors")
    assert choose_encoder(None, 4, is_demo=True)[1] == Path("runs/simclr/encoder.safetensors")
    assert choose_encoder(None, 4, is_demo=False)[1] == Path("imagenet")
    assert "was made on demo data" in capsys.readouterr().err
    Encoder(seed=9).save("runs/simclr/encoder.safetensors")
    assert choose_encoder(None, 4, is_demo=False)[1] == Path("imagenet")
    assert "does not say what it learned from and is not used" in capsys.readouterr().err
    worse = Origin("bolts", recipe={**better, "start": "random"})  # which is better than random weights alone
    Encoder(seed=9, origin=worse).save("runs/simclr/encoder.safetensors")
    assert choose_encoder(None, 4, is_demo=False)[1] == Path("imagenet")
    assert "was never compared with ImageNet's weights and is not used" in capsys.readouterr().err
    assert choose_encoder(Path("runs/simclr/encoder.safetensors"), 4, is_demo=False)[0].origin == worse
    assert "there is no encoder file" in refusal(choose_encoder, Path("none"), 0, True)


def test_the_encoder_of_vectors_is_found_again_and_another_refused(pooled, tmp_path):
    assert fingerprint(encoder_of(pooled.config)) == pooled.source.encoder
    imagenet, _ = choose_encoder(Path("imagenet"), 0, is_demo=True)  # the default, which is no file
    for name in ("imagenet", imagenet.architecture):
        config = {"encoder_file": name, "seed": 0, "source": {"encoder": fingerprint(imagenet)}}
        assert fingerprint(encoder_of(config)) == imagenet.started_from.fingerprint
    assert "did you mean timm/test_vit?" in refusal(choose_encoder, Path("timm/tst_vit"), 0, True)
    Encoder(seed=9).save(tmp_path / "other.safetensors")
    assert "mean nothing" in refusal(encoder_of, pooled.config, tmp_path / "other.safetensors")


def test_bf16_is_used_only_where_it_changes_nothing_that_matters(demo_folder, monkeypatch):
    pixels = load(demo_folder, SIZE_PX).batch(range(4))
    encoder = Encoder().eval()
    source = make_source(encoder, "pooled", size_px=SIZE_PX)
    cpu, clock = torch.device("cpu"), iter([0, 3, 3, 4, 0, 3, 3, 4, 0, 1, 1, 4])
    monkeypatch.setattr("embeddings.encoding.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr("embeddings.encoding.has_bf16", lambda device: True)
    assert safe_precision(encoder, source, pixels, cpu) == "bf16-mixed"
    monkeypatch.setattr("embeddings.encoding.SAFE_COSINE", 1.1)
    assert safe_precision(encoder, source, pixels, cpu) == "32-true"
    monkeypatch.setattr("embeddings.encoding.SAFE_COSINE", 0.999)
    assert safe_precision(encoder, source, pixels, cpu) == "32-true"  # since it took longer
    monkeypatch.setattr("embeddings.encoding.has_bf16", lambda device: False)
    assert safe_precision(encoder, source, pixels, cpu) == "32-true"


def test_vectors_do_not_depend_on_the_batch(demo_folder):
    pixels = load(demo_folder, SIZE_PX).batch(range(6))
    encoder = Encoder().eval()
    encoding = Encoding(encoder, make_source(encoder, "patches", size_px=SIZE_PX))
    together = encoding.vectors(pixels)
    alone = np.concatenate([encoding.vectors(pixels[number : number + 1]) for number in range(6)])
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)
    assert together.shape == (6 * encoding.per_image, encoding.dimensions) == (6 * 64, 384)


def test_source_survives_json():
    source = Source("abc", "patches", ("level2", "level3"), 64, 8, 40, 3, "bf16-mixed")
    assert Source.from_json(json.loads(json.dumps(source.as_json()))) == source


def test_sources_that_cannot_be():
    encoder = Encoder()
    assert "did you mean pooled" in refusal(make_source, encoder, "poled")
    assert "did you mean level2" in refusal(make_source, encoder, "pooled", ["levle2"])
    assert "32 px or more" in refusal(make_source, encoder, "pooled", size_px=16)
    assert "are for patches" in refusal(make_source, encoder, "pooled", grid=4)
    assert "grid of -1" in refusal(make_source, encoder, "patches", grid=-1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("form", ["pooled", "patches"])
def test_a_gpu_makes_the_same_vectors(form):
    encoder, pixels = Encoder("resnet18", 1), np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    source = make_source(encoder, form, size_px=SIZE_PX)
    here, there = (Encoding(encoder, source, device).vectors(pixels) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(here, there, rtol=1e-3, atol=1e-4)


def test_an_encoder_embeds_images_as_extract_does(demo_folder):
    encoder = Encoder("timm/test_resnet", seed=3).train()
    images = load(demo_folder, SIZE_PX).subset(range(5))
    paths = [record.path for record in images.records]
    vectors = encoder.embed(paths, size_px=SIZE_PX, batch_size=2)
    assert encoder.training and vectors.shape == (5, encoder.channels["level4"])
    expected = Encoding(encoder, make_source(encoder, "pooled", size_px=SIZE_PX)).vectors(images.batch(range(5)))
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(encoder.embed(Image.open(paths[2]), size_px=SIZE_PX), vectors[2], rtol=1e-5, atol=1e-6)
    assert encoder.embed(paths[:1]).shape == (1, vectors.shape[1])  # at the size that it was trained at
    for nothing, words in (([], "no images to embed"), (["gone.png"], "gone.png: No such file")):
        with pytest.raises(UserError, match=words):
            encoder.embed(nothing)
