"""Each image turned and moved onto a reference, so that positions and regions of interest stay on the product.

How an image lies is sought in three steps, on gray copies: at 64 px against the reference turned by every third
degree, all shifts at once by Fourier transforms; the few that fit best are then followed to their nearest optimum by
Gauss and Newton's method (Evangelidis and Psarakis 2008 for the criterion, which knows no brightness or contrast); the
best of them once more at 128 px. The correlation there is the confidence. numpy and PIL alone: an exported model aligns
too, without torch.

A pose is only believed if good images lie so: correlations, turns and shifts beyond theirs say that the image shows
something else, or that the product lies where it never lay, which may be the very defect. Then the image is judged as
it lies, and said to be not aligned.
"""

import base64
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import NamedTuple, Self

import numpy as np
from PIL import Image

from pretrain.command import UserError
from pretrain.data.images import some_of

COARSE_PX, FINE_PX = 64, 128
TURNS = 120
MAX_CANDIDATES, CANDIDATES_APART = 4, 3  # in turns of 3 degrees
COARSE_STEPS, FINE_STEPS = 6, 10
# Of candidates that fit as well as the best, the one that moves the image least: a symmetric product lies upright.
AS_GOOD = 0.01
# What good images need, and half of it more, and this: nine in ten of them say what that is.
USUAL, ROOM, MIN_TURN, MIN_SHIFT = 0.9, 1.5, 3.0, 0.03
# Beyond a third of a circle, products lie in any direction.
ANY_TURN = 120.0
# A correlation so many robust deviations below those of good images, and so much less, shows something else. (A capsule
# that was squeezed has .99 where good ones have .998, and lies as they do.)
DEVIATIONS, LEAST_OF_MEDIAN, LEAST_EVER = 6.0, 0.9, 0.5
MIN_OVERLAP = 0.3
MAX_TO_CHOOSE, MAX_TO_AVERAGE = 9, 48


class Pose(NamedTuple):
    """How a product lies in an image: turned clockwise by `turn` degrees, and moved by `shift` (x, y), as shares of the
    reference's longer side, from how it lies in the reference; `correlation` of the two once aligned, at most 1."""

    turn: float
    shift: tuple[float, float]
    correlation: float
    is_aligned: bool


class Aligned(NamedTuple):
    """What an answer says of the alignment of an image; `shift_px` in pixels of the original image."""

    turn_degrees: float
    shift_px: tuple[float, float]
    correlation: float
    is_aligned: bool


@dataclass(frozen=True)
class Alignment:
    """`reference` uint8 (h, w): how good images look on average, gray, FINE_PX along the longer side. Images are
    `aspect` wide : high on disk. One of a lower correlation, or that would have to be turned or moved further, is not
    aligned; `max_shift` is a share of the longer side."""

    reference: np.ndarray
    aspect: float
    least_correlation: float = -1.0
    max_turn: float = 180.0
    max_shift: float = 0.5

    def find(self, pixels: np.ndarray) -> Pose:
        """How the product lies in an image uint8 (h, w, 3), of any size, which may be stretched."""
        return self.find_gray(gray(pixels, self.reference.shape))

    def find_gray(self, small: np.ndarray) -> Pose:
        """The same of a gray copy, float32 of the size of the reference."""
        coarse, size = self._coarse, _coarse_size(self.reference.shape)
        image = _resized(small, size)
        followed = [_followed(image, coarse, start, COARSE_STEPS) for start in self._candidates(image)]
        possible = [pose for pose in followed if self._is_possible(pose)]
        if not possible:  # say what it would take, and that it is not done
            return max(followed, key=lambda pose: pose.correlation)._replace(is_aligned=False)
        best = max(pose.correlation for pose in possible)
        chosen = min((pose for pose in possible if pose.correlation >= best - AS_GOOD), key=_motion)
        pose = _followed(small, self.reference.astype(np.float32), chosen, FINE_STEPS)
        return pose._replace(is_aligned=self.believes(pose))

    def believes(self, pose: Pose) -> bool:
        """Whether good images lie so."""
        return self._is_possible(pose) and pose.correlation >= self.least_correlation

    def aligned(self, pixels: np.ndarray, pose: Pose) -> np.ndarray:
        """An image uint8 (h, w, 3) as it would lie in the reference; as it is where it is not aligned. What comes from
        outside has the color of the border that is nearest."""
        return _warped_colors(pixels, _in_pixels(pose, pixels.shape[:2], self.aspect)) if pose.is_aligned else pixels

    def moved_back(self, values: np.ndarray, pose: Pose) -> np.ndarray:
        """A map (h, w) of an aligned image, as the image lies: float32 by interpolation, integers as they are; 0 where
        the aligned image showed nothing."""
        if not pose.is_aligned:
            return values
        matrix = np.linalg.inv(_in_pixels(pose, values.shape, self.aspect))
        if values.dtype == np.float32:
            return _warped(values, matrix, 0.0)
        return np.asarray(_transformed(Image.fromarray(values), matrix, Image.Resampling.NEAREST))

    def as_json(self) -> dict:
        file = BytesIO()
        Image.fromarray(self.reference).save(file, "PNG")
        others = {name: value for name, value in vars(self).items() if name in LIMITS}
        return {"reference": base64.b64encode(file.getvalue()).decode(), **others}

    @classmethod
    def from_json(cls, stored: Mapping) -> Self:
        """Raises ValueError or TypeError for anything but what `as_json` gives."""
        if set(stored) != {"reference", *LIMITS} or not isinstance(stored["reference"], str):
            raise ValueError(f"an alignment has {', '.join(sorted(map(str, stored)))}"[:80])
        limits = [stored[name] for name in LIMITS]
        if not all(type(limit) in (int, float) and math.isfinite(limit) for limit in limits) or not limits[0] > 0:
            raise ValueError("a limit of the alignment is no number")
        with Image.open(BytesIO(base64.b64decode(stored["reference"], validate=True)), formats=("PNG",)) as image:
            if image.mode != "L" or image.size[::-1] != _fine_size(limits[0]):
                raise ValueError(f"the alignment's reference is {image.mode} of {image.size}")
            return cls(np.asarray(image), *limits)

    def _is_possible(self, pose: Pose) -> bool:
        return abs(pose.turn) <= self.max_turn and max(map(abs, pose.shift)) <= self.max_shift

    @cached_property
    def _coarse(self) -> np.ndarray:
        return _resized(self.reference.astype(np.float32), _coarse_size(self.reference.shape))

    @cached_property
    def _turned(self) -> tuple[np.ndarray, np.ndarray]:
        """Fourier transforms of the reference in all turns, on square ground, and the turns, in degrees."""
        turns = np.arange(TURNS) * 360 / TURNS
        turns = turns[np.abs(_signed(turns)) <= self.max_turn + 360 / TURNS]
        square = _on_square(self._coarse)
        turned = [_warped(square, _matrix(-turn, (0, 0), square.shape), 0.0) for turn in turns]
        spectra = np.fft.rfft2(np.stack(turned).astype(np.float32))
        lengths = np.sqrt(np.square(turned).sum((1, 2), keepdims=True)).clip(min=1e-6)
        return np.conj(spectra / lengths), turns

    def _candidates(self, image: np.ndarray) -> Iterator[Pose]:
        """As it lies, and where turned references correlate most."""
        yield Pose(0.0, (0.0, 0.0), 0.0, False)
        spectra, turns = self._turned
        square = _on_square(image)
        side = len(square)
        found = np.fft.irfft2(np.fft.rfft2(square) * spectra, s=square.shape)  # (turns, side, side)
        best = found.reshape(len(turns), -1).argmax(1)
        heights = found.reshape(len(turns), -1).max(1)
        for _ in range(MAX_CANDIDATES):
            highest = int(heights.argmax())
            if not np.isfinite(heights[highest]):
                return
            y, x = divmod(int(best[highest]), side)
            shift = ((x + side // 2) % side - side // 2, (y + side // 2) % side - side // 2)
            longer = max(image.shape)
            yield Pose(_signed(turns[highest]), (shift[0] / longer, shift[1] / longer), 0.0, False)
            heights[np.abs(_signed(turns - turns[highest])) <= CANDIDATES_APART * 360 / TURNS] = -np.inf


LIMITS = ("aspect", "least_correlation", "max_turn", "max_shift")


def fit_alignment(
    images: Iterable[np.ndarray], aspect: float, reference: np.ndarray | None = None
) -> tuple[Alignment, list[Pose]]:
    """An alignment onto how good images (uint8 (h, w, 3), width : height on disk `aspect`) look on average, as they lie
    in `reference`, or in the one that is most like the others; and how each of them lies. Raises UserError where they
    have nothing to align by."""
    size = _fine_size(aspect)
    grays = [gray(pixels, size).astype(np.uint8) for pixels in images]  # of thousands, floats would take gigabytes
    spread = some_of(len(grays), MAX_TO_AVERAGE)
    start = _most_alike([grays[i] for i in spread[:: max(1, len(spread) // MAX_TO_CHOOSE)]])
    if reference is not None:
        start = gray(reference, size).astype(np.uint8)
    first = Alignment(start, aspect)
    poses = [(grays[i], first.find_gray(grays[i].astype(np.float32))) for i in spread]
    mean = Alignment(_average(start, poses), aspect)
    found = [mean.find_gray(small.astype(np.float32)) for small in grays]
    correlations = np.array([pose.correlation for pose in found])
    middle = float(np.median(correlations))
    if middle < LEAST_EVER:
        raise UserError(
            f"these images have nothing in common to align them by (a correlation of {middle:.2f} once aligned, "
            f"{LEAST_EVER} is needed): leave out --align."
        )
    deviation = 1.4826 * float(np.median(np.abs(correlations - middle)))
    least = min(middle - DEVIATIONS * deviation, LEAST_OF_MEDIAN * middle)
    turn = ROOM * float(np.quantile([abs(pose.turn) for pose in found], USUAL)) + MIN_TURN
    shift = ROOM * float(np.quantile([max(map(abs, pose.shift)) for pose in found], USUAL)) + MIN_SHIFT
    limits = (max(least, LEAST_EVER), 180.0 if turn > ANY_TURN else turn, min(shift, 0.5))
    alignment = Alignment(mean.reference, aspect, *limits)
    for number, pose in enumerate(found):  # what was sought without limits may lie elsewhere within them
        if alignment.believes(pose):
            found[number] = pose._replace(is_aligned=True)
        else:
            found[number] = alignment.find_gray(grays[number].astype(np.float32))
    return alignment, found


class AlignedPixels:
    """In place of an ImageSet's `pixels`: its rows, each as the alignment shows it. `poses` are by row."""

    def __init__(self, pixels: np.ndarray, alignment: Alignment, poses: Mapping[int, Pose]) -> None:
        self._pixels, self._alignment, self._poses = pixels, alignment, poses

    @property
    def _mmap(self) -> object:
        """What `cache.let_go` gives back."""
        return getattr(self._pixels, "_mmap", None)

    def __getitem__(self, rows: Sequence[int]) -> np.ndarray:
        return np.stack([self._alignment.aligned(self._pixels[row], self._poses[row]) for row in rows])


def gray(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A gray copy of an image uint8 (h, w, 3), float32 of `size`."""
    return _resized(np.asarray(Image.fromarray(pixels).convert("L")).astype(np.float32), size)


def as_answered(pose: Pose, height: int, width: int) -> Aligned:
    """For an image of that size."""
    longer = max(height, width)
    shift = tuple(round(share * longer, 2) for share in pose.shift)
    return Aligned(round(pose.turn, 2), shift, round(pose.correlation, 4), pose.is_aligned)


def _followed(image: np.ndarray, reference: np.ndarray, start: Pose, steps: int) -> Pose:
    """The nearest pose of the highest correlation, by Gauss and Newton's method: small turns and shifts of the aligned
    image that take it nearer to the reference, both without their mean and in units of their length."""
    h, w = reference.shape
    longer = max(h, w)
    x, y = np.arange(w, dtype=np.float32) + (0.5 - w / 2), np.arange(h, dtype=np.float32)[:, None] + (0.5 - h / 2)
    matrix = _matrix(start.turn, (start.shift[0] * longer, start.shift[1] * longer), (h, w))
    best, best_matrix = -1.0, matrix
    for _ in range(steps + 1):
        warped = _warped(image, matrix, np.nan)
        inside = np.isfinite(warped)
        if inside.mean() < MIN_OVERLAP:
            break
        target, length = _centered(reference, inside)
        aligned, own_length = _centered(np.where(inside, warped, 0), inside)
        correlation = float((target * aligned).sum() / max(length * own_length, 1e-9))
        if correlation > best:
            best, best_matrix = correlation, matrix
        down, across = np.gradient(aligned)
        down[~inside], across[~inside] = 0, 0
        # How the aligned image changes with a turn about the middle (radians), and with shifts along x and y.
        slopes = np.stack([down * x - across * y, across, down])[:, inside]
        slopes -= slopes.mean(1, keepdims=True)
        residual = target[inside] * (own_length / max(length, 1e-9)) - aligned[inside]
        normal = slopes @ slopes.T
        step = np.linalg.solve(normal + 1e-6 * np.trace(normal) * np.eye(3) + 1e-12 * np.eye(3), slopes @ residual)
        turn = float(np.clip(np.degrees(step[0]), -5, 5))
        moved = np.clip(step[1:], -longer / 20, longer / 20)
        matrix = matrix @ _matrix(turn, moved, (h, w))
        if abs(turn) < 0.02 and np.abs(moved).max() < 0.02:
            break
    return _pose(best_matrix, best, (h, w))


def _centered(values: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, float]:
    """Values without their mean inside, 0 outside, and their length."""
    centered = np.where(inside, values - values[inside].mean(), 0)
    return centered, float(np.linalg.norm(centered))


def _matrix(turn: float, shift: Sequence[float], size: tuple[int, int]) -> np.ndarray:
    """(3, 3): where a point of the reference lies in an image whose product is turned clockwise about the middle by
    `turn` degrees and then moved by `shift` (x, y). Coordinates are those of pixels' corners: the first lies at .5."""
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    middle_x, middle_y = size[1] / 2, size[0] / 2
    return np.array([
        [c, -s, middle_x - c * middle_x + s * middle_y + shift[0]],
        [s, c, middle_y - s * middle_x - c * middle_y + shift[1]],
        [0, 0, 1],
    ])  # fmt: skip


def _pose(matrix: np.ndarray, correlation: float, size: tuple[int, int]) -> Pose:
    """The turn and shift of a matrix that `_matrix` could have made."""
    middle = np.array([size[1] / 2, size[0] / 2, 1])
    shift = (matrix @ middle - middle)[:2] / max(size)
    turn = math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))
    return Pose(turn, (float(shift[0]), float(shift[1])), correlation, True)


def _in_pixels(pose: Pose, size: tuple[int, int], aspect: float) -> np.ndarray:
    """The matrix of a pose for an image that is `size` (height, width) but was `aspect` on disk: a turn there is no
    pure turn here."""
    height, width = size
    upright = (height, height * aspect)
    longer = max(upright)
    matrix = _matrix(pose.turn, (pose.shift[0] * longer, pose.shift[1] * longer), upright)
    stretch = np.diag([width / upright[1], 1, 1])
    return stretch @ matrix @ np.linalg.inv(stretch)


def _transformed(image: Image.Image, matrix: np.ndarray, resampling: Image.Resampling, fill: float = 0) -> Image.Image:
    """Each pixel from where `matrix` says that it lies in `image`."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix[:2].ravel().tolist(), resampling, fillcolor=fill)


def _warped(values: np.ndarray, matrix: np.ndarray, fill: float) -> np.ndarray:
    """float32 (h, w), with `fill` for what lies outside."""
    warped = np.asarray(_transformed(Image.fromarray(values.astype(np.float32)), matrix, Image.Resampling.BILINEAR))
    return warped if fill == 0 else np.where(_lies_inside(matrix, values.shape), warped, np.float32(fill))


def _warped_colors(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """uint8 (h, w, 3); outside, the nearest pixel of the border."""
    h, w = pixels.shape[:2]
    warped = np.array(_transformed(Image.fromarray(pixels), matrix, Image.Resampling.BICUBIC))
    outside = ~_lies_inside(matrix, (h, w))
    if outside.any():
        rows, columns = np.nonzero(outside)
        x, y, _ = matrix @ np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))])
        warped[rows, columns] = pixels[y.astype(int).clip(0, h - 1), x.astype(int).clip(0, w - 1)]
    return warped


def _lies_inside(matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """bool (h, w): whether a pixel comes from inside of the image."""
    h, w = size
    rows, columns = np.ogrid[:h, :w]
    x = matrix[0, 0] * (columns + 0.5) + matrix[0, 1] * (rows + 0.5) + matrix[0, 2]
    y = matrix[1, 0] * (columns + 0.5) + matrix[1, 1] * (rows + 0.5) + matrix[1, 2]
    return (x >= 0.5) & (x <= w - 0.5) & (y >= 0.5) & (y <= h - 0.5)


def _on_square(values: np.ndarray) -> np.ndarray:
    """Values without what their border usually shows, in the middle of a square of the longer side: 0 around."""
    h, w = values.shape
    side = max(h, w)
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    square = np.zeros((side, side), np.float32)
    top, left = (side - h) // 2, (side - w) // 2
    square[top : top + h, left : left + w] = values - np.median(border)
    return square


def _resized(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if values.shape == size:
        return values
    return np.asarray(Image.fromarray(values).resize(size[::-1], Image.Resampling.BILINEAR))


def _fine_size(aspect: float) -> tuple[int, int]:
    """(height, width) with FINE_PX along the longer side."""
    return max(2, round(FINE_PX / max(1, aspect))), max(2, round(FINE_PX * min(1, aspect)))


def _coarse_size(size: tuple[int, int]) -> tuple[int, int]:
    height, width = (max(2, round(side * COARSE_PX / FINE_PX)) for side in size)
    return height, width


def _most_alike(grays: Sequence[np.ndarray]) -> np.ndarray:
    """The image that the others correlate with most once they are aligned, by the median."""
    if len(grays) < 3:
        return grays[0]
    floats = [_resized(small.astype(np.float32), _coarse_size(small.shape)) for small in grays]
    alike = []
    for own, small in enumerate(grays):
        spectra, _ = Alignment(small, small.shape[1] / small.shape[0])._turned
        others = [_on_square(other) for number, other in enumerate(floats) if number != own]
        heights = [
            np.fft.irfft2(np.fft.rfft2(other) * spectra).max() / max(np.linalg.norm(other), 1e-6) for other in others
        ]
        alike.append(float(np.median(heights)))
    return grays[int(np.argmax(alike))]


def _average(start: np.ndarray, poses: Sequence[tuple[np.ndarray, Pose]]) -> np.ndarray:
    """The mean of gray images, each as it would lie in `start`, uint8."""
    total, count = start.astype(np.float64), np.ones(start.shape)
    middle = float(np.median([pose.correlation for _, pose in poses]))
    for small, pose in poses:
        if pose.correlation < 0.8 * middle:  # another product, or badly aligned: it would blur the mean
            continue
        longer = max(start.shape)
        matrix = _matrix(pose.turn, (pose.shift[0] * longer, pose.shift[1] * longer), start.shape)
        warped = _warped(small, matrix, np.nan)
        inside = np.isfinite(warped)
        total[inside] += warped[inside]
        count += inside
    return np.rint(total / count).clip(0, 255).astype(np.uint8)


def _signed(turn: float | np.ndarray) -> float | np.ndarray:
    """A turn in degrees, from -180 up to 180."""
    signed = (np.asarray(turn) + 180) % 360 - 180
    return float(signed) if signed.ndim == 0 else signed


def _motion(pose: Pose) -> tuple[float, float]:
    return abs(pose.turn), max(map(abs, pose.shift))
