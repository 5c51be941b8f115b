"""Pairs to learn restoration from and to evaluate it on: a degraded image, the clean one, and the defect's mask.

For training, a synthetic anomaly is added to a good image, which is then degraded: the clean image shows the defect,
so that a restorer which paints defects over is wrong.
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


class PairBatch(NamedTuple):
    """Stacked pairs: degraded and clean float32 (b, 3, h, w), masks bool (b, h, w)."""

    degraded: Tensor
    clean: Tensor
    masks: Tensor

    def to(self, device: torch.device) -> "PairBatch":
        return PairBatch(*(tensor.to(device) for tensor in self))


class NamedPair(NamedTuple):
    """A pair to evaluate on: `name` is its path in the data folder, without the ending."""

    name: str
    category: str
    pair: Pair


class SyntheticPairs(Sequence[Pair]):
    """Good images, each with a synthetic anomaly, degraded; `count` of them, no two alike.

    Number i is a function of the images, `severity`, `seed` and i. `images` are float32 (3, h, w), all of one size;
    from each a square of `crop_px` is cut, mirrored or not.
    """

    def __init__(
        self, images: Sequence[Tensor], severity: str, crop_px: int, count: int, seed: int, device: torch.device | str
    ) -> None:
        if not len(images):
            raise UserError("there are no good images to learn restoration from: name categories that have some.")
        self.images, self.severity, self.crop_px, self.count, self.seed = images, severity, crop_px, count, seed
        self.device = torch.device(device)
        check_crop(crop_px, images[0])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, position: int) -> Pair:
        if not 0 <= position < self.count:
            raise IndexError(position)
        degraded, clean, masks = self.batch([position])
        return Pair(degraded[0], clean[0], masks[0])

    def batch(self, positions: Sequence[int]) -> PairBatch:
        """The pairs with these numbers, on the device."""
        chosen = [shuffled(position, len(self.images), self.seed) for position in positions]
        draws = uniforms(positions, 6, self.seed, "crop")
        crops = torch.stack([cut(self.images[i], self.crop_px, *row) for i, row in zip(chosen, draws, strict=True)])
        # Anomalies take their texture from the next image.
        textures = [self.images[(i + 1) % len(self.images)] for i in chosen]
        sources = torch.stack([cut(image, self.crop_px, *row) for image, row in zip(textures, draws, strict=True)])
        clean, masks = add_anomaly(crops.to(self.device), sources.to(self.device), self.seed, 0, positions)
        return PairBatch(degrade(clean, self.severity, self.seed, list(positions)), clean, masks)


class CroppedPairs:
    """Crops of given pairs, such as real ones of any size; number i is a function of the seed and i."""

    def __init__(self, pairs: Sequence[Pair], crop_px: int, seed: int) -> None:
        if not len(pairs):
            raise UserError("there are no pairs to learn from.")
        self.pairs, self.crop_px, self.seed = pairs, crop_px, seed

    def batch(self, positions: Sequence[int]) -> PairBatch:
        crops = []
        for position, row in zip(positions, uniforms(positions, 6, self.seed, "crop"), strict=True):
            number = shuffled(position, len(self.pairs), self.seed)
            pair = self.pairs[number]
            check_pair(pair, f"pair {number}")
            check_crop(self.crop_px, pair.clean)
            mask = torch.zeros_like(pair.clean[0], dtype=torch.bool) if pair.mask is None else pair.mask
            crops.append([cut(image, self.crop_px, *row) for image in (pair.degraded, pair.clean, mask)])
        return PairBatch(*(torch.stack(batch) for batch in zip(*crops, strict=True)))


class DegradedImages(Sequence[NamedPair]):
    """Images of a data set, each beside its degraded version and with its real mask, to evaluate on.

    The degradation depends on an image's content and the seed alone: it is the same in every folder and every run.
    """

    def __init__(self, images: ImageSet, severity: str, seed: int = 0) -> None:
        self.images, self.severity, self.seed = images, severity, seed
        self._samples = Samples(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> NamedPair:
        sample, digest = self._samples[position], self.images.entries[position].digest
        mask = sample.mask
        if mask is None and not sample.label:  # a good image has no defect; a defective one's is not known
            mask = torch.zeros_like(sample.image[0], dtype=torch.bool)
        # Keyed by content: a copy in another folder, or another order of files, is degraded alike.
        degraded = degrade(sample.image[None], self.severity, self.seed, [digest])[0]
        name = sample.path.relative_to(self.images.folder).with_suffix("").as_posix()
        return NamedPair(name, sample.category, Pair(degraded, sample.image, mask))

    def __iter__(self) -> Iterator[NamedPair]:
        return (self[position] for position in range(len(self)))


def good_images(images: ImageSet) -> Images:
    """The good images of a data set, to add synthetic anomalies to."""
    return Images(images.subset([i for i, record in enumerate(images.records) if not record.is_anomaly]))


def cut(image: Tensor, crop_px: int, down: float, across: float, *mirrored: float) -> Tensor:
    """A square of (..., h, w): `down` and `across` in [0, 1) say where, and each number of `mirrored` below a half
    flips a side."""
    top, left = (
        int(start * (side - crop_px + 1)) for start, side in zip((down, across), image.shape[-2:], strict=True)
    )
    image = image[..., top : top + crop_px, left : left + crop_px]
    sides = [side for side, draw in zip((-1, -2), mirrored, strict=False) if draw < 0.5]
    return image.flip(sides) if sides else image


def shuffled(position: int, count: int, seed: int) -> int:
    """Which of `count` images comes at a position: every epoch is a shuffle of its own, computed and not stored."""
    epoch, position_in_epoch = divmod(position, count)
    return int(np.random.default_rng([seed, epoch]).permutation(count)[position_in_epoch])


def check_crop(crop_px: int, image: Tensor) -> None:
    """Raise UserError unless a square of that side can be cut out of (..., h, w)."""
    height, width = image.shape[-2:]
    if not MIN_CROP_PX <= crop_px <= min(height, width):
        raise UserError(
            f"squares of {crop_px} px cannot be cut out of images of {width}x{height}: choose crop_px from "
            f"{MIN_CROP_PX} to {min(height, width)}, or larger images."
        )


def check_pair(pair: Pair, name: str) -> None:
    """Raise UserError where the images of a pair differ in size or are not finite."""
    if pair.degraded.shape != pair.clean.shape:
        sizes = [f"{image.shape[-1]}x{image.shape[-2]}" for image in (pair.degraded, pair.clean)]
        raise UserError(f"{name}: the degraded image is {sizes[0]} and the clean one {sizes[1]}: they must be alike.")
    if pair.mask is not None and pair.mask.shape != pair.clean.shape[-2:]:
        sizes = [f"{image.shape[-1]}x{image.shape[-2]}" for image in (pair.mask, pair.clean)]
        raise UserError(f"{name}: the mask is {sizes[0]} and its image {sizes[1]}: they must be alike.")
    if not (pair.degraded.isfinite().all() and pair.clean.isfinite().all()):
        raise UserError(f"{name}: an image has values that are NaN or infinite; leave it out, or make it again.")
