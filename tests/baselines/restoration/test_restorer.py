"""What every restorer owes its users: the contract, for SADNet and for ours with a random encoder."""

import pytest
import torch
from pair_folders import smooth
from pretended_gpu import pretended_gpu

from baselines.contract.method import NotFitted, Pair, Restorer
from baselines.contract.metrics import psnr
from baselines.restoration.pairs import SyntheticPairs
from baselines.restoration.restorer import SadNetRestorer
from downstream.restoration.restorer import EncoderRestorer
from pretrain.command import UserError

SMALL = {"steps": 6, "crop_px": 32, "batch_size": 2}
RESTORERS = {"sadnet": (SadNetRestorer, {"width": 8}), "ours": (EncoderRestorer, {"channels": 16, "blocks": 1})}


@pytest.fixture(scope="module")
def pairs() -> SyntheticPairs:
    return SyntheticPairs(smooth(4, 48, 48), "medium", 32, 100, 0, "cpu")


@pytest.fixture(scope="module", params=RESTORERS)
def make(request):
    """Makes a small restorer with further arguments."""
    restorer_class, own = RESTORERS[request.param]
    return lambda **options: restorer_class(**{**SMALL, **own, **options})


# In which the two do not differ: how an image is cut is the same code. SADNet takes four times as long.
BY_TILES = pytest.mark.parametrize("make", [pytest.param("sadnet", marks=pytest.mark.slow), "ours"], indirect=True)


@pytest.fixture(scope="module")
def fitted(make, pairs):
    return make().fit(pairs)


def test_it_is_a_restorer(fitted):
    assert isinstance(fitted, Restorer)


def test_fitting_twice_is_fitting_once_and_the_seed_decides(make, pairs, fitted):
    images = torch.rand(1, 3, 40, 44)
    again = make().fit(pairs).fit(pairs)
    assert torch.equal(again.restore(images), fitted.restore(images))
    other = make(seed=1).fit(pairs)
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


@BY_TILES
def test_a_gpu_restores_the_same_image_by_tiles_too(make, fitted, pairs, tmp_path):
    """On a GPU that is pretended; trained there too."""
    images = smooth(1, 270, 300)[0][None]
    fitted.memory_mb = 1e-6 * fitted.network_.bytes_per_pixel * 264**2
    before = fitted.restore(images)
    fitted.save(tmp_path / "here")
    fitted.memory_mb = 2000.0
    with pretended_gpu() as gpu:
        moved = type(fitted).load(tmp_path / "here").to(gpu.device)
        restored = moved.restore(images)
        moved.save(tmp_path / "there")
        trained_there = make(steps=2).to(gpu.device).fit(pairs)
        small = trained_there.restore(images[..., :32, :32])
    assert restored.device.type == "cpu" and (restored - before).abs().max() < 1e-4
    assert torch.equal(type(fitted).load(tmp_path / "there").restore(images), before)
    assert (make(steps=2).fit(pairs).restore(images[..., :32, :32]) - small).abs().max() < 1e-3


@BY_TILES
def test_a_gpu_that_cannot_hold_a_tile_gets_smaller_ones(make, fitted, monkeypatch):
    images = smooth(1, 270, 300)[0][None]
    whole, forward = fitted.restore(images), fitted._inference_network.forward
    asked = []

    def short(tile):
        asked.append(max(tile.shape[-2:]))
        if asked[-1] > 280:
            raise torch.OutOfMemoryError
        return forward(tile)

    monkeypatch.setattr(fitted._inference_network, "forward", short)
    fitted.memory_mb = 1e-6 * fitted.network_.bytes_per_pixel * 384**2
    in_tiles = fitted.restore(images)
    assert asked[0] == 300 and 256 <= max(asked[1:]) <= 280
    fitted.memory_mb = 2000.0
    assert (in_tiles - whole).abs().mean() < 1e-2


def test_one_class_is_not_loaded_as_another(fitted, tmp_path):
    fitted.save(tmp_path)
    other = EncoderRestorer if isinstance(fitted, SadNetRestorer) else SadNetRestorer
    with pytest.raises(UserError, match="not a"):
        other.load(tmp_path)


def test_before_fitting_it_says_so(make):
    with pytest.raises(NotFitted, match="call fit first"):
        make().restore(torch.rand(1, 3, 32, 32))


def test_nan_and_wrong_shapes_are_refused(fitted):
    images = torch.rand(1, 3, 32, 32)
    images[0, 1, 2, 3] = torch.nan
    with pytest.raises(UserError, match="NaN"):
        fitted.restore(images)
    with pytest.raises(ValueError, match=r"\(b, 3, h, w\)"):
        fitted.restore(torch.rand(3, 32, 32))


def test_it_learns_from_plain_pairs_of_several_sizes(make):
    clean = [smooth(1, 40, 50)[0], smooth(1, 33, 32)[0]]
    plain = [Pair((image + 0.1 * torch.randn_like(image)).clamp(0, 1), image, None) for image in clean]
    restorer = make().fit(plain)
    assert restorer.restore(plain[0].degraded[None]).shape == (1, 3, 40, 50)
    with pytest.raises(UserError, match="cannot be cut"):
        make(crop_px=36).fit(plain)
    with pytest.raises(UserError, match="must be alike"):
        make().fit([Pair(clean[0], clean[1], None)])
    with pytest.raises(UserError, match="NaN"):
        make().fit([Pair(clean[0] * torch.nan, clean[0], None)])


@BY_TILES
def test_large_images_go_by_tiles_within_the_memory_allowed(fitted):
    """And come out as good as whole."""
    images = smooth(1, 300, 420)[0][None]
    noisy = (images + 0.05 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    whole, asked, forward = fitted.restore(noisy), [], fitted._inference_network.forward
    fitted._inference_network.forward = lambda tile: asked.append(tile.shape[-2:]) or forward(tile)
    fitted.memory_mb = 1e-6 * fitted.network_.bytes_per_pixel * 264**2
    tiled = fitted.restore(noisy)
    fitted._inference_network.forward, fitted.memory_mb = forward, 2000.0
    assert len(asked) > 1 and max(max(size) for size in asked) <= 264
    assert (psnr(tiled, images) - psnr(whole, images)).abs().item() < 0.05
    assert ((tiled - whole).diff(dim=-1).abs().max() < 1 / 255) and ((tiled - whole).diff(dim=-2).abs().max() < 1 / 255)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_real_gpu_restores_the_same_image(fitted, tmp_path):
    images = smooth(1, 270, 300)[0][None]
    fitted.save(tmp_path)
    assert (type(fitted).load(tmp_path).to("cuda").restore(images) - fitted.restore(images)).abs().max() < 1e-3
