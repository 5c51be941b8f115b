"""Patch vectors: the definition with loops, and choices of dimensions."""

import numpy as np
import pytest
import torch
from refusals import refusal

from embeddings.patches import Patches, pixels_at_once
from pretrain.encoder import Encoder


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder("resnet18", 0).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_each_vector_is_the_mean_of_its_neighborhood(encoder, images):
    vectors = Patches(encoder, ["level2"], neighborhood=3)(images)
    with torch.inference_mode():
        level = encoder(images, ["level2"])["level2"]  # (b, c, h, w)
    assert vectors.shape == (2, *level.shape[2:], level.shape[1])
    for row, column in ((0, 0), (0, 3), (4, 4), (7, 7)):  # corners and borders average over fewer positions
        around = level[:, :, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        np.testing.assert_allclose(vectors[:, row, column], around.mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_chosen_dimensions_are_some_of_all(encoder, images):
    everything, chosen = Patches(encoder)(images), Patches(encoder, dimensions=40, seed=3)(images)
    assert everything.shape[-1] == 128 + 256 and chosen.shape[-1] == 40
    gaps = (chosen.reshape(-1, 40, 1) - everything.reshape(-1, 1, 384)).abs().amax(0)  # (40, 384)
    assert gaps.amin(1).max() < 1e-5 and len(gaps.argmin(1).unique()) == 40
    torch.testing.assert_close(Patches(encoder, dimensions=40, seed=3)(images), chosen)
    assert Patches(encoder, dimensions=1000)(images).shape[-1] == 384


def test_mixtures_are_orthonormal_and_linear_in_all_channels(encoder, images):
    everything = Patches(encoder)(images).reshape(-1, 384)
    patches = Patches(encoder, dimensions=16, reduction="orthogonal", seed=1)
    mixture = torch.cat([level[:, :, 0, 0] for level in patches._mixed], dim=1)  # (d, channels)
    torch.testing.assert_close(mixture @ mixture.T, torch.eye(16), atol=1e-5, rtol=0)
    torch.testing.assert_close(patches(images).reshape(-1, 16), everything @ mixture.T, atol=1e-3, rtol=1e-3)


def test_grids_and_what_cannot_be(encoder, images):
    assert Patches(encoder, ["level1", "level2"])(images).shape[1:3] == (8, 8)  # every 8 pixels
    assert Patches(encoder, ["level1"])(images).shape[1:3] == (16, 16)
    assert Patches(encoder, grid=3)(images).shape[1:3] == (3, 3)
    assert Patches(encoder, grid=100)(images).shape[1:3] == (8, 8)
    assert "4 positions has no middle" in refusal(Patches, encoder, neighborhood=4)
    assert "no reduction 'pca'" in refusal(Patches, encoder, reduction="pca")


@pytest.mark.parametrize(
    ("architecture", "choice"),
    [
        ("resnet18", {"grid": 20}),
        pytest.param("efficientnet_lite0", {}, marks=pytest.mark.slow),
        ("efficientnet_lite0", {"dimensions": 20, "reduction": "orthogonal"}),
    ],
)
def test_a_large_image_is_cut_into_tiles_and_nothing_changes(architecture, choice, monkeypatch):
    """But for rounding: the margin is as wide as a patch sees."""
    patches = Patches(Encoder(architecture, 0).eval(), ("level1", "level2", "level3"), **choice)
    image = torch.rand(1, 3, 576, 128, generator=torch.Generator().manual_seed(0))
    whole, sizes, levels = patches(image), set(), patches._levels
    monkeypatch.setattr("embeddings.patches.TILE_PX", 64)
    monkeypatch.setattr("embeddings.patches.PATCHES_AT_ONCE", 3 * 16)
    monkeypatch.setattr(patches, "_levels", lambda tile: sizes.add(tile.shape) or levels(tile))
    bands = list(patches.bands(image))
    tiled = torch.cat([band.vectors for band in bands], dim=1)
    assert tiled.shape == whole.shape and max(map(max, sizes)) <= 64 + 2 * 224 and len(sizes) > 3
    assert (tiled - whole).abs().max() < 1e-4 * whole.abs().max()
    assert [band.top for band in bands] == [0, *np.cumsum([band.vectors.shape[1] for band in bands])[:-1]]
    assert len(bands) > 5 and {band.grid for band in bands} == {whole.shape[1:3]}
    assert bands[1].numbers == (bands[1].top * whole.shape[2], bands[2].top * whole.shape[2])
    in_bytes = (image * 255).to(torch.uint8)  # each tile is made floats by itself
    seen = patches(in_bytes, lambda images, down, across: images[..., down, across] / 255)
    assert torch.equal(seen, patches(in_bytes / 255))
    image = torch.rand(1, 3, 551, 133)
    odd = patches(image)
    monkeypatch.setattr("embeddings.patches.TILE_PX", 96)
    assert (patches(image) - odd).abs().max() < 1e-4 * odd.abs().max()  # wherever the last tile begins
    assert odd.shape[1:3] == ((20, 20) if "grid" in choice else (69, 17)) and odd.isfinite().all()


def test_a_transformer_sees_all_of_an_image_and_is_not_cut(monkeypatch):
    patches = Patches(Encoder("timm/vit_tiny_patch16_224", 0).eval(), ("level2", "level3"))
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    whole = patches(image)
    monkeypatch.setattr("embeddings.patches.TILE_PX", 32)
    monkeypatch.setattr("embeddings.patches.MARGIN_PX", 0)
    assert torch.equal(patches(image), whole)


@pytest.mark.parametrize("size, grid, expected", [((656, 656), 20, (20, 20)), ((680, 680), 20, (85, 85)),
                         ((640, 640), 8, (8, 8)), ((480, 904), 12, (12, 12)), ((680, 680), 24, (24, 24))])  # fmt: skip
def test_an_average_of_very_many_patches_of_a_large_image_is_none(size, grid, expected):
    """Up to 4 x 4 patches make one of the grid; of larger images all are looked at, where that was asked for."""
    encoder, image = Encoder("timm/test_resnet", 0).eval(), torch.rand(1, 3, *size)
    assert Patches(encoder, grid=grid, all_of_large=True)(image).shape[1:3] == expected
    assert Patches(encoder, grid=grid)(image).shape[1:3] == (grid, grid)


def test_tiles_are_as_large_as_memory_allows():
    assert pixels_at_once(960) == (960 + 448) ** 2 and pixels_at_once(None) is None
    patches, image = Patches(Encoder("timm/test_resnet", 0).eval(), ("level1", "level2")), torch.rand(1, 3, 1500, 64)
    whole = patches(image)
    patches.tile_px = 256
    assert len(list(patches.bands(image))) > 1
    assert (patches(image) - whole).abs().max() < 1e-4 * whole.abs().max()


def test_what_an_encoder_takes_a_pixel_is_what_its_largest_layer_does(encoder):
    """Of a ResNet-18 64 channels at half of the side, before and after an activation."""
    assert Patches(encoder).bytes_per_pixel >= 1.5 * 2 * 64 / 4 * 4
    assert Patches(encoder).bytes_per_pixel < 1000
