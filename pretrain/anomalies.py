"""Synthetic anomalies: images of good products, each damaged in one region, with the mask of the damage.

Hard negatives of the same image for SimCLR, training signal for heads, and validation where no real defect exists.
The types follow CutPaste (Li et al. 2021), DRAEM (Zavrtanik et al. 2021), NSA (Schlüter et al. 2022) and what real
products suffer. What is learned must carry over to defects that nobody drew, so color, texture, outline, size and
strength all vary. Every shape is where a field is lowest, cut at the level at which it covers the area drawn.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.random_numbers import uniforms
from pretrain.training.device import transferred

ON_OBJECT_SHARE = 0.8  # of the defects; the rest lies anywhere
GRID = 16  # positions along each side, at which the object is separated from its background
NOISE_GRIDS = (4, 8, 16, 32)
NOISE_COLUMNS = 2 * (sum(grid**2 for grid in NOISE_GRIDS) + 1)


@dataclass(frozen=True)
class AnomalyTypes:
    """How often each type of defect is drawn, relative to the others."""

    patch: float = 0.14  # a piece of the same image, moved
    scar: float = 0.08  # the same, long and thin
    foreign: float = 0.14  # a piece of another image; without one, a texture
    texture: float = 0.14  # noise in some color, in scattered shapes
    stain: float = 0.14  # another color over the same relief
    hole: float = 0.08  # a dark or pale pit with a lip
    scratch: float = 0.12  # a thin line, one flank lit
    dent: float = 0.08  # the surface pushed, twisted or pinched, and its shading
    erased: float = 0.08  # detail rubbed off


# Outlines: area as share of the image; aspect; roughness by size, bend by length; softness, 0 hard to 1 all slope.
FORMS = {
    "patch": ((0.001, 0.1), (1, 3), (0, 0.1), (0, 0), (0, 0.4)),
    "scar": ((0.001, 0.02), (5, 20), (0, 0.1), (0, 0.1), (0, 0.3)),
    "foreign": ((0.001, 0.1), (1, 3), (0.1, 1.2), (0, 0.2), (0, 0.8)),
    "texture": ((0.001, 0.1), (1, 4), (0.4, 2.5), (0, 0.2), (0, 0.6)),
    "stain": ((0.001, 0.1), (1, 3), (0.1, 1.2), (0, 0.3), (0.1, 1)),
    "hole": ((0.001, 0.03), (1, 2), (0.05, 0.6), (0, 0.2), (0, 0.3)),
    "scratch": ((0.001, 0.008), (20, 90), (0, 0.4), (0, 0.15), (0, 0.6)),
    "dent": ((0.005, 0.1), (1, 3), (0, 0.2), (0, 0), (0.3, 1)),
    "erased": ((0.004, 0.08), (1, 4), (0.1, 0.8), (0, 0.2), (0.1, 0.6)),
}


class _Site(NamedTuple):
    """Where defects lie; a row per image, ready to meet images (b, 3, h, w)."""

    mask: Tensor  # (b, 1, h, w) bool
    depth: Tensor  # (b, 1, h, w): 0 outside and at the edge, 1 in the middle
    edge: Tensor  # (b, 1, h, w): how much of the new content shows, 0 outside, 0.3 at the edge, 1 inside
    along: Tensor  # (b, 1, h, w): pixels from the middle, along the shape
    across: Tensor  # (b, 1, h, w): pixels from the shape's middle line
    noise: Tensor  # (b, 1, h, w): about a unit strong, not the one that made the outline rough
    angle: Tensor  # (b, 1, 1, 1): of the shape's length against the image's rows
    center: Tensor  # (b, 2): y, x in pixels
    elsewhere: Tensor  # (b, 2): another point, to copy from


def draw_types(types: AnomalyTypes, seed: int, step: int, positions: Sequence[int] | np.ndarray) -> list[str]:
    """The type of defect that `add_anomaly` gives the images at `positions`."""
    names, weights = zip(*asdict(types).items(), strict=True)
    bounds = np.cumsum(weights) / sum(weights)
    # Keys such as "kind" are a part of the stream: spelled otherwise, every seed would draw other anomalies.
    return [names[i] for i in np.searchsorted(bounds[:-1], uniforms(positions, 1, seed, step, "kind")[:, 0], "right")]


@torch.no_grad()
def add_anomaly(
    images: Tensor,
    sources: Tensor | None,
    seed: int,
    step: int,
    positions: Sequence[int] | np.ndarray,
    strength: float | tuple[float, float] = (0.1, 1.0),
    types: AnomalyTypes | None = None,
) -> tuple[Tensor, Tensor]:
    """Give every image one synthetic defect.

    images, sources float32 (b, 3, h, w) in [0, 1] -> images alike and masks bool (b, h, w). Outside its mask an
    image stays as it was, bit for bit. `sources[i]` is where a foreign piece for `images[i]` comes from. `strength`,
    or a range to draw it from, goes from 0, hardly seen, to 1, obvious. The anomaly depends only on the image,
    its source, seed, step and the image's position in the global batch.
    """
    if images.dtype != torch.float32 or images.ndim != 4 or images.shape[1] != 3 or len(images) != len(positions):
        raise ValueError(f"need float32 ({len(positions)}, 3, h, w), got {images.dtype} {tuple(images.shape)}")
    synthetic, masks = images.clone(), torch.zeros_like(images[:, 0], dtype=torch.bool)
    # On a CPU a few images at a time, so that their fields stay in its cache: up to twice as fast.
    at_once = max(8, 2**19 // images[0, 0].numel()) if images.device.type == "cpu" else len(images)
    with torch.autocast(images.device.type, enabled=False):
        for start in range(0, len(images), at_once):
            part = slice(start, start + at_once)
            origins, own = None if sources is None else sources[part], np.asarray(positions)[part]
            synthetic[part], masks[part] = _synthetic(
                images[part], origins, (seed, step), own, strength, types or AnomalyTypes()
            )
    return synthetic, masks


def _synthetic(images, sources, key, positions, strength, types) -> tuple[Tensor, Tensor]:
    stand_in = "texture" if sources is None else "foreign"
    names = [stand_in if name == "foreign" else name for name in draw_types(types, *key, positions)]
    chance = transferred(torch.from_numpy(uniforms(positions, 32, *key, "defect")), images.device)
    lowest, highest = strength if isinstance(strength, tuple) else (strength, strength)
    strengths = _between(chance[:, 0], lowest, highest)[:, None, None, None]
    site = _sites(images, names, chance[:, 1:16], _noise(uniforms(positions, NOISE_COLUMNS, *key, "noise"), images))
    content = torch.empty_like(images)
    for anomaly_type in set(names):
        rows = torch.tensor([row for row, name in enumerate(names) if name == anomaly_type])
        rows = transferred(rows, images.device)
        origins = sources if anomaly_type == "foreign" else images
        own_site, own_chance = _Site(*(field[rows] for field in site)), chance[rows, 16:, None, None, None]
        content[rows] = _PAINTERS[anomaly_type](images[rows], origins[rows], own_site, own_chance, strengths[rows])
    blended = torch.lerp(images, content, _between(strengths, 0.5, 1.0) * site.edge).clamp_(0, 1)
    blended = torch.where(site.mask, blended, images)  # bit for bit: lerp by 0 may round
    return _made_visible(images, blended, site, 0.015 + 0.05 * strengths), site.mask[:, 0]


def _between(chance: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    return low + (high - low) * chance


def _sites(images: Tensor, names: list[str], chance: Tensor, noise: Tensor) -> _Site:
    """chance (b, 15), noise (b, 2, h, w)."""
    extent_px = transferred(torch.tensor(images.shape[2:]), images.device)
    forms = transferred(torch.tensor([FORMS[name] for name in names]), images.device)  # (b, 5, 2)
    forms[:, 0] = forms[:, 0].log()  # small defects are the common ones
    drawn = _between(chance[:, :5], forms[:, :, 0], forms[:, :, 1])[:, :, None, None, None]
    area, aspect, roughness, bend, softness = drawn.unbind(1)  # each (b, 1, 1, 1)
    size_px = (area.exp() * extent_px.prod()).sqrt() / 2
    interest = _interest(images)
    center, elsewhere = (_pick(interest, part) * extent_px for part in (chance[:, 5:9], chance[:, 9:13]))
    y = torch.arange(images.shape[2], device=images.device)[:, None] - center[:, 0, None, None, None]
    x = torch.arange(images.shape[3], device=images.device) - center[:, 1, None, None, None]
    angle, phase = (2 * math.pi * chance[:, 13:15, None, None, None]).unbind(1)
    along = torch.cos(angle) * x + torch.sin(angle) * y  # (b, 1, h, w)
    across = torch.cos(angle) * y - torch.sin(angle) * x
    length_px = size_px * aspect.sqrt()
    across = across - bend * length_px * (torch.sin(math.pi / length_px * along + phase) - torch.sin(phase))
    flat, steep = (along / aspect.sqrt()).abs(), (across * aspect.sqrt()).abs()
    angular = transferred(torch.tensor([name in ("patch", "scar") for name in names]), images.device)
    field = torch.where(angular[:, None, None, None], torch.maximum(flat, steep), torch.hypot(flat, steep))
    # What happens to a product ends where the product does.
    row, column = (center / extent_px * GRID).long().clamp_(0, GRID - 1).unbind(1)
    here = interest[torch.arange(len(images), device=images.device), row, column][:, None, None]
    away = 1 - (interest / here).sqrt().clamp_(max=1)
    field = field + size_px * (roughness * noise[:, :1] + _enlarged(away[:, None], images.shape[2:]))
    level = _level(field, area.exp())
    depth = ((level - field) / (level - field.amin(dim=(2, 3), keepdim=True))).clamp_(0, 1)
    edge = (0.3 + 0.7 * depth / softness.clamp(min=1e-3)).clamp_(max=1) * (field < level)
    return _Site(field < level, depth, edge, along, across, noise[:, 1:], angle, center, elsewhere)


def _level(field: Tensor, area: Tensor) -> Tensor:
    """The level (b, 1, 1, 1) below which `field` lies on a share `area` of the image; by bisection."""
    low, high = field.amin(dim=(2, 3), keepdim=True), field.amax(dim=(2, 3), keepdim=True)
    for _ in range(16):
        middle = (low + high) / 2
        enough = (field < middle).sum(dim=(2, 3), keepdim=True) >= area * field[0].numel()
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return high


def _interest(images: Tensor) -> Tensor:
    """How much each position looks like the product, (b, GRID, GRID): unlike the image's border, or not plain."""
    means = F.adaptive_avg_pool2d(images, GRID)
    spread = (F.adaptive_avg_pool2d(images.square(), GRID) - means.square()).clamp_(min=0).sqrt()
    border = torch.cat((means[:, :, 0], means[:, :, -1], means[:, :, :, 0], means[:, :, :, -1]), dim=2)
    difference = (means - border.mean(dim=2)[:, :, None, None]).abs()
    return (difference + 2 * spread).mean(dim=1).square() + 1e-6


def _pick(interest: Tensor, chance: Tensor) -> Tensor:
    """A point (b, 2), y and x as shares, at a position drawn by its interest, or anywhere. chance (b, 4)."""
    total = _running_sum(torch.where(chance[:, 3:] > ON_OBJECT_SHARE, 1.0, interest.flatten(1)))
    index = torch.searchsorted(total, chance[:, :1] * total[:, -1:]).clamp_(max=GRID**2 - 1)
    return (torch.cat((index // GRID, index % GRID), dim=1) + chance[:, 1:3].clamp(max=0.999)) / GRID


def _running_sum(values: Tensor) -> Tensor:
    """Of each row (b, n). torch's cumsum has no form on a GPU that gives the same bits every time."""
    if values.device.type == "cpu":
        return values.cumsum(dim=1)
    return values @ torch.ones(values.shape[1], values.shape[1], device=values.device).triu()


def _noise(chance: np.ndarray, images: Tensor) -> Tensor:
    """Two fields of noise (b, 2, h, w), about a unit strong: Perlin's octaves, with values in place of gradients."""
    chance = transferred(torch.from_numpy(chance), images.device).view(len(images), 2, -1)
    *lattices, fineness = chance.split([grid**2 for grid in NOISE_GRIDS] + [1], dim=2)
    persistence, field, power = _between(fineness[..., None], 0.3, 1.0), 0.0, 0.0
    for octave, (grid, lattice) in enumerate(zip(NOISE_GRIDS, lattices, strict=True)):
        weight = persistence**octave
        field = field + _enlarged(weight * (lattice.unflatten(2, (grid, grid)) - 0.5), images.shape[2:])
        power = power + (0.2 * weight) ** 2
    return field / power.sqrt()


def _enlarged(lattice: Tensor, extent_px: Sequence[int]) -> Tensor:
    """Bicubic interpolation (b, c, n, n) -> (b, c, h, w), as products of matrices: ten times faster than torch's."""
    unit = torch.eye(lattice.shape[-1], device=lattice.device)[None, None]
    rows, columns = (F.interpolate(unit, (px, len(unit[0, 0])), mode="bicubic")[0, 0] for px in extent_px)
    return rows @ lattice @ columns.T


# The painters. chance (b, 16, 1, 1, 1) -> content (b, 3, h, w), of which only what lies inside the mask is used.
def _copied(images: Tensor, origins: Tensor, site: _Site, chance: Tensor, strengths: Tensor) -> Tensor:
    """A piece of `origins`, turned, scaled and tinted; in half of them blended in by taking on the mean it covers."""
    scale, mirrored = _between(chance[:, 0], 0.6, 1.4), torch.where(chance[:, 1] < 0.5, -1, 1)
    piece = _sampled(origins, site.elsewhere, mirrored * scale * site.across, scale * site.along)
    piece = piece * (1 + 0.4 * strengths * (chance[:, 2:5, 0, 0] - 0.5)[..., None])
    shift = _mean_inside(images, site.mask) - _mean_inside(piece, site.mask)
    return piece + shift * (chance[:, 5] < 0.5)


def _sampled(images: Tensor, center: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """The images at y and x (b, 1, h, w), pixels from `center` (b, 2); beyond their border they are mirrored."""
    points = torch.stack((x[:, 0] + center[:, 1, None, None], y[:, 0] + center[:, 0, None, None]), dim=-1)
    grid = (2 * points + 1) / transferred(torch.tensor(images.shape[:1:-1]), images.device) - 1
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _mean_inside(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum(dim=(2, 3), keepdim=True) / mask.sum(dim=(2, 3), keepdim=True)


def _color(images: Tensor, site: _Site, chance: Tensor) -> Tensor:
    """(b, 3, 1, 1): a third are any color, the others like what they cover, but lighter or darker."""
    free, gray = chance[:, :3, 0], chance[:, 3]
    alike = (_mean_inside(images, site.mask) + 0.15 * (free - 0.5)) * (0.3 + 0.4 * gray) + 0.35 * (gray > 0.5)
    return torch.where(chance[:, 4] < 0.35, free, alike)


def _texture(images: Tensor, origins: Tensor, site: _Site, chance: Tensor, strengths: Tensor) -> Tensor:
    """Noise about a color, not in all channels alike, smooth or in steps."""
    noise = torch.where(chance[:, 5] < 0.3, torch.tanh(6 * site.noise), site.noise)
    return _color(images, site, chance) + (0.04 + 0.2 * chance[:, 6:9, 0]) * noise


def _stain(images: Tensor, origins: Tensor, site: _Site, chance: Tensor, strengths: Tensor) -> Tensor:
    """A color that soaks in, or a film on top; the relief still shows."""
    color = _color(images, site, chance)
    cover = _between(chance[:, 5] * strengths, 0.3, 0.9) * (1 + 0.2 * site.noise)
    return torch.where(chance[:, 6] < 0.4, images * (0.25 + 0.75 * color), images + cover * (color - images))


def _hole(images: Tensor, origins: Tensor, site: _Site, chance: Tensor, strengths: Tensor) -> Tensor:
    """A floor darker or paler than the surface, and a lip lit from one side."""
    light = torch.cos(torch.atan2(site.across, site.along) + 2 * math.pi * chance[:, 5])
    covered = _mean_inside(images, site.mask)
    floor = torch.where(chance[:, 6] < 0.75, 0.35 * covered * chance[:, 7], 0.5 + 0.5 * covered)
    floor = floor * (1 + 0.15 * site.noise) + 0.05 * light
    return torch.lerp(floor, images + 0.35 * light, (1 - site.depth / 0.35).clamp_(min=0))


def _scratch(images: Tensor, origins: Tensor, site: _Site, chance: Tensor, strengths: Tensor) -> Tensor:
    """A groove, pale or dark, uneven, one flank lighter than the other."""
    contrast = _between(strengths, 0.15, 0.6) * (1 + 0.3 * site.noise).clamp_(min=0.2)
    side = torch.where(chance[:, 0] < 0.6, 1.0, -1.0) + 0.8 * (chance[:, 1] - 0.5) * torch.tanh(site.across)
    return images + contrast * side * (1 + 0.3 * (chance[:, 2:5, 0] - 0.5))


def _dent(images: Tensor, origins: Tensor, site: _Site, chance: Tensor, strengths: Tensor) -> Tensor:
    """The surface pushed, twisted or pinched, most in the middle, and shaded like a slope under light."""
    bump = site.depth.square() * (3 - 2 * site.depth)
    size_px = site.mask.sum(dim=(2, 3), keepdim=True).sqrt()
    push = torch.where(chance[:, 0] < 0.4, _between(strengths, 0.15, 0.5) * size_px, 0.0) * bump
    twist = torch.where(chance[:, 0] > 0.7, 5 * (chance[:, 1] - 0.5) * strengths, 0.0) * bump
    zoom = 1 + 1.2 * (chance[:, 2] - 0.5) * bump
    sine, cosine = torch.sin(site.angle + twist) * zoom, torch.cos(site.angle + twist) * zoom
    along, across = site.along - push, site.across
    y, x = sine * along + cosine * across, cosine * along - sine * across
    return _sampled(images, site.center, y, x) * (1 + 1.2 * strengths * bump * site.along / size_px)


def _erased(images: Tensor, origins: Tensor, site: _Site, chance: Tensor, strengths: Tensor) -> Tensor:
    """What is left without detail, a little lighter or darker."""
    return (
        _enlarged(F.adaptive_avg_pool2d(images, GRID // 2), images.shape[2:])
        + 0.25 * (chance[:, 0] - 0.5)
        + 0.02 * site.noise
    )


_PAINTERS = {"patch": _copied, "scar": _copied, "foreign": _copied, "texture": _texture, "stain": _stain}
_PAINTERS |= {"hole": _hole, "scratch": _scratch, "dent": _dent, "erased": _erased}


def _made_visible(images: Tensor, synthetic: Tensor, site: _Site, least: Tensor) -> Tensor:
    """Raise what differs from what it covers by less than `least`, up to eightfold; if that does not do, shade it."""
    seen = _mean_inside((synthetic - images).abs().mean(dim=1, keepdim=True), site.mask)
    is_faint = (seen < least)[:, 0, 0, 0]
    # How many are faint a GPU would have to be asked: there all are raised, and those that need not be are left out.
    is_cpu = images.device.type == "cpu"
    faint = torch.nonzero(is_faint)[:, 0] if is_cpu else torch.arange(len(images), device=images.device)
    images, mask, depth, least = images[faint], site.mask[faint], site.depth[faint] + 0.1, least[faint]
    gain = (least / seen[faint].clamp(min=1e-6)).clamp_(1, 8)
    raised = (images + gain * (synthetic[faint] - images)).clamp_(0, 1)
    direction = torch.where(_mean_inside(images, mask).mean(dim=1, keepdim=True) < 0.5, 1.0, -1.0)
    shade = direction * 1.3 * least * depth / _mean_inside(depth, mask)
    shaded = torch.where(mask, (images + shade).clamp_(0, 1), images)
    seen = _mean_inside((raised - images).abs().mean(dim=1, keepdim=True), mask)
    visible = torch.where(seen < least, shaded, raised)
    synthetic[faint] = torch.where(is_faint[faint, None, None, None], visible, synthetic[faint])
    return synthetic
