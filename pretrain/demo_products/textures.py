"""The demo set's textures, each filling the image: carpet, grid, leather, tile, wood.

Each takes the scene's random stream and a `Harm`, and never draws from the scene's stream because of the harm, so that
the same scene without the harm is the same product, whole.
"""

import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter

from pretrain.demo_products import defects
from pretrain.demo_products.defects import Harm
from pretrain.demo_products.scene import Surface, cells, inside, lattice, noise, posed, wander


def whole(color: tuple[float, float, float], shine: float) -> Surface:
    """A surface of one color that fills the image and throws no shadow."""
    surface = Surface(color, shine, lift_px=0)
    surface.cover[:] = 1
    return surface


def carpet(rng: Generator, harm: Harm) -> Surface:
    """A gray flat-woven carpet: two sets of yarns going over and under each other."""
    surface = whole((0.55, 0.56, 0.57), shine=8)
    u, v = posed(rng, 4, 6, 0.05)
    u, v = u + 1.1 * noise(rng, 1.6, 8), v + 1.1 * noise(rng, 1.6, 8)
    period = 9.0
    over = np.sin(np.pi * u / period) * np.sin(np.pi * v / period)
    warp = np.abs(np.cos(np.pi * u / period)) * (0.55 + 0.6 * over)
    weft = np.abs(np.cos(np.pi * v / period)) * (0.55 - 0.6 * over)
    fluff = noise(rng, 0.3, 1.5, 24)
    surface.height += 3.2 * np.maximum(warp, weft) + 0.45 * fluff
    yarn_u, yarn_v = wander(rng, np.round(u / period), 1.5), wander(rng, np.round(v / period), 1.5)
    tone = np.where(warp > weft, 0.07 * yarn_u, 0.07 * yarn_v - 0.22)
    surface.tint(1 + tone + 0.13 * fluff + 0.05 * noise(rng, 1.2, 20))
    anywhere = surface.cover
    if harm.kind == "color":
        colors = [(0.45, 0.2, 0.18), (0.22, 0.3, 0.42), (0.66, 0.6, 0.45), (0.3, 0.3, 0.3)]
        defects.stain(surface, harm, anywhere, colors[harm.rng.integers(4)], (8, 26))
    elif harm.kind == "cut":
        defects.cut(surface, harm, anywhere, (0.12, 0.11, 0.1), 70)
    elif harm.kind == "hole":
        defects.hole(surface, harm, anywhere, (4, 12), 5)
    elif harm.kind == "thread":
        defects.thread(surface, harm, anywhere, (0.72, 0.7, 0.66))
    return surface


def wire_grid(rng: Generator, harm: Harm) -> Surface:
    """A woven wire mesh over a dark ground, its openings diamonds."""
    surface = Surface((0.20, 0.20, 0.21) + 0.012 * noise(rng, 1.2)[..., None], shine=40, lift_px=4)
    surface.albedo[:] = np.square(0.80)
    u, v = posed(rng, 2.5, 10, 0.03)
    u, v = u + 0.8 * noise(rng, 1.8, 24), v + 0.8 * noise(rng, 1.8, 24)
    where = np.ones_like(u)
    if harm.kind == "bent":
        at, heading = harm.spot(where), harm.rng.uniform(0, 2 * np.pi)
        push = defects.bump(at, harm.rng.uniform(26, 44)) * harm.between(6, 19)
        u, v = u + push * np.cos(heading), v + push * np.sin(heading)
    pitch, width = 30.0, 6.0
    p, q = (0.86 * u + 0.62 * v) / pitch, (-0.86 * u + 0.62 * v) / pitch
    rows, columns = np.round(p), np.round(q)
    off_p, off_q = np.abs(p - rows) * pitch, np.abs(q - columns) * pitch
    crossing = np.cos(np.pi * p) * np.cos(np.pi * q)
    wire_p, wire_q = inside(off_p - width / 2), inside(off_q - width / 2)
    rise_p = np.sqrt(np.clip((width / 2) ** 2 - off_p**2, 0, None)) + 1.6 * crossing
    rise_q = np.sqrt(np.clip((width / 2) ** 2 - off_q**2, 0, None)) - 1.6 * crossing
    rough = noise(rng, 0.6, 1.5, 32)
    surface.cover = np.maximum(wire_p, wire_q).astype(np.float32)
    if harm.kind == "broken":
        at = harm.spot(surface.cover)
        gap = defects.blob(harm.rng, at, harm.between(7, 23), 0.5)
        surface.cover *= 1 - gap
    surface.height = (np.maximum(wire_p * (4 + rise_p), wire_q * (4 + rise_q)) + 0.22 * rough).astype(np.float32)
    surface.tint(1 + 0.10 * rough + 0.08 * noise(rng, 1.3, 24))
    surface.metal[:], surface.gloss[:] = 0.7, 0.25
    if harm.kind == "glue":
        film = defects.blob(harm.rng, harm.spot(where), harm.between(8, 22), 0.35, soft_px=3)
        surface.cover = np.maximum(surface.cover, film * harm.between(0.3, 0.8))
        surface.height += film * (4 - surface.height) * 0.6
        surface.paint(film * 0.8, (0.62, 0.6, 0.5))
        surface.metal *= 1 - film
    elif harm.kind == "contamination":
        catch_lint(surface, harm)
    return surface


def catch_lint(surface: Surface, harm: Harm) -> None:
    """A fibre caught in the mesh."""
    points = defects.path(harm.rng, harm.spot(surface.cover), harm.between(30, 110), 6.0)
    fibre = defects.stroke(points, harm.between(1.4, 4.2))
    surface.height += fibre * (8 - surface.height)
    surface.metal *= 1 - fibre
    surface.gloss *= 1 - fibre
    shade = [(0.55, 0.45, 0.3), (0.7, 0.7, 0.68), (0.5, 0.2, 0.2)][harm.rng.integers(3)]
    surface.paint(fibre, shade)
    surface.cover = np.maximum(surface.cover, fibre * harm.between(0.7, 1))


def leather(rng: Generator, harm: Harm) -> Surface:
    """Brown leather: pebbles between a net of creases, fine pores, a dull shine."""
    surface = whole((0.52, 0.33, 0.22), shine=14)
    u, v = posed(rng, 180, 40, 0.12)
    swirl = noise(rng, 1.6, 16)
    wall, tone = cells(rng, u + 2.5 * swirl + 0.7 * noise(rng, 1.0, 4, 20), v + 2.5 * noise(rng, 1.6, 16), 8.5)
    creases = np.exp(-np.square(wall / 1.5))
    pores = np.clip(noise(rng, 0.0, 2.5, 4) - 2.1, 0, 1)
    relief = noise(rng, 1.4, 8, 60)
    surface.height += 0.7 * relief - 1.1 * creases - 0.8 * pores + 0.5 * np.sqrt(wall) + 0.25 * tone
    surface.tint(1 - 0.34 * creases + 0.05 * tone + 0.06 * swirl + 0.04 * noise(rng, 0.2, 1.5, 16))
    surface.gloss += np.clip(0.20 - 0.15 * creases, 0, 1)
    anywhere = surface.cover
    if harm.kind == "color":
        colors = [(0.22, 0.12, 0.1), (0.62, 0.45, 0.3), (0.2, 0.22, 0.33), (0.5, 0.14, 0.1)]
        defects.stain(surface, harm, anywhere, colors[harm.rng.integers(4)], (8, 24))
    elif harm.kind == "cut":
        defects.cut(surface, harm, anywhere, (0.74, 0.56, 0.40), 75)
    elif harm.kind == "fold":
        points = defects.path(harm.rng, harm.spot(anywhere), harm.between(35, 130), 0.6)
        ridge, groove = defects.stroke(points, harm.between(5, 10)), defects.stroke(points + 3, harm.between(2, 4))
        crease = ridge * harm.between(1.2, 4.5) - groove * harm.between(1.8, 6.5)
        surface.height += gaussian_filter(crease, 1.6, truncate=3)
    elif harm.kind == "poke":
        defects.hole(surface, harm, anywhere, (2, 5.5), 4)
    return surface


def tile(rng: Generator, harm: Harm) -> Surface:
    """A polished stone tile, light gray with dark inclusions."""
    surface = whole((0.66, 0.65, 0.62), shine=60)
    clouds, grain = noise(rng, 1.2, 6, 64), noise(rng, 0.3, 1.5, 12)
    blots = np.clip((noise(rng, 0.5, 5, 22) + 0.5 * noise(rng, 0.8, 10, 50) + 0.4 * grain - 0.85) * 2.2, 0, 1)
    surface.paint(blots * 0.85, (0.27, 0.27, 0.28))
    specks = np.clip((noise(rng, 0.0, 3, 7) - 1.5) * 2, 0, 1)
    surface.paint(specks * 0.6, (0.82, 0.8, 0.76))
    surface.tint(1 + 0.09 * clouds + 0.10 * grain)
    surface.height += 0.10 * grain - 0.25 * blots + 0.3 * noise(rng, 1.6, 30)
    surface.gloss[:] = 0.10
    anywhere = surface.cover
    if harm.kind == "crack":
        defects.crack(surface, harm, anywhere, 150, (0.2, 0.19, 0.18))
    elif harm.kind == "glue_strip":
        points = defects.path(harm.rng, harm.spot(anywhere), harm.between(40, 150), 0.8)
        strip = defects.stroke(points, harm.between(6, 15))
        surface.height += strip * 1.2
        surface.gloss += strip * harm.between(0.1, 0.3)
        surface.paint(strip * harm.between(0.25, 0.8), (0.78, 0.74, 0.6))
    elif harm.kind == "oil":
        defects.stain(surface, harm, anywhere, (0.42, 0.36, 0.2), (14, 42))
    elif harm.kind == "rough":
        patch = defects.blob(harm.rng, harm.spot(anywhere), harm.between(12, 34), 0.4, soft_px=6)
        surface.height += patch * (noise(harm.rng, 0.5, 3, 14) * harm.between(0.6, 2.4) - 1)
        surface.gloss *= 1 - patch
        surface.tint(1 - patch * harm.between(0.05, 0.3))
    return surface


def wood(rng: Generator, harm: Harm) -> Surface:
    """A planed plank, its grain running down the image."""
    surface = whole((0.66, 0.47, 0.31), shine=18)
    u, v = posed(rng, 3, 30, 0.1)
    bent = u + 5 * lattice(rng, u, v, 60, 170) + 2.2 * lattice(rng, u, v, 22, 80) + 0.00035 * rng.normal() * v * v
    rings = np.mod((bent + 14 * wander(rng, bent, 40)) / rng.uniform(15, 22), 1)
    late = rings**2.2 * np.clip((1 - rings) * 8, 0, 1)  # dark late wood ends abruptly at the next ring
    fibre = lattice(rng, bent, v, 1.6, 45)
    vessels = np.clip(lattice(rng, bent, v, 1.8, 14) - 1.9, 0, 1.2)
    surface.paint(0.75 * late, (0.45, 0.27, 0.15))
    surface.tint(1 + 0.09 * fibre - 0.42 * vessels + 0.06 * wander(rng, bent, 50) + 0.03 * noise(rng, 0.6, 1.5, 32))
    surface.height += 0.25 * fibre - 0.8 * vessels - 0.35 * late
    surface.gloss[:] = 0.05
    anywhere = surface.cover
    if harm.kind == "color":
        colors = [(0.3, 0.16, 0.1), (0.2, 0.2, 0.24), (0.8, 0.68, 0.5), (0.5, 0.18, 0.12)]
        defects.stain(surface, harm, anywhere, colors[harm.rng.integers(4)], (7, 24))
    elif harm.kind == "hole":
        defects.hole(surface, harm, anywhere, (2.5, 9), 5)
    elif harm.kind == "liquid":
        drop = defects.blob(harm.rng, harm.spot(anywhere), harm.between(10, 32), 0.35, soft_px=2)
        surface.tint(1 - drop * harm.between(0.12, 0.5))
        surface.gloss += drop * harm.between(0.02, 0.09)
        surface.height += drop * 0.8
    elif harm.kind == "scratch":
        defects.scratch(surface, harm, anywhere, 110, 0.6)
    return surface
