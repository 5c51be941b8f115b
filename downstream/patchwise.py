"""What all methods of patch statistics share: pictures become patches, distances of patches become maps and scores."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.method import NotFitted, Prediction, Sample, batches, load_method, save_method
from embeddings.patches import Patches
from pretrain.command import Mistake
from pretrain.encoder import LEVELS, Encoder, fingerprint, load_encoder, make_encoder

ENCODER_FILE = "encoder.safetensors"


@dataclass(kw_only=True, eq=False, repr=False)
class PatchMethod(ABC):
    """Compares the patches of a picture with those of some normals of its category.

    A subclass learns them in `refer` and gives the distances of patches in `distances`. `encoder` is an Encoder, an
    encoder file, or what `make_encoder` starts from: random (with `architecture` and `seed`), imagenet, a .pth.
    `blur` is the width of the Gaussian that smooths a map, as share of its side. A picture's score is the mean of the
    highest `top_share` of its map, of one pixel at least.
    """

    encoder: Encoder | str = "random"
    architecture: str = "resnet18"
    levels: Sequence[str] = LEVELS[:3]
    grid: int | None = 28
    neighbourhood: int = 3
    blur: float = 1 / 64
    top_share: float = 0.0
    seed: int = 0
    batch_size: int = 16

    sees_normals: ClassVar[bool] = True

    def fit(self, training: Sequence[Sample]) -> Self:
        """Learns nothing of other categories; any earlier normals are forgotten."""
        self._forget()
        return self

    @abstractmethod
    def refer(self, normals: Sequence[Tensor]) -> Self:
        """Learn from normals of one category, at least one, all of one size; forgets the category before."""

    @abstractmethod
    def distances(self, vectors: Tensor) -> Tensor:
        """How strange patches (b, rows, columns, d) are: (b, rows, columns)."""

    def predict(self, pictures: Iterable[Tensor]) -> Iterator[Prediction]:
        """Scores (b,) and maps (b, h, w), batch by batch."""
        if not hasattr(self, "normal_scores_"):
            raise NotFitted(f"{type(self).__name__} has no normals yet: call refer first.")
        for images in batches(pictures, self.batch_size):
            yield self._judged(self.distances(self.patches(images)), images.shape[-2:])

    def patches(self, images: Tensor) -> Tensor:
        """float32 pictures (b, 3, h, w) -> patch vectors (b, rows, columns, d)."""
        if "_patches" not in vars(self):
            self._patches = self._make_patches(self._opened_encoder())
        return self._patches(images)

    def save(self, folder: Path) -> None:
        """Write the method and its encoder; nothing else is needed to load them elsewhere."""
        self._save(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        method = load_method(cls, folder)
        method.encoder = load_encoder(folder / ENCODER_FILE)
        if vars(method).pop("fingerprint_", None) != fingerprint(method.encoder):
            raise Mistake(f"{folder / ENCODER_FILE} is not the encoder that the method in {folder} was fitted with.")
        return method

    def _save(self, folder: Path, **instead: object) -> None:
        """Write with some learned attributes replaced; none leaves one out."""
        encoder = self._opened_encoder()
        encoder.save(folder / ENCODER_FILE)
        saved = copy.copy(self)
        saved.encoder, saved.levels, saved.fingerprint_ = ENCODER_FILE, list(self.levels), fingerprint(encoder)
        for name, value in instead.items():
            if value is None:
                delattr(saved, name)
            else:
                setattr(saved, name, value)
        save_method(saved, folder)

    def _make_patches(self, encoder: Encoder) -> Patches:
        return Patches(encoder, self.levels, grid=self.grid, neighbourhood=self.neighbourhood)

    def _opened_encoder(self) -> Encoder:
        if isinstance(self.encoder, Encoder):
            return self.encoder
        if "_encoder" not in vars(self):
            is_file = str(self.encoder).endswith(".safetensors")
            opened = (
                load_encoder(self.encoder)
                if is_file
                else make_encoder(self.architecture, self.encoder, seed=self.seed).eval()
            )
            self._encoder = opened
        return self._encoder

    def _forget(self) -> None:
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)

    def _add_normals(self, judged: Prediction) -> None:
        """Keep the scores of normals that were judged without themselves, and the highest values of their maps."""
        peaks = judged.maps.flatten(1).amax(1)
        for name, new in (("normal_scores_", judged.scores), ("normal_peaks_", peaks)):
            setattr(self, name, torch.cat([getattr(self, name, new[:0]), new]))

    def _judged(self, distances: Tensor, shape: Sequence[int]) -> Prediction:
        """Distances (b, rows, columns) as maps at `shape` and scores."""
        down, across = (
            enlargement(cells, pixels, self.blur, distances.device)
            for cells, pixels in zip(distances.shape[-2:], shape, strict=True)
        )
        maps = down @ distances @ across.T  # (b, h, w)
        flat = maps.flatten(1)
        highest = flat.topk(max(1, round(self.top_share * flat.shape[1])), dim=1).values
        return Prediction(highest.mean(1), maps)


@cache
def enlargement(cells: int, pixels: int, blur: float, device: torch.device) -> Tensor:
    """What enlarges `cells` numbers to `pixels` by linear interpolation and then smooths them with a Gaussian of
    `blur` times their length, as a matrix (pixels, cells): a map takes two matrix products."""
    enlarged = F.interpolate(torch.eye(cells)[None], pixels, mode="linear")[0].T  # (pixels, cells)
    place = torch.arange(pixels, dtype=torch.float64)
    weights = torch.exp(-0.5 * ((place[:, None] - place) / max(blur * pixels, 1e-6)).square())
    weights /= weights.sum(1, keepdim=True)  # at the border, of what there is
    return (weights.float() @ enlarged).to(device)
