"""The simplest method of each kind: the answers that every other method has to beat."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from baselines.contract.method import NotFitted, Pair, Prediction, Sample, batches, load_method, save_method
from pretrain.command import UserError


class MeanImage:
    """How far an image is from the mean of the normals, place by place, after both were made small."""

    sees_normals = True

    def __init__(self, *, size_px: int = 32, batch_size: int = 32) -> None:
        self.size_px, self.batch_size = size_px, batch_size

    def fit(self, training: Sequence[Sample]) -> Self:
        """Learns nothing of other categories; any earlier normals are forgotten."""
        vars(self).pop("mean_", None)
        return self

    def refer(self, normals: Sequence[Tensor]) -> Self:
        """Take the mean. Each normal's own score is its distance to the mean of the others."""
        count = len(normals)
        if count == 0:
            raise UserError("no normal images to refer to: give at least one.")
        mean = sum(self._small(batch).double().sum(dim=0) for batch in batches(normals, self.batch_size)) / count
        self.mean_ = mean.float()  # (3, size_px, size_px)
        scores = torch.cat([prediction.scores for prediction in self.predict(normals)])
        # x - mean of the others = n / (n - 1) * (x - mean of all); distances are squared.
        self.normal_scores_ = scores * (count / (count - 1)) ** 2 if count > 1 else scores[:0]
        return self

    def predict(self, images: Iterable[Tensor]) -> Iterator[Prediction]:
        """Score: mean squared distance over the image. Map: its mean over the colors, at the image's size."""
        if not hasattr(self, "mean_"):
            raise NotFitted("MeanImage has no normals yet: call refer first.")
        for batch in batches(images, self.batch_size):  # (b, 3, h, w)
            distances = (self._small(batch) - self.mean_).square().mean(dim=1)  # (b, size_px, size_px)
            maps = interpolate(distances[:, None], batch.shape[-2:], mode="bilinear")[:, 0]  # (b, h, w)
            yield Prediction(distances.mean(dim=(1, 2)), maps)

    def save(self, folder: Path) -> None:
        save_method(self, folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        return load_method(cls, folder)

    def _small(self, images: Tensor) -> Tensor:
        return adaptive_avg_pool2d(images, self.size_px)


class Untouched:
    """The degraded image itself: what a restorer must improve on to be of use."""

    def fit(self, pairs: Sequence[Pair]) -> Self:
        return self

    def restore(self, images: Tensor) -> Tensor:
        return images.clone()

    def save(self, folder: Path) -> None:
        save_method(self, folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        return load_method(cls, folder)
