"""Pairs to learn restoration from and to judge it by: what a camera saw, what it should have seen, and the defect.

For learning, a defect is planted into a good image, which is then degraded: the truth has the defect in it, and a
restorer that paints defects over is wrong.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from baselines.contract.method import Images, Pair, Samples
from pretrain.anomalies import add_anomaly
from pretrain.command import UserError
from pretrain.data.dataset import ImageSet
from pretrain.degrade import degrade
from pretrain.random_numbers import uniforms

MIN_CROP_PX = 32


class Batch(NamedTuple):
    """Pairs in a row: float32 (b, 3, h, w) twice, and masks bool (b, h, w)."""

    degraded: Tensor
    clean: Tensor
    masks: Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(part.to(device) for part in self))


class NamedPair(NamedTuple):
    """A pair to judge by: `name` is where it lies in its data folder, without the ending."""

    name: str
    category: str
    pair: Pair


class SyntheticPairs(Sequence[Pair]):
    """Good images, each with a synthetic anomaly, degraded; as many as are asked for, no two alike.

    Number i is a function of the images, `level`, `seed` and i. `images` are float32 (3, h, w), all of one size; of
    each a square of `crop_px` is cut, mirrored or not.
    """

    def __init__(
        self, images: Sequence[Tensor], level: str, crop_px: int, count: int, seed: int, device: torch.device | str
    ) -> None:
        if not len(images):
            raise UserError("there are no good images to learn restoration from: name categories that have some.")
        self.images, self.level, self.crop_px, self.count, self.seed = images, level, crop_px, count, seed
        self.device = torch.device(device)
        check_crop(crop_px, images[0])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, position: int) -> Pair:
        if not 0 <= position < self.count:
            raise IndexError(position)
        degraded, clean, masks = self.batch([position])
        return Pair(degraded[0], clean[0], masks[0])

    def batch(self, positions: Sequence[int]) -> Batch:
        """Pairs on the device."""
        chosen = [self._image(position) for position in positions]
        chance = uniforms(positions, 6, self.seed, "crop")
        crops = torch.stack([cut(self.images[i], self.crop_px, *row) for i, row in zip(chosen, chance, strict=True)])
        others = [self.images[(i + 1) % len(self.images)] for i in chosen]
        sources = torch.stack([cut(other, self.crop_px, *row) for other, row in zip(others, chance, strict=True)])
        clean, masks = add_anomaly(crops.to(self.device), sources.to(self.device), self.seed, 0, positions)
        return Batch(degrade(clean, self.level, self.seed, list(positions)), clean, masks)

    def _image(self, position: int) -> int:
        """Each round through the images is a shuffle of its own."""
        turn, place = divmod(position, len(self.images))
        return int(np.random.default_rng([self.seed, turn]).permutation(len(self.images))[place])


class CroppedPairs:
    """Squares out of pairs that are there, such as real ones of any size; number i is a function of seed and i."""

    def __init__(self, pairs: Sequence[Pair], crop_px: int, seed: int) -> None:
        if not len(pairs):
            raise UserError("there are no pairs to learn from.")
        self.pairs, self.crop_px, self.seed = pairs, crop_px, seed

    def batch(self, positions: Sequence[int]) -> Batch:
        parts = []
        for position, row in zip(positions, uniforms(positions, 6, self.seed, "crop"), strict=True):
            turn, place = divmod(position, len(self.pairs))
            pair = self.pairs[int(np.random.default_rng([self.seed, turn]).permutation(len(self.pairs))[place])]
            check_pair(pair, f"pair {place}")
            check_crop(self.crop_px, pair.clean)
            mask = torch.zeros_like(pair.clean[0], dtype=torch.bool) if pair.mask is None else pair.mask
            parts.append([cut(part, self.crop_px, *row) for part in (pair.degraded, pair.clean, mask)])
        return Batch(*(torch.stack(part) for part in zip(*parts, strict=True)))


class DegradedImages(Sequence[NamedPair]):
    """Images of a data set beside what is left of them at a level, with their real masks, to judge by.

    What happens to an image depends on its content and the seed: it is degraded alike wherever and whenever it is.
    """

    def __init__(self, images: ImageSet, level: str, seed: int = 0) -> None:
        self.images, self.level, self.seed = images, level, seed
        self._samples = Samples(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> NamedPair:
        sample, digest = self._samples[position], self.images.entries[position].digest
        mask = sample.mask
        if mask is None and not sample.label:  # a good image has no defect; of others nobody knows where it is
            mask = torch.zeros_like(sample.image[0], dtype=torch.bool)
        degraded = degrade(sample.image[None], self.level, self.seed, [digest])[0]
        name = sample.path.relative_to(self.images.folder).with_suffix("").as_posix()
        return NamedPair(name, sample.category, Pair(degraded, sample.image, mask))

    def __iter__(self) -> Iterator[NamedPair]:
        return (self[position] for position in range(len(self)))


def good_images(images: ImageSet) -> Images:
    """The good ones, to plant defects into."""
    return Images(images.subset([i for i, record in enumerate(images.records) if not record.is_anomaly]))


def cut(part: Tensor, crop_px: int, down: float, across: float, *mirrored: float) -> Tensor:
    """A square of (..., h, w) at a place in shares, mirrored along either side where the number is below a half."""
    top, left = (int(place * (side - crop_px + 1)) for place, side in zip((down, across), part.shape[-2:], strict=True))
    part = part[..., top : top + crop_px, left : left + crop_px]
    sides = [side for side, chance in zip((-1, -2), mirrored, strict=False) if chance < 0.5]
    return part.flip(sides) if sides else part


def check_crop(crop_px: int, image: Tensor) -> None:
    """Raise UserError unless a square of that side can be cut out of (..., h, w)."""
    height, width = image.shape[-2:]
    if not MIN_CROP_PX <= crop_px <= min(height, width):
        raise UserError(
            f"squares of {crop_px} px cannot be cut out of images of {width}x{height}: choose crop_px from "
            f"{MIN_CROP_PX} to {min(height, width)}, or larger images."
        )


def check_pair(pair: Pair, name: str) -> None:
    """Raise UserError where the parts of a pair do not fit each other, or are no images."""
    if pair.degraded.shape != pair.clean.shape:
        sizes = [f"{part.shape[-1]}x{part.shape[-2]}" for part in (pair.degraded, pair.clean)]
        raise UserError(f"{name}: the degraded image is {sizes[0]} and the clean one {sizes[1]}: they must be alike.")
    if pair.mask is not None and pair.mask.shape != pair.clean.shape[-2:]:
        sizes = [f"{part.shape[-1]}x{part.shape[-2]}" for part in (pair.mask, pair.clean)]
        raise UserError(f"{name}: the mask is {sizes[0]} and its image {sizes[1]}: they must be alike.")
    if not (pair.degraded.isfinite().all() and pair.clean.isfinite().all()):
        raise UserError(f"{name}: an image has values that are NaN or infinite; leave it out, or make it again.")
