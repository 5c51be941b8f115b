"""What all patch methods share: images become patches, distances of patches become anomaly maps and scores."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor

from baselines.contract.method import (
    CPU,
    LEARNING_BATCH,
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
from downstream.methods.bands import Pooled, sampled
from downstream.methods.maps import highest_count, is_large, mean_of_highest, smooth_maps
from downstream.methods.normals import nearest, spread_over, units_of
from downstream.methods.references import background, views_of
from downstream.methods.region import Region
from embeddings.patches import LARGE_PX, Band, Patches, joined, pixels_at_once
from pretrain.command import UserError
from pretrain.encoder import DEFAULT_ARCHITECTURE, LEVELS, Encoder, asked_encoder, fingerprint, load_encoder
from pretrain.normalization import channel_statistics, normalized
from pretrain.weights import IMAGENET

ENCODER_FILE = "encoder.safetensors"
# Of normals' maps that are made at once: 256 MiB.
MAX_MAP_PIXELS = 2**26


@dataclass(kw_only=True, eq=False, repr=False)
class PatchMethod(ABC):
    """Compares the patches of an image with those of some normals of its category.

    A subclass learns them in `_learn` and gives the distances of patches in `_distances`. Patches come in bands, of a
    large image in many: all at once take gigabytes.

    encoder: an Encoder, an encoder file, or what `make_encoder` starts from: random (with `architecture` and `seed`),
        imagenet, a .pth file.
    normalize: whether patches are normalized (normalization.py), by what the normals' channels show.
    reference_views: which views of a normal are learned beside itself; none, flips, rotations, or both.
    foreground: how much less the background counts, 0 to 1; it is what resembles the normals' outermost patches.
    image_weight: weight of the image-level distance, from the pooled vector of an image (the mean of its patches) to
        that of the nearest normal, beside the patches. Each counts in units of what normals show of it, so a score is
        then no value of the map.
    blur: width of the Gaussian that smooths a map, as share of its side; of a large one, as share of that of LARGE_PX.
    top_share: a score is the mean of this share of the map, its highest values; of one pixel at least, and of no more
        than that of a square of LARGE_PX.
    """

    encoder: Encoder | str = IMAGENET
    architecture: str = DEFAULT_ARCHITECTURE
    levels: Sequence[str] = LEVELS[:3]
    grid: int | None = None
    neighborhood: int = 3
    normalize: bool = True
    reference_views: str = "none"
    foreground: float = 0.0
    image_weight: float = 0.0
    blur: float = 1 / 80
    top_share: float = 0.01
    seed: int = 0
    batch_size: int = 16

    sees_normals: ClassVar[bool] = True
    device: ClassVar[torch.device] = CPU
    tile_px: ClassVar[int | None] = None

    def fit(self, training: Sequence[Sample]) -> Self:
        """Learns nothing of other categories; any earlier normals are forgotten."""
        self._forget()
        return self

    def refer(self, normals: Sequence[Tensor]) -> Self:
        """Learn from normals of one category, at least one, all of one size; forgets the category before.

        `normal_scores_` are those of the normals, each without what was learned of it; `normal_peaks_` the highest
        values of their maps. There are none of a single normal.
        """
        self._forget_normals()
        if not len(normals):
            raise UserError("no normal images to refer to: give at least one.")
        self._learn(normals)
        return self

    def look_within(self, roi: Tensor | None) -> Self:
        """Count only what lies inside `roi`, bool (h, w) at the size of the images, until told otherwise; all of it
        with none. To be said before `refer`. Raises UserError where nothing lies inside, and with `reference_views`,
        which would turn what is outside into the region."""
        for name in ("roi_", "_watch"):
            vars(self).pop(name, None)
        if roi is not None:
            if not roi.any():
                raise UserError("the region of interest holds no pixel of the image: draw it on the product.")
            if self.reference_views != "none":
                raise UserError(
                    "reference_views flip what is outside of a region of interest into it: use one of them."
                )
            self.roi_ = roi.to(self.device)
        return self

    def keep_within(self, tile_px: int | None) -> Self:
        """Look at large images in tiles of that side, and at no more pixels of any at once, until told otherwise: in
        less memory and more time, for the same answers but for rounding. With none in tiles of TILE_PX, and at
        MAX_PIXELS_AT_ONCE."""
        self.tile_px = tile_px
        vars(self).pop("_patches", None)
        return self

    @property
    def most_pixels(self) -> int | None:
        """How many pixels it looks at at once."""
        return pixels_at_once(self.tile_px)

    def watch_normals(self, watch: Callable[[Tensor], None]) -> Self:
        """Have `refer` call `watch` with the maps (n, h, w) of normals, each without what was learned of it, which are
        not kept: of a single normal with none. Until `look_within` says where to look anew."""
        self._watch = watch
        return self

    @property
    def region(self) -> Region:
        """Which pixels and patches count."""
        roi = getattr(self, "roi_", None)
        if "_region" not in vars(self) or self._region.roi is not roi:
            self._region = Region(roi)
        return self._region

    @abstractmethod
    def _learn(self, normals: Sequence[Tensor]) -> None:
        """Take in the normals, by `_views_of_normals`, and call `_add_normals`."""

    @abstractmethod
    def _distances(self, bands: Iterable[Band]) -> Tensor:
        """How strange the patches that count are, of images in bands: (b, p)."""

    def distances(self, vectors: Tensor) -> Tensor:
        """How strange patches (b, rows, columns, d) are: (b, rows, columns)."""
        grid = tuple(vectors.shape[1:3])
        return self.region.spread(self._distances([Band(vectors, 0, grid)]), grid)

    def predict(self, images: Iterable[Tensor]) -> Iterator[Prediction]:
        """Scores (b,) and maps (b, h, w), batch by batch."""
        if not hasattr(self, "normal_scores_"):
            raise NotFitted(f"{type(self).__name__} has no normals yet: call refer first.")
        for batch in batches(images, self.batch_size, self.device, True, self.most_pixels):
            yield predicted(self._predict_batch, batch)

    def _predict_batch(self, images: Tensor) -> Prediction:
        if hasattr(self, "roi_") and images.shape[-2:] != self.roi_.shape:
            raise UserError(
                f"images of {_size(images.shape[-2:])} do not fit the region of interest, {_size(self.roi_.shape)}."
            )
        seen = Pooled(self.region, self._bands(images))
        distances, disagreements = self._compared(seen)
        apart = nearest(seen.mean(), self.pooled_)
        maps = self._maps(self.region.spread(distances, seen.grid), images.shape[-2:])
        return Prediction(self._scores(self._highest(maps), apart), maps, apart, disagreements)

    def apart(self, images: Tensor) -> Tensor:
        """How far images (b, 3, h, w), as a whole, lie from the nearest normal: (b,)."""
        seen = Pooled(self.region, self._bands(images))
        for _ in seen:
            pass
        return nearest(seen.mean(), self.pooled_)

    def _compared(self, bands: Iterable[Band]) -> tuple[Tensor, Tensor | None]:
        """Distances of patches (b, p), and of a method with two statistics how far these disagree on each image
        (b,)."""
        return self._distances(bands), None

    def patches(self, images: Tensor) -> Tensor:
        """float32 images (b, 3, h, w) -> patch vectors (b, rows, columns, d), normalized once normals are known."""
        return joined(self._bands(images))

    def _bands(self, images: Tensor) -> Iterator[Band]:
        """The same in bands, from the top."""
        for band in self._opened_patches().bands(images.to(self.device), self.region.seen):
            yield band._replace(vectors=self._normalized(band.vectors))
            del band  # and with it its vectors, before the next one comes

    def _bands_of_views(self, images: Tensor) -> Iterator[Band]:
        """The patches of images in all their views: vectors (b, m, rows, columns, d)."""
        for bands in zip(*map(self._bands, views_of(images, self.reference_views)), strict=True):
            vectors = [band.vectors[:, None] for band in bands]
            yield bands[0]._replace(vectors=torch.cat(vectors, dim=1) if len(vectors) > 1 else vectors[0])
            del bands, vectors

    def _normalized(self, vectors: Tensor) -> Tensor:
        if not hasattr(self, "channel_mean_"):
            return vectors
        return normalized(vectors, self.channel_mean_, self.channel_spread_, self._patches.channels)

    def _opened_patches(self) -> Patches:
        if "_patches" not in vars(self):
            self._patches = self._make_patches(self._opened_encoder()).to(self.device)
            self._patches.tile_px = self.tile_px
        return self._patches

    def to(self, device: torch.device | str) -> Self:
        vars(self).pop("_patches", None)  # made again there: the encoder that was given stays where it is
        return move(self, device)

    def save(self, folder: Path) -> None:
        """Write the method and its encoder; nothing else is needed to load them elsewhere."""
        self._opened_encoder().save(folder / ENCODER_FILE)
        save_method(self.packed(), folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        return load_method(cls, folder).unpacked(load_encoder(folder / ENCODER_FILE), folder)

    def packed(self, **instead: object) -> Self:
        """A copy as it is written, with some learned attributes replaced; none leaves one out."""
        saved = copy.copy(self)
        saved.encoder, saved.levels = ENCODER_FILE, list(self.levels)
        saved.fingerprint_ = fingerprint(self._opened_encoder())
        if is_large(getattr(self, "size_px_", (0, 0))):
            saved.counted_px_ = LARGE_PX
        for name, value in instead.items():
            if value is None:
                vars(saved).pop(name, None)
            else:
                setattr(saved, name, value)
        return saved

    def unpacked(self, encoder: Encoder, folder: Path) -> Self:
        """The same ready for use, after it was read from `folder`. Raises UserError for another encoder than its
        own."""
        if vars(self).pop("fingerprint_", None) != fingerprint(encoder):
            raise UserError(f"{folder / ENCODER_FILE} is not the encoder that the method in {folder} was fitted with.")
        counted_px = vars(self).pop("counted_px_", None)  # which models of before did not say
        if is_large(getattr(self, "size_px_", (0, 0))) and counted_px != LARGE_PX:
            raise UserError(
                f"{folder} was fitted by a heldout that judged images above {LARGE_PX} px otherwise: fit it again."
            )
        self.encoder = encoder
        return self

    def _views_of_normals(self, normals: Sequence[Tensor]) -> Iterator[Iterator[Band]]:
        """The patches of normals in all their views, batch by batch, each in bands to be taken to the last: vectors
        (b, m, rows, columns, d). On the way, the pooled vector of each image is kept, and the patches at each position
        are summed up."""
        if not hasattr(self, "patch_sum_"):
            self._learn_space_of(normals)
        yield from self._looked_at(normals)

    def _looked_at(self, normals: Sequence[Tensor]) -> Iterator[Iterator[Band]]:
        """The same, where it is known already how patches are compared."""
        for images in batches(normals, LEARNING_BATCH, self.device, True, self.most_pixels):
            self.size_px_ = getattr(self, "size_px_", list(images.shape[-2:]))
            if list(images.shape[-2:]) != self.size_px_:
                raise UserError(
                    f"normals of {_size(images.shape[-2:])} and {_size(self.size_px_)}: give them one size."
                )
            yield self._pooling(images)
            del images

    def _pooling(self, images: Tensor) -> Iterator[Band]:
        seen = Pooled(self.region, self._bands_of_views(images))
        for number, band in enumerate(seen):
            first = band.vectors[:, 0]
            used = first if self.foreground else first[..., :0]  # else the grid's shape alone is of use
            if not number:
                known = getattr(self, "patch_sum_", used.new_zeros(*band.grid, used.shape[-1]))
                self.patch_sum_ = known[..., : used.shape[-1]].clone()  # models of before sum all
            self.patch_sum_[band.top : band.top + used.shape[1]] += used.sum(0)  # (rows, columns, d)
            yield band
            del band, first, used
        means = seen.mean()  # (b, d)
        self.pooled_ = torch.cat([getattr(self, "pooled_", means[:0]), means])

    def _learn_space_of(self, normals: Sequence[Tensor]) -> None:
        self._learn_space(sampled(self.region, self._bands(batch)) for batch in spread_over(normals, self.most_pixels))

    def _learn_space(self, features: Iterable[Tensor]) -> None:
        """Learn how patches are compared, from those of some normals (b, p, c), not yet normalized."""
        if self.normalize:
            self.channel_mean_, self.channel_spread_ = channel_statistics(features)

    def _add_normals(self, left_out: Tensor, image_distances: Tensor) -> None:
        """Score normals by the distances of their patches (n, rows, columns) and of their pooled vectors (n,), each
        without itself, and keep the scores. The first ones say in what units the two distances count."""
        highest, peaks = [left_out.new_empty(0)], [left_out.new_empty(0)]
        for part in left_out.split(max(1, MAX_MAP_PIXELS // math.prod(self.size_px_))):
            maps = self._maps(part, self.size_px_)
            if "_watch" in vars(self):
                self._watch(maps)
            highest.append(self._highest(maps))
            peaks.append(maps.flatten(1).amax(1))
            del maps
        highest, peaks = torch.cat(highest), torch.cat(peaks)
        if not hasattr(self, "units_"):
            self.units_ = units_of(highest, image_distances)
        scores = self._scores(highest, image_distances)
        for name, new in (("normal_scores_", scores), ("normal_peaks_", peaks)):
            setattr(self, name, torch.cat([getattr(self, name, new[:0]), new]))

    def _maps(self, distances: Tensor, shape: Sequence[int]) -> Tensor:
        """Distances (b, rows, columns) as smooth maps at `shape`: (b, h, w)."""
        if self.foreground:
            distances = distances * (1 - self.foreground * background(self.patch_sum_))
        maps = smooth_maps(distances, shape, self.blur)
        return maps.masked_fill_(~self.roi_, 0) if hasattr(self, "roi_") else maps  # of a large one, a copy takes much

    def _highest(self, maps: Tensor) -> Tensor:
        """The mean of the highest values of maps (b, h, w): (b,)."""
        shape = maps.shape[-2:]
        return mean_of_highest(maps, highest_count(self.top_share, self.region.pixels(shape), shape))

    def _scores(self, highest: Tensor, image_distances: Tensor) -> Tensor:
        if not self.image_weight:
            return highest
        return highest / self.units_[0] + self.image_weight * image_distances / self.units_[1]

    def _make_patches(self, encoder: Encoder) -> Patches:
        return Patches(encoder, self.levels, grid=self.grid, all_of_large=True, neighborhood=self.neighborhood)

    def _opened_encoder(self) -> Encoder:
        if "_encoder" not in vars(self):
            self._encoder = asked_encoder(self.encoder, self.architecture, self.seed)
        return self._encoder

    def _forget(self) -> None:
        """Forget all that was learned; where to look was not."""
        roi = vars(self).pop("roi_", None)
        forget(self)
        if roi is not None:
            self.roi_ = roi

    def _forget_normals(self) -> None:
        """Forget the normals; what was learned of other categories stays, where a method learns of them."""
        self._forget()


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]} pixels"
