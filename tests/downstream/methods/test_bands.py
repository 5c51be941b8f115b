"""What is taken of patches that come in bands is what is taken of all at once."""

import pytest
import torch

from downstream.methods import bands as bands_module
from downstream.methods.bands import Pooled, heard, sampled
from downstream.methods.region import Region
from embeddings.patches import Band, joined

GRID = (5, 4)
VECTORS = torch.rand(2, *GRID, 3, generator=torch.Generator().manual_seed(0))
ROI = torch.zeros(10, 8, dtype=torch.bool)
ROI[2:8, 4:] = True  # the last two patches of three rows


def in_bands(vectors: torch.Tensor = VECTORS) -> list[Band]:
    return [Band(vectors[..., top : top + 2, :, :], top, GRID) for top in (0, 2, 4)]


@pytest.mark.parametrize("roi", [None, ROI])
def test_the_mean_is_that_of_the_patches_that_count(roi):
    counted = VECTORS.flatten(1, 2) if roi is None else VECTORS[:, 1:4, 2:].flatten(1, 2)
    seen = Pooled(Region(roi), in_bands())
    torch.testing.assert_close(joined(seen), VECTORS)
    torch.testing.assert_close(seen.mean(), counted.mean(1))
    views = torch.stack([VECTORS, 1 - VECTORS], dim=1)  # of which the first counts
    several = Pooled(Region(roi), in_bands(views))
    assert len(list(several)) == 3
    torch.testing.assert_close(several.mean(), counted.mean(1))


def test_a_sample_has_every_step_th_patch_wherever_bands_begin(monkeypatch):
    assert torch.equal(sampled(Region(None), in_bands()), VECTORS.flatten(1, 2))
    monkeypatch.setattr(bands_module, "MAX_PATCHES_EACH", 8)  # of 20, so one in three
    assert torch.equal(sampled(Region(None), in_bands()), VECTORS.flatten(1, 2)[:, ::3])


def test_each_band_is_looked_at_before_it_is_handed_on():
    tops: list[torch.Tensor] = []
    for number, band in enumerate(heard(in_bands(), lambda band: torch.tensor(band.top), tops)):
        assert len(tops) == number + 1 and int(tops[-1]) == band.top
