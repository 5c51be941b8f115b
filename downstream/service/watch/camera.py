"""Whether the camera is well, before anybody trusts a verdict: what an image is like, beside those that were accepted.

No number says what is wrong by itself: bright is what is brighter than this line's images ever were. Each check errs on
so many good images as CHECK_FALSE_ALARM_RATE says, if what it measures is normally distributed.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import stdtrit

CameraProblem = Literal["too dark", "too bright", "blurred", "moved", "another product", "frozen"]
CHECK_FALSE_ALARM_RATE = 0.001
# From so many accepted images the references come; with fewer nothing is said.
REFERENCES = 50
LUMINANCE = np.array([0.299, 0.587, 0.114])
MAX_SIDE_PX = 720
# The side of the small gray image by which position and product are told.
SMALL_PX = 24
# Of a sensor with noise no two images are alike: so many in a row are one image.
FROZEN_IMAGES = 5
# Below these a spread is the drawing's, not the camera's: images of a simulation, or one image many times.
LEAST_SPREAD = {"brightness": 1.0, "sharpness": 0.05, "likeness": 0.02}
# Shifts that are tried, as a share of the image's sides.
MAX_SHIFT = 0.34


class Look(NamedTuple):
    """What an image is like: its mean luminance (0 to 255), the logarithm of the energy of its finest detail, and
    itself as a small gray image (h, w) without mean, of length 1."""

    brightness: float
    sharpness: float
    small: np.ndarray

    def as_json(self) -> dict:
        return {"brightness": self.brightness, "sharpness": self.sharpness, "small": np.round(self.small, 5).tolist()}


def look_from(fields: Mapping) -> Look:
    return Look(fields["brightness"], fields["sharpness"], np.asarray(fields["small"], np.float64))


def look_at(pixels: np.ndarray) -> Look:
    """Of uint8 (h, w, 3)."""
    # A photograph of 36 megapixels is looked at as closely as one of half a megapixel, and in the same time.
    step = max(1, max(pixels.shape[:2]) // MAX_SIDE_PX)
    gray = pixels[::step, ::step] @ LUMINANCE
    top, left = ((side - min(side, MAX_SIDE_PX)) // 2 for side in pixels.shape[:2])
    fine = pixels[top : top + MAX_SIDE_PX, left : left + MAX_SIDE_PX] @ LUMINANCE
    # The Laplacian of neighbors: nothing but noise and edges is left, and a blur takes most of it away.
    detail = 4 * fine[1:-1, 1:-1] - fine[:-2, 1:-1] - fine[2:, 1:-1] - fine[1:-1, :-2] - fine[1:-1, 2:]
    energy = float((detail**2).mean()) if detail.size else 0.0
    return Look(float(gray.mean()), math.log(energy + 1e-3), _unit(_small(gray)))


class Usual(NamedTuple):
    """Between which bounds a statistic of good images lies."""

    low: float
    high: float


class References(NamedTuple):
    """What accepted images are like."""

    brightness: Usual
    sharpness: Usual
    likeness: Usual
    mean: np.ndarray


def references_of(looks: Sequence[Look]) -> References:
    """From accepted images, REFERENCES or more."""
    mean = _unit(np.mean([look.small for look in looks], axis=0))
    # Each against the mean of the others: with itself in it, every image would look more alike than a new one does.
    total = np.sum([look.small for look in looks], axis=0)
    likenesses = [_z(float((look.small * _unit(total - look.small)).sum())) for look in looks]
    return References(
        usual([look.brightness for look in looks], LEAST_SPREAD["brightness"]),
        usual([look.sharpness for look in looks], LEAST_SPREAD["sharpness"]),
        usual(likenesses, LEAST_SPREAD["likeness"]),
        mean,
    )


def usual(values: Sequence[float], least_spread: float, rate: float = CHECK_FALSE_ALARM_RATE) -> Usual:
    """Bounds that one further value crosses, each, with probability `rate`: those of Student's t for one further draw
    of a normal distribution."""
    count = len(values)
    spread = max(float(np.std(values, ddof=1)), least_spread) * math.sqrt(1 + 1 / count)
    far = float(stdtrit(count - 1, 1 - rate)) * spread
    middle = float(np.mean(values))
    return Usual(middle - far, middle + far)


def problems(look: Look, references: References) -> list[CameraProblem]:
    """What is wrong with an image, the cause of the others first."""
    found: list[CameraProblem] = []
    if look.brightness < references.brightness.low:
        found.append("too dark")
    elif look.brightness > references.brightness.high:
        found.append("too bright")
    if look.sharpness < references.sharpness.low:
        found.append("blurred")
    if _z(float((look.small * references.mean).sum())) < references.likeness.low:
        is_moved = _z(_best_likeness(look.small, references.mean)) >= references.likeness.low
        found.append("moved" if is_moved else "another product")
    return found


def is_frozen(digests: Sequence[str]) -> bool:
    """Whether the last ones, in the order in which they came, are all of one image."""
    return len(digests) >= FROZEN_IMAGES and len(set(digests[-FROZEN_IMAGES:])) == 1


def _small(gray: np.ndarray) -> np.ndarray:
    """Means over SMALL_PX x SMALL_PX cells."""
    rows = np.linspace(0, gray.shape[0], SMALL_PX + 1).astype(int)[:-1]
    columns = np.linspace(0, gray.shape[1], SMALL_PX + 1).astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(gray, rows, axis=0), columns, axis=1)
    counts = np.outer(np.diff([*rows, gray.shape[0]]), np.diff([*columns, gray.shape[1]]))
    # Of an image with fewer pixels some cells have none: they repeat the next one.
    return sums / np.maximum(counts, 1)


def _unit(small: np.ndarray) -> np.ndarray:
    centered = small - small.mean()
    length = float(np.linalg.norm(centered))
    return centered / length if length > 0 else centered


def _z(correlation: float) -> float:
    """Fisher's: correlations near 1 would crowd together."""
    return math.atanh(min(max(correlation, -0.99999), 0.99999))


def _best_likeness(small: np.ndarray, mean: np.ndarray) -> float:
    """The highest correlation of what two images share, with one moved against the other."""
    reach = int(MAX_SHIFT * SMALL_PX)
    best = -1.0
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            here = small[max(0, down) : SMALL_PX + min(0, down), max(0, right) : SMALL_PX + min(0, right)]
            there = mean[max(0, -down) : SMALL_PX + min(0, -down), max(0, -right) : SMALL_PX + min(0, -right)]
            best = max(best, float((_unit(here) * _unit(there)).sum()))
    return best
