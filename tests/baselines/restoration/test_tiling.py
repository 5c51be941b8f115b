"""Tiles: all of an image, blended, bounded in memory, without seams."""

import pytest
import torch
from torch.nn import functional as F

from baselines.contract.metrics import psnr
from baselines.restoration.sadnet_network import SadNet
from baselines.restoration.tiling import OVERLAP_PX, ramp, restore_in_tiles, spans, tile_px_for
from pretrain.command import UserError


@pytest.mark.parametrize("length", [64, 100, 101, 164, 165, 500, 1023])
def test_tiles_cover_every_pixel_and_overlap(length):
    found = list(spans(length, 100, 30))
    assert found[0][0] == 0 and found[-1][1] == length
    assert all(stop - start <= 100 for start, stop in found)
    assert all(before[1] - after[0] >= 30 for before, after in zip(found, found[1:], strict=False))
    assert len(set(found)) == len(found) and all(start % 16 == 0 for start, _ in found)


def test_what_does_nothing_leaves_the_image_as_it_is():
    images = torch.rand(2, 3, 300, 170)
    torch.testing.assert_close(restore_in_tiles(lambda tile: tile, images, 96, 32), images)


def test_weights_rise_from_a_seam_and_not_from_the_images_border():
    first, last = ramp(0, 50, 80, 20), ramp(30, 80, 80, 20)
    torch.testing.assert_close(first[:20], torch.ones(20))
    assert first[-1] < 0.01 and last[0] < 0.01
    torch.testing.assert_close(first[30:] + last[:20], torch.ones(20))  # sine and cosine squared


def test_no_tile_is_larger_than_asked():
    asked = []

    def network(tile):
        asked.append(tile.shape[-2:])
        return tile

    restore_in_tiles(network, torch.rand(1, 3, 333, 999), 128, 32)
    assert max(max(size) for size in asked) == 128 and len(asked) > 20
    asked.clear()
    restore_in_tiles(network, torch.rand(1, 3, 100, 128), 128, 32)
    assert asked == [(100, 128)]


def test_memory_says_how_large_a_tile_is():
    assert tile_px_for(1000, 4000, 8) == 496  # 500 squared times 4000 bytes, to a multiple of 8
    with pytest.raises(UserError, match="allow 263 or more"):
        tile_px_for(10, 4000, 8)
    with pytest.raises(UserError):
        tile_px_for(-1, 4000, 8)


def test_tiles_are_as_good_as_the_whole_image_and_show_no_seams():
    """With random weights, which are harder on tiles than such as restore."""
    torch.manual_seed(0)
    network = SadNet(width=8).eval()
    coarse = torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(1))
    clean = F.interpolate(coarse, (320, 384), mode="bicubic").clamp(0, 1)
    degraded = (clean + 0.05 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))).clamp(0, 1)
    with torch.inference_mode():
        whole = network(degraded).clamp(0, 1)
        tiled = restore_in_tiles(network, degraded, 200, OVERLAP_PX).clamp(0, 1)
    assert abs(psnr(tiled, clean) - psnr(whole, clean)).item() < 0.05
    # A seam would be a jump between neighbors that the whole image does not have.
    jumps = [((tiled - whole)[..., 1:, :] - (tiled - whole)[..., :-1, :]).abs().max(),
             ((tiled - whole)[..., 1:] - (tiled - whole)[..., :-1]).abs().max()]  # fmt: skip
    assert max(jumps) < 1 / 255
