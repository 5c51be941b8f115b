"""Synthetic anomalies: exact masks, visible harm, natural sizes, pure draws."""

from collections import Counter
from dataclasses import asdict, fields

import pytest
import torch
import torch.nn.functional as F

from pretrain.anomalies import FORMS, ON_OBJECT_SHARE, AnomalyTypes, add_anomaly, draw_types

NAMES = [field.name for field in fields(AnomalyTypes)]


def products(count: int, height_px: int = 64, width_px: int = 64) -> torch.Tensor:
    """Grained discs of different colors on a plain gray ground, float32 (count, 3, h, w)."""
    generator = torch.Generator().manual_seed(3)
    y, x = torch.linspace(-1, 1, height_px)[:, None], torch.linspace(-1, 1, width_px)
    disc = (y**2 + x**2 < 0.3).float()
    color = torch.rand((count, 3, 1, 1), generator=generator)
    grain = F.interpolate(torch.rand((count, 3, 16, 16), generator=generator) - 0.5, (height_px, width_px))
    return torch.lerp(torch.full_like(grain, 0.6), (color + 0.2 * grain).clamp(0, 1), disc)


def only(name: str) -> AnomalyTypes:
    return AnomalyTypes(**{other: float(other == name) for other in NAMES})


def change_inside(images: torch.Tensor, synthetic: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    return ((synthetic - images).abs().mean(dim=1) * masks).sum(dim=(1, 2)) / masks.sum(dim=(1, 2))


@pytest.mark.parametrize("extent_px", [(64, 64), (128, 128), (256, 256), (96, 160)])
def test_masks_are_exact_and_harm_is_seen(extent_px):
    images = products(24, *extent_px)
    synthetic, masks = add_anomaly(images, images.roll(5, dims=0), 0, 0, range(24))
    assert synthetic.dtype == torch.float32 and synthetic.shape == images.shape
    assert masks.dtype == torch.bool and masks.shape == (24, *extent_px)
    assert synthetic.min() >= 0 and synthetic.max() <= 1
    outside = ~masks[:, None].expand_as(images)
    assert torch.equal(synthetic[outside], images[outside])
    assert change_inside(images, synthetic, masks).min() > 0.014
    assert masks.any(dim=(1, 2)).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_type_is_seen_even_on_plain_images(name):
    images = torch.linspace(0, 1, 12)[:, None, None, None].expand(12, 3, 64, 64).contiguous()
    synthetic, masks = add_anomaly(images, images, 0, 0, range(12), strength=0.0, types=only(name))
    assert torch.equal(torch.where(masks[:, None], images, synthetic), images)
    assert change_inside(images, synthetic, masks).min() > 0.014
    # Where harm was allowed it happened: hardly a pixel inside is as it was.
    assert ((synthetic != images).any(dim=1) & masks).sum() > 0.8 * masks.sum()


@pytest.mark.parametrize("name", NAMES)
def test_areas_spread_over_the_range_of_their_type(name):
    images = products(96)
    _, masks = add_anomaly(images, images.roll(1, dims=0), 0, 0, range(96), types=only(name))
    smallest, largest = FORMS[name][0]
    area, pixel = masks.float().mean(dim=(1, 2)), 1 / 64**2
    assert area.min() >= smallest - 1e-6 and area.max() <= largest + 3 * pixel
    # Drawn on a logarithmic scale: the median is near the geometric mean.
    assert (area.median() / (smallest * largest) ** 0.5).log().abs() < 0.25 * torch.tensor(largest / smallest).log()
    assert area.max() / area.min() > (largest / smallest) ** 0.75


def test_strength_goes_from_subtle_to_obvious():
    images = products(96)
    changes = [
        change_inside(images, *add_anomaly(images, images.roll(1, dims=0), 0, 0, range(96), strength=strength)).mean()
        for strength in (0.0, 0.5, 1.0)
    ]
    assert changes[0] * 1.2 < changes[1] and changes[1] * 1.2 < changes[2]


def test_what_is_synthetic_is_a_pure_function_of_image_and_position():
    images = products(40)
    sources = images.roll(7, dims=0)
    before = torch.get_rng_state()
    synthetic, masks = add_anomaly(images, sources, 1, 2, range(40))
    assert torch.equal(before, torch.get_rng_state())
    again, again_masks = add_anomaly(images, sources, 1, 2, range(40))
    assert torch.equal(synthetic, again) and torch.equal(masks, again_masks)
    for index in (0, 17, 39):
        alone, alone_mask = add_anomaly(images[[index]], sources[[index]], 1, 2, [index])
        assert torch.allclose(alone[0], synthetic[index], atol=1e-5)
        assert (alone_mask[0] != masks[index]).sum() <= 2  # a pixel that lies on the level itself
    for seed, step in ((2, 2), (1, 3)):
        assert not torch.equal(masks, add_anomaly(images, sources, seed, step, range(40))[1])


def test_types_occur_as_often_as_stated():
    positions = range(5000)
    counts = Counter(draw_types(AnomalyTypes(), 0, 0, positions))
    total = sum(asdict(AnomalyTypes()).values())
    for name, weight in asdict(AnomalyTypes()).items():
        assert counts[name] / 5000 == pytest.approx(weight / total, abs=0.02)
    assert set(draw_types(only("dent"), 0, 0, positions)) == {"dent"}


def test_foreign_pieces_come_from_their_own_source():
    images = products(16)
    synthetic, masks = add_anomaly(
        images, torch.zeros_like(images), 0, 0, range(16), strength=1.0, types=only("foreign")
    )
    other, other_masks = add_anomaly(
        images, torch.ones_like(images), 0, 0, range(16), strength=1.0, types=only("foreign")
    )
    assert torch.equal(masks, other_masks)
    brighter = ((other - synthetic).mean(dim=1) * masks).sum(dim=(1, 2)) / masks.sum(dim=(1, 2))
    # Half are blended in, which takes away the mean of a plain source; the others show it.
    assert 4 <= int((brighter > 0.3).sum()) <= 12
    without, texture = (
        add_anomaly(images, None, 0, 0, range(16), types=only(name))[0] for name in ("foreign", "texture")
    )
    assert torch.equal(without, texture)


def test_defects_lie_on_the_product_mostly():
    images = products(200)
    _, masks = add_anomaly(images, images.roll(1, dims=0), 0, 0, range(200), types=only("hole"))
    y, x = torch.linspace(-1, 1, 64)[:, None], torch.linspace(-1, 1, 64)
    disc = y**2 + x**2 < 0.35
    on_product = ((masks & disc).sum(dim=(1, 2)) > 0.5 * masks.sum(dim=(1, 2))).float().mean()
    # The disc with its rim covers 0.27 of the image, so anywhere at all would give about that.
    assert ON_OBJECT_SHARE - 0.15 < on_product < 0.97


def test_wrong_images_are_refused():
    with pytest.raises(ValueError, match="float32"):
        add_anomaly(products(2).double(), None, 0, 0, range(2))
    with pytest.raises(ValueError, match="float32"):
        add_anomaly(products(3), None, 0, 0, range(2))
