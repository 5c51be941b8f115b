"""What the demo images are made of: a surface with color, relief and gloss, a light over it, a camera above.

A field is a (256, 256) float32 array. Colors are given as people pick them (sRGB-like, in [0, 1]) and kept linear.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont
from scipy.fft import irfft2
from scipy.ndimage import binary_closing, gaussian_filter, gaussian_filter1d, map_coordinates, shift

SIZE_PX = 256
Field = np.ndarray  # (256, 256) float32
Color = Sequence[float]


@lru_cache(maxsize=1)
def grid() -> tuple[Field, Field]:
    """x to the right and y downwards, in pixels from the middle of the image."""
    line = np.arange(SIZE_PX, dtype=np.float32) - (SIZE_PX - 1) / 2
    x, y = np.meshgrid(line, line)
    x.setflags(write=False)
    y.setflags(write=False)
    return x, y


def posed(rng: Generator, turn_deg: float, shift_px: float, scale: float = 0.0) -> tuple[Field, Field]:
    """The product's own coordinates u, v: the grid turned by about `turn_deg`, shifted by about `shift_px`, scaled."""
    angle = np.radians(rng.uniform(-turn_deg, turn_deg))
    (dx, dy), size = rng.uniform(-shift_px, shift_px, 2), 1 + rng.uniform(-scale, scale)
    x, y = grid()
    x, y = (x - dx) / size, (y - dy) / size
    u = np.cos(angle) * x + np.sin(angle) * y
    v = np.cos(angle) * y - np.sin(angle) * x
    return u.astype(np.float32), v.astype(np.float32)


def inside(distance: Field, soft_px: float = 1.0) -> Field:
    """Coverage in [0, 1] of the region where a signed distance is negative, with an edge `soft_px` wide."""
    return np.clip(0.5 - distance / soft_px, 0, 1)


def box(u: Field, v: Field, half_u: float | Field, half_v: float | Field, corner: float = 0.0) -> Field:
    """Signed distance to a rectangle with rounded corners."""
    du, dv = np.abs(u) - half_u + corner, np.abs(v) - half_v + corner
    return np.hypot(np.maximum(du, 0), np.maximum(dv, 0)) + np.minimum(np.maximum(du, dv), 0) - corner


def segment(u: Field, v: Field, start: Color, end: Color) -> Field:
    """Distance to the straight line between two points."""
    du, dv = end[0] - start[0], end[1] - start[1]
    along = np.clip(((u - start[0]) * du + (v - start[1]) * dv) / max(du * du + dv * dv, 1e-6), 0, 1)
    return np.hypot(u - start[0] - along * du, v - start[1] - along * dv)


def dome(distance: Field, width_px: float) -> Field:
    """Relief of a rounded edge: 0 outside, a quarter circle up over `width_px` inside, then flat at `width_px`."""
    inner = np.clip(1 + distance / width_px, 0, 1)
    return width_px * np.sqrt(np.maximum(1 - inner * inner, 0))


@lru_cache(maxsize=64)
def _spectrum(slope: float, finest_px: float, coarsest_px: float) -> np.ndarray:
    rows, columns = np.fft.fftfreq(SIZE_PX)[:, None], np.fft.rfftfreq(SIZE_PX)[None]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = 1
    band = np.exp(-((frequency * finest_px / 2) ** 2)) * (1 - np.exp(-((frequency * coarsest_px) ** 2)))
    gain = band * frequency**-slope
    gain[0, 0] = 0
    energy = 2 * (gain**2).sum() / SIZE_PX**4  # of the real field, so that its variance is 1
    return (gain * np.sqrt(12 / (2 * energy))).astype(np.float32)  # a uniform coefficient has variance 1/12


def noise(rng: Generator, slope: float = 1.0, finest_px: float = 1.0, coarsest_px: float = 128.0) -> Field:
    """Isotropic noise of about unit variance, amplitude 1/f^slope between `finest_px` and `coarsest_px`."""
    # uniform coefficients cost half of normal ones, and the sum of so many waves is normal either way
    waves = rng.random((SIZE_PX, SIZE_PX + 2), dtype=np.float32)
    waves -= np.float32(0.5)
    waves = waves.view(np.complex64)
    waves *= _spectrum(slope, finest_px, coarsest_px)
    return irfft2(waves, s=(SIZE_PX, SIZE_PX), overwrite_x=True)


def lattice(rng: Generator, u: Field, v: Field, cell_u: float, cell_v: float) -> Field:
    """Noise of about unit variance in any coordinates: random values on cells of a given size, joined smoothly."""
    values = rng.standard_normal((128, 128), dtype=np.float32) * 1.4
    place = np.stack([u / cell_u, v / cell_v]).astype(np.float32)
    corner = np.floor(place)
    part = place - corner
    part *= part * (3 - 2 * part)  # linear between corners would show as kinks under the light
    return map_coordinates(values, corner + part, order=1, mode="grid-wrap")


def cells(rng: Generator, u: Field, v: Field, pitch_px: float) -> tuple[Field, Field]:
    """Pebbles: distance in pixels from the wall to the neighboring cell, and a random tone per cell."""
    p, q = u / pitch_px, v / pitch_px
    row, column = np.floor(q).astype(np.int32), np.floor(p).astype(np.int32)
    jitter, tones = rng.uniform(0, 1, (2, 64, 64)).astype(np.float32), rng.standard_normal((64, 64), dtype=np.float32)
    first, second = np.full_like(p, 9), np.full_like(p, 9)
    tone = np.zeros_like(p)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            index = ((row + down) & 63) * 64 + ((column + right) & 63)
            seed_p = column + right + jitter[0].take(index)
            seed_q = row + down + jitter[1].take(index)
            distance = np.hypot(p - seed_p, q - seed_q)
            nearer = distance < first
            second = np.where(nearer, first, np.minimum(second, distance))
            tone = np.where(nearer, tones.take(index), tone)
            first = np.minimum(first, distance)
    return (second - first) * pitch_px / 2, tone


def wander(rng: Generator, along: Field, step: float, size: float = 1.0) -> Field:
    """A smooth random function of one coordinate (given anywhere in +-400), changing over `step`."""
    values = gaussian_filter1d(rng.standard_normal(1024), 8) * 5.3 * size
    return np.interp(along * 8 / step, np.arange(1024) - 512, values, period=1024).astype(np.float32)


def around(rng: Generator, angle: Field, step_deg: float) -> Field:
    """A smooth random function of about unit variance of an angle in radians, closed around the circle."""
    width = 512 * step_deg / 360 / 2
    values = gaussian_filter1d(rng.standard_normal(512), width, mode="wrap") * np.sqrt(2 * np.sqrt(np.pi) * width)
    return np.interp(angle * 512 / (2 * np.pi), np.arange(512), values, period=512).astype(np.float32)


@lru_cache(maxsize=32)
def _letters(text: str, height_px: int) -> np.ndarray:
    font = ImageFont.load_default(size=height_px)
    left, top, right, bottom = font.getbbox(text)
    image = Image.new("L", (int(right - left) + 4, int(bottom - top) + 4))
    ImageDraw.Draw(image).text((2 - left, 2 - top), text, fill=255, font=font, stroke_width=0.4)
    return np.asarray(image, np.float32) / 255


def print_text(text: str, height_px: int, u: Field, v: Field) -> Field:
    """Coverage of `text`, centerd on u = v = 0 and read along u."""
    letters = _letters(text, height_px)
    rows, columns = letters.shape
    near = (np.abs(u) < columns / 2 + 1) & (np.abs(v) < rows / 2 + 1)
    place = np.stack([v[near] + (rows - 1) / 2, u[near] + (columns - 1) / 2])
    cover = np.zeros(near.shape, np.float32)
    cover[near] = map_coordinates(letters, place, order=1, mode="constant")
    return cover


def linear(color: Color) -> np.ndarray:
    """A color as people pick it -> linear, float32."""
    return np.square(np.asarray(color, np.float32))


class Surface:
    """What lies under the camera. `albedo` and `ground` are (256, 256, 3) linear color, the rest fields.

    height is relief in pixels, gloss the strength of highlights, metal how far it mirrors its surroundings, cover where
    the product hides the ground; `shine` is how sharp highlights are, `lift_px` how far the product's shadow falls.
    """

    def __init__(self, ground: Color | Field, shine: float = 30.0, lift_px: float = 5.0):
        shape = (SIZE_PX, SIZE_PX)
        ground = np.asarray(ground, np.float32)
        self.ground = np.broadcast_to(ground, (*shape, 3)) if ground.ndim == 1 else ground
        self.ground = np.square(self.ground).astype(np.float32)
        self.albedo = self.ground.copy()
        self.height, self.gloss, self.metal, self.cover = (np.zeros(shape, np.float32) for _ in range(4))
        self.shine, self.lift_px = shine, lift_px

    def paint(self, cover: Field, color: Color | Field) -> None:
        """Lay a color, (3,) or (256, 256, 3), over the albedo where `cover` says."""
        self.albedo += cover[..., None] * (linear(color) - self.albedo)

    def tint(self, factor: Field) -> None:
        """Lighten or darken the albedo by a factor per pixel."""
        self.albedo *= np.clip(factor, 0.05, 4).astype(np.float32)[..., None]

    def shown(self) -> np.ndarray:
        """(256, 256, 3): product over ground before any light falls on it, as people pick colors."""
        return np.sqrt(np.clip(self.ground + self.cover[..., None] * (self.albedo - self.ground), 0, None))


# What metal mirrors, from away from the light to towards it: a dark room, a gray ceiling, a bright box, a dark wall.
ROOM = (0.30, 0.12, 0.14, 0.50, 0.58, 0.42, 1.35, 0.55, 0.20)


@dataclass(frozen=True)
class Light:
    """The lighting of one image: where it comes from, how strong, how colored, how uneven."""

    direction: np.ndarray  # (3,), unit length, towards the light
    strength: float
    ambient: float
    balance: np.ndarray  # (3,), white balance
    slant: np.ndarray  # (2,), brightness gained per half image to the right and downwards
    vignette: float

    @classmethod
    def draw(cls, rng: Generator) -> "Light":
        """From the upper left, never twice the same."""
        azimuth, elevation = rng.normal(-2.2, 0.22), rng.normal(0.95, 0.07)
        across = np.cos(elevation)
        direction = np.array([across * np.cos(azimuth), across * np.sin(azimuth), np.sin(elevation)], np.float32)
        strength, ambient = rng.normal(0.74, 0.045), rng.normal(0.34, 0.03)
        balance, slant = rng.normal(1, 0.012, 3).astype(np.float32), rng.normal(0, 0.035, 2).astype(np.float32)
        return cls(direction, strength, ambient, balance, slant, rng.uniform(0.02, 0.10))


def lit(surface: Surface, light: Light) -> np.ndarray:
    """The surface under the light: (256, 256, 3) linear radiance, before the camera."""
    height = surface.height.astype(np.float32, copy=False)
    slope_x, slope_y = np.zeros_like(height), np.zeros_like(height)
    slope_x[:, 1:-1] = (height[:, 2:] - height[:, :-2]) / 2
    slope_y[1:-1] = (height[2:] - height[:-2]) / 2
    upright = 1 / np.sqrt(1 + slope_x**2 + slope_y**2)

    towards = light.direction
    halfway = towards + np.array([0, 0, 1], np.float32)
    halfway /= np.linalg.norm(halfway)
    diffuse = np.clip((towards[2] - slope_x * towards[0] - slope_y * towards[1]) * upright, 0, None)
    facing = np.clip((halfway[2] - slope_x * halfway[0] - slope_y * halfway[1]) * upright, 0, 1)
    highlight = surface.gloss * facing ** np.float32(surface.shine)
    sunk = np.clip(gaussian_filter(height, 3, truncate=2) - height, 0, None)
    shade = light.ambient * (1 - 0.6 * np.tanh(sunk / 4)) + light.strength * diffuse

    if surface.metal.any():
        tilt = 2 * upright**2
        seen = -(slope_x * towards[0] + slope_y * towards[1]) * tilt
        room = np.interp(seen, (-1, -0.75, -0.4, -0.15, 0, 0.25, 0.5, 0.75, 1), ROOM).astype(np.float32)
        shade += surface.metal * (room * (light.strength + light.ambient) - shade)

    shadow_x, shadow_y = -towards[:2] / np.hypot(*towards[:2]) * surface.lift_px
    radiance = surface.albedo * shade[..., None] + highlight[..., None] * light.strength
    if surface.lift_px:
        shadow = shift(surface.cover, (shadow_y, shadow_x), order=1, mode="nearest")
        shadow = 0.55 * gaussian_filter(shadow, surface.lift_px * 0.5 + 1, truncate=1.6)
        flat = (light.ambient + light.strength * towards[2]) * (1 - shadow)
        radiance = surface.ground * flat[..., None] + surface.cover[..., None] * (
            radiance - surface.ground * flat[..., None]
        )
    return radiance


def photograph(radiance: np.ndarray, light: Light, rng: Generator) -> np.ndarray:
    """Linear radiance -> (256, 256, 3) uint8: uneven light, white balance, lens blur, shot and read noise, gamma."""
    x, y = grid()
    half = SIZE_PX / 2
    falloff = 1 + (light.slant[0] * x + light.slant[1] * y) / half - light.vignette * (x * x + y * y) / half**2 / 2
    image = radiance * (falloff[..., None] * light.balance)
    blur_px = rng.uniform(0.5, 0.8)
    lens = np.exp(-0.5 * np.square(np.arange(-2, 3, dtype=np.float32) / np.float32(blur_px)))
    lens /= lens.sum()
    image = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="edge")
    image = sum(share * image[at : at + SIZE_PX] for at, share in enumerate(lens))
    image = sum(share * image[:, at : at + SIZE_PX] for at, share in enumerate(lens))
    image = np.clip(image, 0, None)
    image = image / (1 + 0.25 * np.square(image))  # a soft shoulder: highlights bend before they clip
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    electrons = rng.uniform(1500, 3000)
    image += grain * np.sqrt(image / electrons + 2e-6)
    return (np.sqrt(np.clip(image, 0, 1)) * 255 + 0.5).astype(np.uint8)


def changed(clean: Surface, harmed: Surface) -> np.ndarray:
    """(256, 256) bool: the pixels in which two surfaces differ in color, relief, gloss or outline.

    A pixel counts when the change can be seen, or reaches a third of the defect's own peak where that is fainter still.
    """
    either = np.maximum(clean.cover, harmed.cover)
    change = np.abs(clean.shown() - harmed.shown()).max(axis=2) / 0.06
    for name, visible in (("height", 0.35), ("gloss", 0.15), ("metal", 0.3)):
        change = np.maximum(change, np.abs(getattr(clean, name) - getattr(harmed, name)) * either / visible)
    mask = change > min(1.0, change.max() / 3)
    if not mask.any():
        return mask
    return np.pad(binary_closing(np.pad(mask, 3), iterations=2), 0)[3:-3, 3:-3]
