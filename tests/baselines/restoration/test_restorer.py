"""What every restorer owes its users: the contract, for SADNet and for ours with random eyes."""

import subprocess
import sys

import pytest
import torch
from conftest import REPOSITORY
from pair_folders import smooth

from baselines.contract.method import NotFitted, Pair, Restorer
from baselines.contract.metrics import psnr
from baselines.restoration.pairs import SyntheticPairs
from baselines.restoration.restorer import SadNetRestorer
from downstream.restoration.restorer import EncoderRestorer
from pretrain.command import UserError
from pretrain.encoder import Encoder

SMALL = {"steps": 6, "crop_px": 32, "batch_size": 2, "device": "cpu"}
KINDS = {"sadnet": (SadNetRestorer, {"width": 8}), "ours": (EncoderRestorer, {"channels": 16, "blocks": 1})}


@pytest.fixture(scope="module")
def pairs() -> SyntheticPairs:
    return SyntheticPairs(smooth(4, 48, 48), "medium", 32, 100, 0, "cpu")


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture(scope="module")
def fitted(kind, pairs):
    return kind[0](**SMALL, **kind[1]).fit(pairs)


def test_it_is_a_restorer(fitted):
    assert isinstance(fitted, Restorer)


def test_fitting_twice_is_fitting_once_and_the_seed_decides(kind, pairs, fitted):
    images = torch.rand(1, 3, 40, 44)
    again = kind[0](**SMALL, **kind[1]).fit(pairs).fit(pairs)
    assert torch.equal(again.restore(images), fitted.restore(images))
    other = kind[0](**SMALL, **kind[1], seed=1).fit(pairs)
    assert not torch.equal(other.restore(images), fitted.restore(images))


def test_neighbors_and_their_order_do_not_matter(fitted):
    images = torch.rand(3, 3, 40, 44)
    whole = fitted.restore(images)
    assert whole.shape == images.shape and whole.min() >= 0 and whole.max() <= 1
    for position in range(3):
        assert torch.equal(fitted.restore(images[position : position + 1])[0], whole[position])


def test_saved_is_loaded_bit_for_bit_and_no_pickle_is_written(fitted, tmp_path):
    images = torch.rand(1, 3, 37, 50)
    fitted.save(tmp_path)
    loaded = type(fitted).load(tmp_path)
    assert torch.equal(loaded.restore(images), fitted.restore(images))
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors"}
    loaded.save(tmp_path / "again")  # what was loaded is saved too
    assert torch.equal(type(fitted).load(tmp_path / "again").restore(images), fitted.restore(images))


def test_one_kind_is_not_loaded_as_another(fitted, tmp_path):
    fitted.save(tmp_path)
    other = EncoderRestorer if isinstance(fitted, SadNetRestorer) else SadNetRestorer
    with pytest.raises(UserError, match="not a"):
        other.load(tmp_path)


def test_before_fitting_it_says_so(kind):
    with pytest.raises(NotFitted, match="call fit first"):
        kind[0](**SMALL, **kind[1]).restore(torch.rand(1, 3, 32, 32))


def test_nan_and_wrong_shapes_are_refused(fitted):
    images = torch.rand(1, 3, 32, 32)
    images[0, 1, 2, 3] = torch.nan
    with pytest.raises(UserError, match="NaN"):
        fitted.restore(images)
    with pytest.raises(ValueError, match=r"\(b, 3, h, w\)"):
        fitted.restore(torch.rand(3, 32, 32))


def test_it_learns_from_plain_pairs_of_several_sizes(kind):
    clean = [smooth(1, 40, 50)[0], smooth(1, 33, 32)[0]]
    plain = [Pair((image + 0.1 * torch.randn_like(image)).clamp(0, 1), image, None) for image in clean]
    restorer = kind[0](**SMALL, **kind[1]).fit(plain)
    assert restorer.restore(plain[0].degraded[None]).shape == (1, 3, 40, 50)
    with pytest.raises(UserError, match="cannot be cut"):
        kind[0](**{**SMALL, "crop_px": 36}, **kind[1]).fit(plain)
    with pytest.raises(UserError, match="must be alike"):
        kind[0](**SMALL, **kind[1]).fit([Pair(clean[0], clean[1], None)])
    with pytest.raises(UserError, match="NaN"):
        kind[0](**SMALL, **kind[1]).fit([Pair(clean[0] * torch.nan, clean[0], None)])


def test_ours_learns_to_restore_within_seconds():
    pairs = SyntheticPairs(smooth(4, 64, 64), "harsh", 48, 1000, 0, "cpu")
    options = {**SMALL, "steps": 50, "batch_size": 4, "learning_rate": 3e-3}
    restorer = EncoderRestorer(**options, channels=32, blocks=1).fit(pairs)
    degraded, clean, masks = SyntheticPairs(smooth(8, 64, 64, seed=5), "harsh", 64, 100, 9, "cpu").batch(range(8))
    restored = restorer.restore(degraded)
    assert (psnr(restored, clean) - psnr(degraded, clean)).mean() > 1.5
    assert (psnr(restored, clean, masks) - psnr(degraded, clean, masks)).mean() > 0


def test_the_encoder_is_left_alone_and_then_tuned_but_never_the_one_that_was_given(pairs):
    encoder = Encoder("resnet18", 3).eval()
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    frozen = EncoderRestorer(**SMALL, encoder=encoder, channels=16, blocks=1, frozen=1.0).fit(pairs)
    tuned = EncoderRestorer(**SMALL, encoder=encoder, channels=16, blocks=1, frozen=0.5).fit(pairs)
    for name, weight in before.items():
        assert torch.equal(encoder.state_dict()[name], weight)
        assert torch.equal(frozen.network_.encoder.state_dict()[name], weight)
    changed = {
        name for name, weight in before.items() if not torch.equal(tuned.network_.encoder.state_dict()[name], weight)
    }
    assert any("level1" in name for name in changed) and not any("running" in name for name in changed)
    assert not any("level4" in name for name in changed)  # it is not used


def test_ours_folded_for_use_is_ours_as_it_learned(pairs):
    restorer = EncoderRestorer(**SMALL, channels=16, blocks=1, frozen=0.5).fit(pairs)
    images = torch.rand(1, 3, 48, 48)
    with torch.inference_mode():
        torch.testing.assert_close(
            restorer.network_(images).clamp(0, 1), restorer.restore(images), rtol=1e-4, atol=1e-5
        )


def test_large_images_go_by_tiles_within_the_memory_allowed(fitted):
    """And come out as good as whole."""
    images = smooth(1, 300, 420)[0][None]
    noisy = (images + 0.05 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    whole, asked, forward = fitted.restore(noisy), [], fitted._ready.forward
    fitted._ready.forward = lambda part: asked.append(part.shape[-2:]) or forward(part)
    fitted.memory_mb = 1e-6 * fitted.network_.bytes_per_pixel * 264**2
    tiled = fitted.restore(noisy)
    fitted._ready.forward, fitted.memory_mb = forward, 2000.0
    assert len(asked) > 1 and max(max(size) for size in asked) <= 264
    assert (psnr(tiled, images) - psnr(whole, images)).abs().item() < 0.05
    assert ((tiled - whole).diff(dim=-1).abs().max() < 1 / 255) and ((tiled - whole).diff(dim=-2).abs().max() < 1 / 255)


def test_memory_stays_within_what_is_allowed():
    """Of 900 x 900 pixels, whole, the network would take some 220 MB."""
    code = """
import resource, sys
sys.path.insert(0, ".")
import torch
from downstream.restoration.restorer import EncoderRestorer
def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
restorer = EncoderRestorer(device="cpu", memory_mb=30)
restorer.conclude(restorer.make_network())
restorer.restore(torch.rand(1, 3, 64, 64))
image = torch.rand(1, 3, 900, 900)
before = peak_mb()
restorer.restore(image)
print(peak_mb() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    beside_mb = 4 * 3 * 900**2 * 4 / 1e6  # the sums, and what is cut of them
    assert float(done.stdout) < 30 + beside_mb
