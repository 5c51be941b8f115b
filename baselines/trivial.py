"""The trivial baselines, which every method has to beat: the distance to the mean image, and the frame alone."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from baselines.contract.method import (
    CPU,
    NotFitted,
    Prediction,
    Sample,
    batches,
    forget,
    load_method,
    move,
    predicted,
    save_method,
)
from pretrain.command import UserError


class MeanImage:
    """The distance of an image to the mean of the normals, pixel by pixel, after both were made small."""

    sees_normals = True
    device: ClassVar[torch.device] = CPU

    def __init__(self, *, size_px: int = 32, batch_size: int = 32) -> None:
        self.size_px, self.batch_size = size_px, batch_size

    def fit(self, training: Sequence[Sample]) -> Self:
        """Learns nothing of other categories; any earlier normals are forgotten."""
        forget(self)
        return self

    def refer(self, normals: Sequence[Tensor]) -> Self:
        """Take the mean. Each normal's own score is its distance to the mean of the others."""
        count = len(normals)
        if count == 0:
            raise UserError("no normal images to refer to: give at least one.")
        parts = batches(normals, self.batch_size, self.device)
        self.mean_ = (sum(self._small(part).double().sum(dim=0) for part in parts) / count).float()  # (3, size, size)
        scores = torch.cat([prediction.scores for prediction in self.predict(normals)])
        # x - mean of the others = n / (n - 1) * (x - mean of all); distances are squared.
        self.normal_scores_ = scores * (count / (count - 1)) ** 2 if count > 1 else scores[:0]
        return self

    def predict(self, images: Iterable[Tensor]) -> Iterator[Prediction]:
        """Score: mean squared distance over the image. Map: its mean over the colors, at the image's size."""
        if not hasattr(self, "mean_"):
            raise NotFitted("MeanImage has no normals yet: call refer first.")
        for batch in batches(images, self.batch_size, self.device):
            yield predicted(self._predict_batch, batch)

    def _predict_batch(self, images: Tensor) -> Prediction:
        distances = (self._small(images) - self.mean_).square().mean(dim=1)  # (b, size_px, size_px)
        maps = interpolate(distances[:, None], images.shape[-2:], mode="bilinear")[:, 0]  # (b, h, w)
        return Prediction(distances.mean(dim=(1, 2)), maps)

    def to(self, device: torch.device | str) -> Self:
        return move(self, device)

    def save(self, folder: Path) -> None:
        save_method(self, folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        return load_method(cls, folder)

    def _small(self, images: Tensor) -> Tensor:
        return adaptive_avg_pool2d(images, self.size_px)


class FrameColor:
    """A control that sees only the frame of an image: what figures owe to the lighting rather than to defects.

    Products lie in the middle. Where the outermost tenth of an image alone tells good ones from defective ones, they
    were photographed differently, and image-level figures of that category need not be about defects. The score is
    the distance to the nearest normal in mean and standard deviation of each color on each side of the frame.

    `width` is that of the frame, as share of the image's side.
    """

    sees_normals = True
    device: ClassVar[torch.device] = CPU

    def __init__(self, *, width: float = 0.1, batch_size: int = 32) -> None:
        self.width, self.batch_size = width, batch_size

    def fit(self, training: Sequence[Sample]) -> Self:
        """Learns nothing of other categories; any earlier normals are forgotten."""
        forget(self)
        return self

    def refer(self, normals: Sequence[Tensor]) -> Self:
        """Keep the statistics of normals, one at least. Each one's own score is its distance to the nearest other."""
        statistics = [self._statistics(images) for images in batches(normals, self.batch_size, self.device)]
        if not statistics:
            raise UserError("no normal images to refer to: give at least one.")
        known = torch.cat(statistics)  # (n, 24)
        # Each statistic in units of its own spread; 1/255 is the least that an image can tell.
        self.unit_ = known.std(0, correction=0).clamp(min=1 / 255)
        self.known_ = known / self.unit_
        between = self._distances(self.known_).fill_diagonal_(torch.inf)
        self.normal_scores_ = between.amin(1) if len(known) > 1 else known.new_zeros(0)
        return self

    def predict(self, images: Iterable[Tensor]) -> Iterator[Prediction]:
        """Scores alone: where in the image a defect is, a frame cannot say."""
        if not hasattr(self, "known_"):
            raise NotFitted("FrameColor has no normals yet: call refer first.")
        for batch in batches(images, self.batch_size, self.device):
            yield Prediction(self._distances(self._statistics(batch) / self.unit_).amin(1), None)

    def to(self, device: torch.device | str) -> Self:
        return move(self, device)

    def save(self, folder: Path) -> None:
        save_method(self, folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        return load_method(cls, folder)

    def _statistics(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) -> (b, 24): mean and standard deviation of three colors on four sides."""
        height_px, width_px = (max(1, round(self.width * side)) for side in images.shape[-2:])
        sides = (
            images[..., :height_px, :],
            images[..., -height_px:, :],
            images[..., :width_px],
            images[..., -width_px:],
        )
        flat = [side.flatten(2).double() for side in sides]
        return torch.cat([part for side in flat for part in (side.mean(2), side.std(2, correction=0))], dim=1).float()

    def _distances(self, statistics: Tensor) -> Tensor:
        """(b, 24) -> (b, n), to each normal; by differences, so that a copy of a normal is at exactly 0."""
        return (statistics[:, None] - self.known_).square().mean(2).sqrt()
