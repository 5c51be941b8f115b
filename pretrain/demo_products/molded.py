"""The demo set's organic and molded products: bottle, capsule, hazelnut, pill, toothbrush.

The rules are those of textures.py: the scene's random stream is drawn from alike with and without the harm.
"""

from functools import lru_cache

import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter1d

from pretrain.demo_products import defects
from pretrain.demo_products.defects import Harm
from pretrain.demo_products.scene import (
    Field,
    Surface,
    around,
    box,
    cells,
    dome,
    grid,
    inside,
    lattice,
    noise,
    posed,
    print_text,
)


def ground(rng: Generator, color: tuple[float, float, float], texture: float = 0.006) -> Field:
    """A plain table top: (256, 256, 3), slightly blotched, with a few specks of dust."""
    dust = np.clip(noise(rng, 0.0, 2.5, 4) - 3.4, 0, 0.6)
    return np.array(color, np.float32) + (texture * noise(rng, 1.0, 2) - 0.12 * dust)[..., None]


@lru_cache(maxsize=1)
def rim_profile() -> tuple[np.ndarray, np.ndarray]:
    """Radius and height of a bottle's mouth in pixels, rounded: a kink would break up its highlights."""
    radius = np.arange(0, 110, 0.25)
    height = np.interp(radius, [0, 50, 58, 66, 74, 80, 86, 94, 102], [0, 2, 7, 17, 20, 17, 11, 8, 0])
    return radius, gaussian_filter1d(height, 8)


def bottle(rng: Generator, harm: Harm) -> Surface:
    """A brown glass bottle seen from above: rim, neck and the dark inside."""
    surface = Surface(ground(rng, (0.93, 0.93, 0.92)), shine=90, lift_px=7)
    u, v = posed(rng, 180, 4, 0.02)
    oval, angle = 1 + rng.normal(0, 0.008), np.arctan2(v, u)
    radius = np.hypot(u * oval, v / oval) + 0.25 * around(rng, angle, 30)
    surface.cover = inside(radius - 102)
    rim = np.interp(radius, *rim_profile()).astype(np.float32)
    surface.height = rim + 0.15 * noise(rng, 1.8, 10)
    tone = np.interp(radius, [0, 36, 52, 60, 72, 84, 96, 102], [0.04, 0.06, 0.3, 0.62, 0.7, 0.42, 0.3, 0.5])
    # the light that glass catches is never even
    glow = 0.16 * around(rng, angle, 40) + 0.07 * around(rng, angle, 9) + 0.04 * noise(rng, 1.4, 6)
    warm = (tone * (1 + glow))[..., None] * np.array([0.86, 0.52, 0.24])
    surface.paint(np.ones_like(radius), np.clip(warm + 0.02, 0, 1))
    surface.gloss += inside(np.abs(radius - 74) - 25, 6) * 1.3
    inner, outer = inside(radius - 46), inside(np.abs(radius - 82) - 18)
    if harm.kind.startswith("broken"):
        large = harm.kind == "broken_large"
        x, y = harm.spot(inside(np.abs(radius - (88 if large else 80)) - 6))
        size = harm.between(17, 38) if large else harm.between(5, 12)
        chip = defects.blob(harm.rng, (x, y), size, 0.7) * surface.cover
        wall, tone = cells(harm.rng, u, v, 15 if large else 8)
        surface.height -= chip * (5 + 3 * tone - np.minimum(wall, 4)) * harm.between(0.6, 1.2)
        shade = np.clip(0.36 + 0.16 * tone + 0.35 * np.exp(-wall), 0, 1)[..., None] * np.array([1, 0.76, 0.46])
        surface.paint(chip * harm.between(0.5, 0.95), shade)
    elif harm.kind == "contamination":
        shade = [(0.75, 0.74, 0.7), (0.5, 0.4, 0.3), (0.35, 0.36, 0.4)][harm.rng.integers(3)]
        defects.dirt(surface, harm, inner, shade, (4, 17))
    elif harm.kind == "scratch":
        defects.scratch(surface, harm, outer, 60, 1.6)
    return surface


def capsule(rng: Generator, harm: Harm) -> Surface:
    """A gelatine capsule lying across: dark cap, orange body with a printed strength, gloss along its back."""
    surface = Surface(ground(rng, (0.86, 0.86, 0.85)), shine=50, lift_px=6)
    u, v = posed(rng, 6, 5, 0.02)
    half, radius = 100.0, 38.0
    if harm.kind == "squeeze":
        x, y = harm.rng.uniform(-70, 70), harm.rng.choice([-1, 1])
        hollow = np.exp(-np.square((u - x) / harm.rng.uniform(12, 24))) * harm.between(0.05, 0.32)
        v = v * (1 + hollow * (v * y > 0) * np.clip(np.abs(v) / 12, 0, 1))
    seam = -6 + rng.normal(0, 1.5)
    cap = u < seam
    along = np.clip(np.abs(u) - (half - radius), 0, None)
    across = np.hypot(along, v) - np.float32(1.2) * cap
    surface.cover = inside(across - radius)
    surface.height = np.sqrt(np.clip(radius**2 - across**2, 0, None)) + 0.05 * noise(rng, 1.4, 4)
    surface.paint(np.ones_like(u), (0.80, 0.36, 0.22))
    surface.paint(inside(u - seam), (0.16, 0.14, 0.15))
    surface.paint(inside(np.abs(u - seam) - 0.8) * 0.6, (0.1, 0.08, 0.08))
    surface.tint(1 + 0.03 * noise(rng, 1.4, 6))
    surface.gloss += 0.42
    roll = rng.uniform(-9, 9)
    text_u, text_v = u - 42 - rng.normal(0, 2), v - roll
    ink = print_text("500", 27, text_u, text_v)
    worn = 0.85 + 0.06 * noise(rng, 0.8, 2, 12)
    if harm.kind == "faulty_imprint":
        blotch = defects.blob(harm.rng, harm.spot(inside(box(text_u, text_v, 16, 7))), harm.between(5, 20), 0.5, 3)
        shifted = print_text("500", 27, text_u + harm.rng.normal(0, 4), text_v + harm.rng.normal(0, 3))
        mode = harm.rng.integers(3)
        ink = ink * (1 - blotch) if mode == 0 else np.maximum(ink, blotch * harm.between(0.2, 0.9) * (mode == 1))
        ink = np.maximum(ink, shifted * harm.between(0.3, 0.9)) if mode == 2 else ink
    surface.paint(ink * np.clip(worn, 0, 1), (0.88, 0.80, 0.74))
    shell = inside(across - radius + 7)
    if harm.kind == "crack":
        defects.crack(surface, harm, shell, 60, (0.85, 0.78, 0.7))
    elif harm.kind == "poke":
        defects.dent(surface, harm, shell, (6, 13), 0.6)
        defects.dirt(surface, harm, shell, (0.8, 0.7, 0.62), (1, 2.5))
    elif harm.kind == "scratch":
        defects.scratch(surface, harm, shell, 55, 0.9)
    return surface


def hazelnut(rng: Generator, harm: Harm) -> Surface:
    """A hazelnut in its shell: fibres running to the tip, a pale rough scar where the husk was."""
    surface = Surface(ground(rng, (0.13, 0.13, 0.14), 0.008), shine=16, lift_px=6)
    u, v = posed(rng, 14, 5, 0.05)
    angle = np.arctan2(v, u)
    lobes = [rng.normal(0, 0.014) * np.cos(count * angle + rng.uniform(0, 6.3)) for count in (2, 3, 4)]
    pointed = 1 + 0.07 * np.exp(-np.square((angle + np.pi / 2) / 0.35))
    radius = np.hypot(u / 0.93, v) / (1 + sum(lobes)) / pointed
    edge = 90.0
    surface.cover = inside(radius - edge)
    surface.height = 0.75 * np.sqrt(np.clip(edge**2 - radius**2, 0, None))
    meridian = u / np.sqrt(np.clip(1 - np.square(np.clip(v / 104, -0.97, 0.97)), 0.06, 1))
    fibre = lattice(rng, meridian, v, 3.5, 60) + 0.6 * lattice(rng, meridian, v, 8, 120)
    surface.paint(np.ones_like(u), (0.62, 0.38, 0.20))
    surface.tint(1 + 0.16 * fibre + 0.10 * noise(rng, 1.3, 6) + 0.05 * noise(rng, 0.3, 1.5, 16))
    surface.height += 0.28 * fibre + 0.15 * noise(rng, 0.6, 2, 12)
    surface.gloss += 0.10
    scar = inside(np.hypot(u / 62, (v - 82) / 30) * 40 - 40 + 2.2 * noise(rng, 0.8, 4, 30), 4) * surface.cover
    rough = noise(rng, 0.6, 2, 14)
    surface.paint(scar * 0.85, np.clip(np.array([0.70, 0.56, 0.40]) * (1 + 0.13 * rough[..., None]), 0, 1))
    surface.height += scar * (0.9 * rough - 1.5)
    surface.gloss *= 1 - scar
    shell = inside(radius - edge + 16)
    if harm.kind == "crack":
        defects.crack(surface, harm, shell, 95, (0.14, 0.08, 0.05))
    elif harm.kind == "cut":
        defects.cut(surface, harm, shell, (0.78, 0.64, 0.46), 60)
    elif harm.kind == "hole":
        defects.hole(surface, harm, shell, (2.2, 7), 5)
    elif harm.kind == "print":
        x, y = grid()
        at = harm.spot(inside(radius - 55))
        text = "".join(harm.rng.choice(list("AEHKMRX58"), 2))
        ink = print_text(text, 28, x - at[0], y - at[1]) * np.clip(0.8 + 0.3 * noise(harm.rng, 0.6, 2, 12), 0, 1)
        surface.paint(ink * surface.cover * harm.between(0.12, 0.5), (0.80, 0.86, 0.84))
    return surface


def pill(rng: Generator, harm: Harm) -> Surface:
    """A pressed white pill with red speckles and a debossed FF."""
    surface = Surface(ground(rng, (0.07, 0.07, 0.08), 0.006), shine=22, lift_px=5)
    u, v = posed(rng, 2.5, 2.5, 0.01)
    distance = (np.hypot(u / 104, v / 62) - 1) * 62
    distance = distance * (1 - 0.25 * np.clip(np.abs(u) / 104, 0, 1))
    surface.cover = inside(distance)
    surface.height = dome(distance, 26) * 0.9 + 0.13 * noise(rng, 0.7, 1.8, 40)
    surface.paint(np.ones_like(u), (0.87, 0.85, 0.81))
    specks = np.clip((noise(rng, 0.0, 3.5, 7) - 2.1) * 3, 0, 1)
    surface.paint(specks * 0.65, (0.70, 0.20, 0.18))
    surface.tint(1 + 0.025 * noise(rng, 1.0, 3) + 0.02 * noise(rng, 0.2, 1.5, 10))
    surface.gloss += 0.07
    du, dv = rng.normal(0, 0.8, 2)
    text = print_text("F F", 62, u - du, v - dv)
    if harm.kind == "faulty_imprint":
        worn = defects.blob(harm.rng, harm.spot(text), harm.between(14, 42), 0.4, 4)
        filled = print_text("F F", 62, u - du + harm.rng.normal(0, 5), v - dv + harm.rng.normal(0, 4))
        double = harm.rng.uniform() < 0.4
        text = np.maximum(text, filled * harm.between(0.3, 1)) if double else text * (1 - worn)
    surface.height -= 2.6 * text
    surface.tint(1 - 0.13 * text)
    face = inside(distance + 10)
    if harm.kind == "color":
        colors = [(0.8, 0.68, 0.35), (0.72, 0.3, 0.25), (0.55, 0.6, 0.66)]
        defects.stain(surface, harm, face, colors[harm.rng.integers(3)], (8, 23))
    elif harm.kind == "contamination":
        shade = [(0.2, 0.18, 0.16), (0.5, 0.35, 0.2), (0.35, 0.1, 0.1)][harm.rng.integers(3)]
        defects.dirt(surface, harm, face, shade, (2.2, 8))
    elif harm.kind == "crack":
        defects.crack(surface, harm, face, 90, (0.3, 0.28, 0.26))
    elif harm.kind == "scratch":
        defects.scratch(surface, harm, face, 85, -0.6)
    return surface


def toothbrush(rng: Generator, harm: Harm) -> Surface:
    """The head of a toothbrush from above: tufts of bristles in rows, white, blue and red."""
    surface = Surface(ground(rng, (0.09, 0.09, 0.10), 0.006), shine=30, lift_px=6)
    u, v = posed(rng, 5, 5, 0.02)
    head = np.minimum(box(u, v + 8, 58, 98, 46), box(u, v - 120, 16, 50, 10))
    surface.cover = inside(head)
    surface.height = dome(head, 10)
    surface.paint(np.ones_like(u), (0.72, 0.76, 0.80))
    surface.gloss += 0.35
    bristled = inside(box(u, v + 8, 45, 84, 32))
    at = harm.spot(bristled)
    if harm.kind == "bent_bristles":
        push, heading = defects.bump(at, harm.between(20, 38)) * harm.between(3, 10), harm.rng.uniform(0, 2 * np.pi)
        u, v = u + push * np.cos(heading), v + push * np.sin(heading)
    plant_tufts(surface, rng, harm, u, v + 8)
    if harm.kind == "contamination":
        shade = [(0.35, 0.25, 0.15), (0.15, 0.15, 0.15), (0.6, 0.55, 0.2)][harm.rng.integers(3)]
        defects.dirt(surface, harm, bristled, shade, (4, 12))
    elif harm.kind == "stray_bristle":
        line = defects.stroke(defects.path(harm.rng, at, harm.between(30, 70), 1.0), harm.between(1.8, 4))
        surface.cover = np.maximum(surface.cover, line)
        surface.height += line * 5
        surface.paint(line * harm.between(0.6, 0.95), (0.85, 0.87, 0.9))
    return surface


def plant_tufts(surface: Surface, rng: Generator, harm: Harm, u: Field, v: Field) -> None:
    """Tufts on a square lattice of the brush's head, no two quite alike."""
    pitch = 21.0
    u, v = (place + 0.8 * noise(rng, 1.2, 5, 40) for place in (u, v))
    column, row = np.round(u / pitch), np.round(v / pitch)
    index = (np.clip(row, -8, 8) + 8).astype(int), (np.clip(column, -8, 8) + 8).astype(int)
    lean_u, lean_v, tone = (size * rng.standard_normal((17, 17)).astype(np.float32)[index] for size in (0.8, 0.8, 0.05))
    off_center = np.hypot(u - column * pitch - lean_u, v - row * pitch - lean_v)
    reach = 9.6 + 0.3 * noise(rng, 0.4, 2, 8)
    if harm.kind == "missing_bristles":
        x, y = harm.rng.integers(-1, 2), harm.rng.integers(-3, 4)
        rows = (row == y) | ((row == y + 1) & (harm.severity > 0.5))
        reach = np.where(rows & (column == x), harm.between(8.3, 2), reach)
    tuft = inside(off_center - reach, 2) * (box(column * pitch, row * pitch, 50, 88, 34) < 0)
    ends = noise(rng, 0.0, 2.2, 3.6)
    blue, red = np.abs(column) == 1, (column == 0) & (np.mod(row, 3) == 0)
    colors = np.where(blue[..., None], [0.25, 0.45, 0.75], [0.88, 0.89, 0.9])
    colors = np.where(red[..., None], [0.8, 0.25, 0.25], colors)
    grain = 1 + 0.13 * ends + tone - 0.018 * off_center
    surface.paint(tuft, np.clip(colors * grain[..., None], 0.02, 1))
    surface.height += tuft * (9 + 0.7 * ends)
    surface.gloss *= 1 - 0.8 * tuft
