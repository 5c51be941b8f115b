"""The demo set's hardware: cable, metal nut, screw, transistor, zipper.

The rules are those of textures.py: the scene's random stream is drawn from alike with and without the harm.
"""

import numpy as np
from numpy.random import Generator

from pretrain.demo_products import defects
from pretrain.demo_products.defects import Harm
from pretrain.demo_products.molded import ground
from pretrain.demo_products.scene import (
    Color,
    Field,
    Surface,
    around,
    box,
    dome,
    inside,
    lattice,
    noise,
    posed,
    segment,
    wander,
)

INSULATION = ((0.24, 0.50, 0.28), (0.22, 0.34, 0.62), (0.48, 0.29, 0.18))  # green, blue, brown


def nearest_strand(u: Field, v: Field, pitch: float) -> Field:
    """Distance to the nearest point of a hexagonal lattice: copper strands seen end-on."""
    tall = pitch * np.sqrt(3)

    def rectangular(u: Field, v: Field) -> Field:
        return np.hypot(u - pitch * np.round(u / pitch), v - tall * np.round(v / tall))

    return np.minimum(rectangular(u, v), rectangular(u - pitch / 2, v - tall / 2))


def cable(rng: Generator, harm: Harm) -> Surface:
    """The cut end of a three-core cable: jacket, three insulations, copper strands."""
    surface = Surface(ground(rng, (0.34, 0.33, 0.33), 0.010), shine=26, lift_px=7)
    u, v = posed(rng, 7, 5, 0.02)
    jacket = np.hypot(u, v) - 108 + 0.6 * around(rng, np.arctan2(v, u), 40)
    surface.cover = inside(jacket)
    sawn = lattice(rng, u + 0.4 * v, v, 60, 2.5)  # marks of the blade
    surface.height = dome(jacket, 9) + 0.14 * sawn + 0.15 * noise(rng, 0.6, 2, 16)
    surface.paint(np.ones_like(u), (0.74, 0.74, 0.72))
    surface.tint(1 + 0.04 * sawn + 0.03 * noise(rng, 1.2, 4))
    filling = inside(jacket + 13 + 0.7 * noise(rng, 1.2, 10), 2)
    surface.paint(filling, (0.42, 0.41, 0.39))
    surface.height -= 5 * filling
    surface.gloss += 0.10
    order = [0, 1, 2]
    if harm.kind == "cable_swap":
        order[harm.rng.integers(3)] = harm.rng.integers(3)
        order = order if order != [0, 1, 2] else [1, 0, 2]
    chosen = harm.rng.integers(3)
    sheath, loose = np.zeros_like(u), [0.9 * noise(rng, 1.4, 6) for _ in range(2)]
    for core, color in enumerate(order):
        angle = np.pi / 2 + core * 2 * np.pi / 3 + rng.normal(0, 0.05)
        middle = (51 + rng.normal(0, 1.8)) * np.array([np.cos(angle), -np.sin(angle)])
        if harm.kind == "bent_wire" and core == chosen:
            heading = harm.rng.uniform(0, 2 * np.pi)
            middle = middle + harm.between(3, 9) * np.array([np.cos(heading), np.sin(heading)])
        lost = np.zeros_like(u)
        if harm.kind == "missing_wire" and core == chosen:
            lost = defects.blob(harm.rng, tuple(middle + harm.rng.normal(0, 9, 2)), harm.between(3.5, 16), 0.4)
        ring = lay_core(surface, rng, u - middle[0], v - middle[1], loose, INSULATION[color], 1 - lost)
        sheath = np.maximum(sheath, inside(np.abs(ring + 8) - 7.5))
    surface.tint(1 + 0.05 * noise(rng, 0.4, 1.6, 20))
    if harm.kind == "cut_insulation":
        defects.cut(surface, harm, sheath, (0.12, 0.10, 0.09), 50)
    elif harm.kind == "poke_insulation":
        defects.hole(surface, harm, sheath, (2.2, 6.5), 5)
    return surface


def lay_core(
    surface: Surface, rng: Generator, u: Field, v: Field, loose: list[Field], color: Color, kept: Field
) -> Field:
    """One insulated core around u = v = 0, its strands where `kept`; returns the distance to its outline."""
    twist, squash = rng.uniform(0, np.pi), 1 + rng.normal(0, 0.02)
    u, v = u * squash, v / squash
    radius = np.hypot(u, v)
    skin, bore = inside(radius - 43), inside(radius - 28, 3)
    surface.paint(skin, color)
    surface.height += skin * (dome(radius - 43, 6) + 2)
    surface.paint(bore, (0.20, 0.12, 0.08))
    across, along = np.cos(twist) * u + np.sin(twist) * v, np.cos(twist) * v - np.sin(twist) * u
    strand = nearest_strand(across + loose[0], along + loose[1], 8.6) - 4.2
    copper = bore * kept * inside(strand, 1.5)
    surface.paint(copper, (0.93, 0.58, 0.38))
    surface.height += copper * (np.clip(-strand, 0, 3) * 0.45 + 1)
    surface.metal = np.maximum(surface.metal, 0.5 * copper)
    return radius - 43


def metal_nut(rng: Generator, harm: Harm) -> Surface:
    """A stamped nut with four swept wings, a rough washer face and a turned collar."""
    surface = Surface(ground(rng, (0.10, 0.10, 0.12), 0.008), shine=34, lift_px=5)
    u, v = posed(rng, 16, 4, 0.015)
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    sweep = np.mod(angle / (np.pi / 2) + 0.5 - radius / 260, 1)
    reach = 84 + 22 * np.sin(np.pi / 2 * np.clip(sweep * 1.35, 0, 1)) ** 2 * np.clip((1 - sweep) * 5, 0, 1)
    wing_edge = (radius - reach) * 0.8
    folded = np.zeros_like(u)
    if harm.kind == "bent":
        tip = np.pi / 2 * (0.33 + harm.rng.integers(4)) + harm.rng.normal(0, 0.1)
        off = np.mod(angle - tip - np.pi / 4 + np.pi, 2 * np.pi) - np.pi
        folded = np.exp(-np.square(off / harm.rng.uniform(0.2, 0.35)))
        wing_edge = wing_edge + folded * harm.between(2.5, 15)
    surface.cover = inside(wing_edge) * inside(27 - radius)
    rough, fine = noise(rng, 0.3, 1.6, 18), noise(rng, 0.0, 3, 5)
    face = inside(radius - 60, 3)
    collar = inside(np.abs(radius - 33) - 5, 2)
    flow = lattice(rng, radius + 10 * sweep, u, 2.5, 70)
    surface.height = dome(wing_edge, 12) - np.clip(radius - 62, 0, 26) * 0.22 + (0.10 + 0.2 * face) * rough
    surface.height += 3.5 * face + 4 * collar * np.sqrt(np.clip(1 - np.square((radius - 33) / 6), 0, 1))
    surface.height += 0.5 * flow * (1 - face) - 4 * inside(np.abs(radius - 57) - 1.2, 2)
    surface.paint(np.ones_like(u), (0.64, 0.70, 0.67))
    surface.tint(1 + 0.08 * rough + 0.10 * fine * face - 0.3 * face + 0.06 * noise(rng, 1.2, 8))
    surface.metal[:] = 0.95 - 0.45 * face + 0.3 * collar
    surface.gloss[:] = 0.22
    wings, flat = inside(np.abs(radius - 80) - 14) * surface.cover, inside(np.abs(radius - 60) - 20) * surface.cover
    if harm.kind == "bent":
        surface.height -= folded * np.clip(radius - 66, 0, 40) * harm.between(0.15, 0.7)
    elif harm.kind == "color":
        colors = [(0.55, 0.32, 0.15), (0.25, 0.3, 0.5), (0.7, 0.65, 0.3)]
        defects.stain(surface, harm, flat, colors[harm.rng.integers(3)], (9, 23))
    elif harm.kind == "scratch":
        defects.scratch(surface, harm, inside(np.abs(radius - 68) - 30) * surface.cover, 100, 1.9)
    elif harm.kind == "dent":
        defects.dent(surface, harm, wings, (8, 19), 0.8)
    return surface


def screw(rng: Generator, harm: Harm) -> Surface:
    """A wood screw lying aslant: countersunk head, plain shank, thread, point."""
    surface = Surface(ground(rng, (0.80, 0.80, 0.80), 0.007), shine=42, lift_px=6)
    x, y = posed(rng, 4, 3, 0.01)
    u, v = 0.809 * x + 0.588 * y, 0.809 * y - 0.588 * x
    if harm.kind == "bent_tip":
        past = np.clip(u - harm.rng.uniform(55, 75), 0, None)
        v = v - harm.rng.choice([-1, 1]) * past**2 * harm.between(0.003, 0.014)
    knots = [-112, -108, -102, -88, -30, -26, 84, 112, 113]
    radius = np.interp(u, knots, [0, 24, 24, 11, 10, 9.5, 9, 0.4, 0]).astype(np.float32)
    turn = rng.uniform(0, 1)
    threaded = np.clip((u + 30) / 6, 0, 1) * np.clip((114 - u) / 20, 0, 1)
    worn = np.zeros_like(u)
    if harm.kind == "thread_damage":
        at, width = harm.rng.uniform(-10, 75), harm.between(9, 26)
        side = harm.rng.choice([-1, 1])
        worn = np.exp(-np.square((u - at) / width)) * inside(-side * v - 1, 6) * harm.between(0.45, 1)
    phase = np.mod((u + 0.24 * v) / 12.5 + turn, 1)
    crest = np.clip(1 - np.abs(phase - 0.5) * 4, 0, 1)
    outline = radius + 5.2 * threaded * (1 - worn) * crest
    surface.cover = inside(np.abs(v) - outline) * (outline > 0.3)
    surface.height = np.sqrt(np.clip(outline**2 - v**2, 0, None)).astype(np.float32)
    turned = lattice(rng, u, v, 1.8, 40)
    surface.height += 0.06 * turned + 0.10 * noise(rng, 0.8, 2, 24)
    surface.paint(np.ones_like(u), (0.84, 0.80, 0.73))
    surface.tint(1 + 0.05 * turned + 0.06 * noise(rng, 1.2, 5) - 0.25 * threaded * (1 - crest))
    surface.tint(1 + 0.5 * worn * threaded)  # bare metal where the thread is gone
    surface.metal[:], surface.gloss[:] = 0.85, 0.3
    head, shank = inside(u + 86) * surface.cover, inside(np.abs(u + 58) - 30) * surface.cover
    if harm.kind == "scratch_head":
        defects.scratch(surface, harm, head, 40, -0.7)
        defects.dent(surface, harm, head, (6, 13), 0.8)
    elif harm.kind == "scratch_neck":
        defects.scratch(surface, harm, shank, 60, -0.75)
    elif harm.kind == "rust":
        defects.stain(surface, harm, inside(np.abs(v) - 8) * surface.cover, (0.45, 0.22, 0.10), (8, 24))
    return surface


def board(rng: Generator, u: Field, v: Field) -> Field:
    """A phenolic breadboard: copper-colored strips with rows of holes, (256, 256, 3)."""
    pitch = 46.0
    off_u, off_v = u - pitch * np.round(u / pitch), v - 12 - pitch * np.round((v - 12) / pitch)
    tone = 1 + 0.04 * noise(rng, 1.2, 3) + 0.03 * lattice(rng, u, v, 3, 80)
    color = tone[..., None] * np.array([0.68, 0.43, 0.34])
    gap = inside(np.abs(np.abs(off_u) - pitch / 2) - 2.2)
    ring, hole = inside(np.hypot(off_u, off_v) - 11.5), inside(np.hypot(off_u, off_v) - 9)
    for cover, shade in ((gap, (0.36, 0.22, 0.16)), (ring, (0.55, 0.36, 0.27)), (hole, (0.10, 0.07, 0.06))):
        color += cover[..., None] * (np.array(shade) - color)
    return color


def transistor(rng: Generator, harm: Harm) -> Surface:
    """A transistor on a breadboard: a black molded case, three tinned leads spread into their holes."""
    board_u, board_v = posed(rng, 2, 7)
    surface = Surface(board(rng, board_u, board_v), shine=24, lift_px=7)
    u, v = board_u + rng.normal(0, 2.5), board_v + rng.normal(0, 4)
    lean = np.radians(rng.normal(0, 2))
    if harm.kind == "misplaced":
        lean = lean + np.radians(harm.rng.choice([-1, 1]) * harm.between(4, 24))
        u = u - harm.rng.choice([-1, 1]) * harm.between(2, 12)
    cosine, sine = np.float32(np.cos(lean)), np.float32(np.sin(lean))
    case_u, case_v = cosine * u + sine * (v + 20), cosine * (v + 20) - sine * u
    chosen = harm.rng.integers(3)
    lead = np.full_like(u, 99)
    for number, side in enumerate((-1, 0, 1)):
        root, knee = np.array([side * 17.0, 20.0]), np.array([side * 19 + rng.normal(0, 1.5), 50.0 + rng.normal(0, 2)])
        foot = np.array([side * 42 + rng.normal(0, 2), 82 + rng.normal(0, 3)])
        if number == chosen and harm.kind == "bent_lead":
            push = harm.rng.choice([-1, 1]) * harm.between(6, 22)
            knee, foot = knee + [0.5 * push, 0], foot + [push, harm.rng.uniform(-12, 4)]
        if number == chosen and harm.kind == "cut_lead":
            foot = knee + (foot - knee) * (1 - harm.between(0.25, 1.0))
        lead = np.minimum(lead, np.minimum(segment(u, v, root, knee), segment(u, v, knee, foot)))
    lead = lead.astype(np.float32)
    metal = inside(lead - 4.4)
    surface.paint(metal, (0.74, 0.73, 0.70))
    surface.height = metal * (np.sqrt(np.clip(25 - lead * lead, 0, None)) + 0.12 * noise(rng, 1.0, 3, 20))
    surface.metal, surface.gloss = metal * 0.75, metal * 0.3
    shape = box(case_u, case_v, 48, 50, 5)
    case = inside(shape)
    speckle = noise(rng, 0.2, 1.8, 8)
    front = inside(box(case_u, case_v - 4, 40, 45, 3), 3)
    surface.paint(case, (0.13, 0.13, 0.14))
    surface.height += case * (14 + dome(shape, 6) + 2.5 * front + 0.08 * speckle - surface.height)
    surface.height -= 1.6 * inside(np.abs(np.hypot(case_u, case_v - 2) - 10) - 1, 2)  # the ejector's mark
    surface.metal *= 1 - case
    surface.gloss += case * (0.10 - surface.gloss)
    surface.tint(1 + case * (0.12 * speckle + 0.1 * noise(rng, 1.2, 6)))
    surface.cover = np.maximum(case, metal).astype(np.float32)
    if harm.kind == "damaged_case":
        at = harm.spot(case * inside(-shape - (harm.rng.uniform(3, 40))))
        chip = defects.blob(harm.rng, at, harm.between(5, 19), 0.7) * case
        facets = np.abs(noise(harm.rng, 0.8, 4, 20))
        surface.height -= chip * (3 + 4 * facets) * harm.between(0.5, 1.2)
        surface.paint(chip * harm.between(0.3, 0.9), np.clip(0.22 + 0.2 * facets, 0, 1)[..., None] * np.ones(3))
    return surface


def zipper(rng: Generator, harm: Harm) -> Surface:
    """A closed zip: interlocked metal teeth between two woven tapes."""
    u, v = posed(rng, 2, 5, 0.02)
    u = u + wander(rng, v, 50, 1.0)
    surface = Surface(ground(rng, (0.82, 0.82, 0.81)), shine=30, lift_px=5)
    weave_u, weave_v = u + 0.5 * noise(rng, 1.4, 8), v + 0.5 * noise(rng, 1.4, 8)
    rib = np.sin(2 * np.pi * weave_u / 7.5) * 0.8 + 0.5 * np.sin(2 * np.pi * (weave_v + 2 * np.sign(weave_u)) / 4.2)
    fluff = noise(rng, 0.3, 1.5, 20)
    tape = np.abs(u) - 84 + 0.7 * wander(rng, v, 12)
    surface.cover = inside(tape)
    surface.height = 0.9 * rib + 0.4 * fluff + 3 * inside(np.abs(np.abs(u) - 30) - 5, 4)
    surface.paint(np.ones_like(u), (0.20, 0.21, 0.24))
    surface.tint(1 + 0.13 * rib + 0.16 * fluff)
    surface.gloss += 0.03
    fasten_teeth(surface, rng, harm, u, v, fluff)
    cloth = inside(np.abs(np.abs(u) - 56) - 22)
    if harm.kind == "fabric_interior":
        if harm.rng.uniform() < 0.5:
            defects.hole(surface, harm, cloth, (2.5, 9), 3)
        else:
            defects.thread(surface, harm, cloth, (0.45, 0.45, 0.48))
    elif harm.kind == "fabric_border":
        edge = inside(np.abs(np.abs(u) - 82) - 2)
        torn = defects.blob(harm.rng, harm.spot(edge), harm.between(3, 12), 0.8)
        surface.cover *= 1 - torn
    return surface


def fasten_teeth(surface: Surface, rng: Generator, harm: Harm, u: Field, v: Field, fluff: Field) -> None:
    """Two rows of metal teeth that reach between each other; three of the zip's defects are theirs."""
    pitch, start, rows = 15.0, rng.uniform(0, 15), np.arange(-12, 13)
    open_px, squeeze = 0.0, np.zeros_like(v)
    at = harm.rng.uniform(-85, 85)
    near = np.exp(-np.square((v - at) / harm.rng.uniform(20, 45)))
    if harm.kind == "split_teeth":
        open_px = near * harm.between(0.8, 8.5)
    elif harm.kind == "squeezed_teeth":
        squeeze = near * harm.between(1, 5) * harm.rng.choice([-1, 1])
    for side in (-1, 1):
        place = v + squeeze * (side == 1) + side * pitch / 4 + start + rng.normal(0, 0.3)
        row = np.round(place / pitch)
        off_v = place - row * pitch + np.interp(row, rows, rng.normal(0, 0.5, 25))
        off_u = (u - side * open_px) * side - 9 + np.interp(row, rows, rng.normal(0, 0.8, 25))
        tooth = box(off_u, off_v, 16, 4.6, 2.5)
        if harm.kind == "broken_teeth" and side == (-1 if at > 0 else 1):
            broken = np.abs(row - np.round(at / pitch)) < harm.between(0.6, 1.8)
            tooth = np.where(broken, tooth + harm.between(1.2, 6), tooth)
        metal = inside(tooth)
        surface.paint(metal, (0.64, 0.62, 0.57))
        surface.height += metal * (5 + dome(tooth, 4) + 0.14 * fluff - surface.height)
        surface.metal += metal * (0.7 - surface.metal)
        surface.gloss += metal * (0.25 - surface.gloss)
