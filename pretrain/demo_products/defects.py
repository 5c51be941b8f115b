"""Defects that any product can have: each changes color, relief or gloss of a surface before light falls on it."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from pretrain.demo_products.scene import SIZE_PX, Color, Field, Surface, grid, inside, noise

Span = tuple[float, float]  # a size when the defect is faint, and when it is plain


@dataclass(frozen=True)
class Harm:
    """What is wrong with one product: the kind ("good": nothing), how plainly (0 hardly seen, 1 obvious)."""

    kind: str
    severity: float
    rng: Generator

    def between(self, subtle: float, plain: float) -> float:
        """A size or strength according to the severity."""
        return subtle + (plain - subtle) * self.severity

    def spot(self, where: Field) -> tuple[float, float]:
        """A random point (x, y), in pixels from the middle, at which `where` is above a half."""
        chosen = self.rng.choice(np.flatnonzero(where > 0.5))
        return chosen % SIZE_PX - (SIZE_PX - 1) / 2, chosen // SIZE_PX - (SIZE_PX - 1) / 2


def stroke(points: np.ndarray, width_px: float) -> Field:
    """Coverage of a line through `points` (n, 2), in pixels from the middle; thinner than a pixel means fainter."""
    image = Image.new("L", (4 * SIZE_PX, 4 * SIZE_PX))
    drawn_px = max(1, round(4 * width_px))
    place = [tuple(point) for point in (points + SIZE_PX / 2) * 4]
    ImageDraw.Draw(image).line(place, fill=255, width=drawn_px, joint="curve")
    return np.asarray(image.reduce(4), np.float32) / 255 * min(1.0, 4 * width_px / drawn_px)


def blob(rng: Generator, at: tuple[float, float], radius_px: float, rough: float = 0.25, soft_px: float = 1.5) -> Field:
    """Coverage of an irregular patch around `at`."""
    x, y = grid()
    dx, dy = x - at[0], y - at[1]
    turn, squeeze = rng.uniform(0, np.pi), rng.uniform(0.65, 1)
    dx, dy = np.cos(turn) * dx + np.sin(turn) * dy, (np.cos(turn) * dy - np.sin(turn) * dx) / squeeze
    angle = np.arctan2(dy, dx)
    outline = np.ones_like(angle)
    for lobes in range(2, 7):
        outline += rough / lobes * rng.normal() * np.cos(lobes * angle + rng.uniform(0, 2 * np.pi))
    return inside(np.hypot(dx, dy) - radius_px * np.maximum(outline, 0.2), soft_px).astype(np.float32)


def bump(at: tuple[float, float], radius_px: float) -> Field:
    """1 at `at`, falling smoothly to exactly 0 at `radius_px`."""
    x, y = grid()
    near = np.clip(1 - ((x - at[0]) ** 2 + (y - at[1]) ** 2) / radius_px**2, 0, None)
    return near * near


def path(rng: Generator, at: tuple[float, float], length_px: float, bend: float, jag_px: float = 0.0) -> np.ndarray:
    """(n, 2) points of a curve through `at`: `bend` in radians over its length, `jag_px` of unevenness."""
    count = max(6, int(length_px / 4))
    headings = rng.uniform(0, 2 * np.pi) + np.linspace(-0.5, 0.5, count) * bend * rng.uniform(-1, 1)
    headings += np.cumsum(rng.normal(0, 0.25 * bend / np.sqrt(count), count))
    steps = np.stack([np.cos(headings), np.sin(headings)], axis=1) * length_px / count
    points = np.cumsum(steps, axis=0)
    points += np.array(at) - points[count // 2]
    return points + rng.normal(0, jag_px, points.shape)


def scratch(surface: Surface, harm: Harm, where: Field, length_px: float, bright: float) -> None:
    """A groove or a few beside each other, lighter than the surface (darker if `bright` is negative)."""
    at = harm.spot(where)
    points = path(harm.rng, at, harm.between(0.4, 1.0) * length_px, 0.5)
    width = harm.between(0.8, 2.2)
    for _ in range(1 + int(harm.rng.uniform(0, 1) + harm.severity * 2)):
        side = harm.rng.normal(0, 2.5, 2)
        line = stroke(points + side, width) * surface.cover * where
        surface.height -= line * harm.between(0.5, 1.6)
        surface.tint(1 + line * bright * harm.between(0.35, 1.2))
        surface.gloss *= 1 - 0.5 * line
        width *= harm.rng.uniform(0.4, 0.8)


def crack(surface: Surface, harm: Harm, where: Field, length_px: float, color: Color) -> None:
    """A jagged dark line that forks."""
    at = harm.spot(where)
    points = path(harm.rng, at, harm.between(0.4, 1.1) * length_px, 0.9, jag_px=1.3)
    width = harm.between(0.8, 2.6)
    lines = stroke(points, width)
    for _ in range(int(harm.rng.integers(0, 2 + round(2 * harm.severity)))):
        fork = points[harm.rng.integers(len(points))]
        lines = np.maximum(lines, stroke(path(harm.rng, tuple(fork), 0.4 * length_px, 0.9, 1.2), width * 0.6))
    lines = lines * surface.cover * where
    surface.height -= lines * harm.between(1, 3)
    surface.paint(lines * harm.between(0.45, 0.95), color)
    surface.gloss *= 1 - lines


def hole(surface: Surface, harm: Harm, where: Field, radius_px: Span, depth_px: float) -> None:
    """A pit with a dark floor and a lip around it."""
    at, radius = harm.spot(where), harm.between(*radius_px)
    pit = blob(harm.rng, at, radius, 0.3, soft_px=2.0) * surface.cover
    surface.height += bump(at, 2.2 * radius) * surface.cover * 0.25 * depth_px - pit * depth_px
    surface.tint(1 - pit * harm.between(0.5, 0.85))
    surface.gloss *= 1 - pit


def dent(surface: Surface, harm: Harm, where: Field, radius_px: Span, depth: float) -> None:
    """A smooth hollow, `depth` of its radius deep when plain."""
    at, radius = harm.spot(where), harm.between(*radius_px)
    surface.height -= bump(at, radius) * surface.cover * radius * depth * harm.between(0.35, 1)


def stain(surface: Surface, harm: Harm, where: Field, color: Color, radius_px: Span) -> None:
    """A patch of another color soaked into the surface, whose relief stays."""
    at, radius = harm.spot(where), harm.between(*radius_px)
    patch = blob(harm.rng, at, radius, 0.4, soft_px=harm.rng.uniform(2, 6)) * surface.cover
    patch = patch * np.clip(0.75 + 0.25 * noise(harm.rng, 1.0, 2, 32), 0.2, 1)
    shade = np.clip(np.array(color) + harm.rng.normal(0, 0.04, 3), 0, 1)
    surface.paint(patch * harm.between(0.22, 0.8), shade)


def dirt(surface: Surface, harm: Harm, where: Field, color: Color, radius_px: Span) -> None:
    """Something small that lies on the product, with crumbs around it."""
    at, radius = harm.spot(where), harm.between(*radius_px)
    lump = blob(harm.rng, at, radius, 0.5)
    for _ in range(int(harm.rng.integers(0, 4))):
        near = (at[0] + harm.rng.normal(0, 2 * radius), at[1] + harm.rng.normal(0, 2 * radius))
        lump = np.maximum(lump, blob(harm.rng, near, radius * harm.rng.uniform(0.2, 0.5), 0.5))
    lump = lump * surface.cover
    shade = np.clip(np.array(color) + harm.rng.normal(0, 0.05, 3), 0, 1)
    surface.height += lump * (1.5 + 0.5 * noise(harm.rng, 1.0, 2, 16)) * harm.between(0.6, 1.4)
    surface.paint(lump * harm.between(0.6, 0.95), shade)


def thread(surface: Surface, harm: Harm, where: Field, color: Color) -> None:
    """A fibre lying loosely on top."""
    at = harm.spot(where)
    points = path(harm.rng, at, harm.between(30, 130), 5.0)
    fibre = stroke(points, harm.between(0.9, 2.4)) * surface.cover
    surface.height += fibre * harm.between(0.8, 2)
    surface.gloss *= 1 - 0.8 * fibre
    surface.metal *= 1 - fibre
    shade = np.clip(np.array(color) + harm.rng.normal(0, 0.06, 3), 0, 1)
    surface.paint(fibre * harm.between(0.6, 0.95), shade)


def cut(surface: Surface, harm: Harm, where: Field, color: Color, length_px: float) -> None:
    """A slit that gapes in the middle and shows what is below."""
    at = harm.spot(where)
    points = path(harm.rng, at, harm.between(0.45, 1.0) * length_px, 0.6)
    gape = harm.between(1.2, 4.5)
    slit = stroke(points, 0.8)
    for share in (0.8, 0.55, 0.3):
        trim = int(len(points) * (1 - share) / 2)
        middle = points[trim : len(points) - trim]
        slit = np.maximum(slit, stroke(middle, gape * (1.1 - share)))
    lips = stroke(points, gape + 3) * surface.cover * where
    slit = slit * surface.cover * where
    surface.height += 0.8 * lips * harm.between(0.4, 1) - slit * harm.between(1.5, 4)
    surface.paint(slit * harm.between(0.6, 0.95), color)
    surface.gloss *= 1 - slit
