"""One image seen several times, each time by a method of its own, and what they find fused.

At half its size an image shows what is missing and what is bent; as it is, scratches of three pixels. Lit from the left
a part shows dents, in warmth what is loose. What a map says of a pixel is not the same in all: so each counts in units
of what normals show there when they are left out. Over scales the mean counts; over lights the highest, since a defect
that one of eight shows would be an eighth of a mean.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from baselines.contract.method import (
    CPU,
    LEARNING_BATCH,
    METHOD_FILE,
    NotFitted,
    Prediction,
    Sample,
    as_floats,
    at_once,
    batches,
    described,
    forget,
    move,
    predicted,
    read_method,
    restored,
)
from downstream.methods.catalogue import METHODS
from downstream.methods.patch_method import ENCODER_FILE, PatchMethod
from downstream.methods.region import painted, resized
from embeddings.patches import pixels_at_once
from pretrain.command import UserError, nearest
from pretrain.data.cache import cache_root, let_go
from pretrain.data.size import scaled
from pretrain.encoder import DEFAULT_ARCHITECTURE, Encoder, asked_encoder, load_encoder
from pretrain.files import write_tensors
from pretrain.weights import IMAGENET

# Of maps of left-out normals, that are kept in memory until all members have theirs.
MAX_KEPT_BYTES = 2**29


@dataclass(kw_only=True, eq=False, repr=False)
class Ensemble:
    """A member for each of the `scales`, shares of the size that images are given at, in each of the `lights`, three
    channels of the image: the patch method that the catalogue calls `method`, with `options` as its arguments, and one
    encoder for all.

    Scores and maps are the highest over the lights of means over the scales, in units of left-out normals: of their
    mean score, and of the mean of their maps' highest values. Of a single normal, which cannot be left out, members
    count as they are.
    """

    method: str = "fused"
    options: Mapping[str, object] = field(default_factory=dict)
    scales: Sequence[float] = (0.5, 1.0)
    lights: int = 1
    encoder: Encoder | str = IMAGENET
    architecture: str = DEFAULT_ARCHITECTURE
    seed: int = 0
    batch_size: int = 16

    sees_normals: ClassVar[bool] = True
    device: ClassVar[torch.device] = CPU
    tile_px: ClassVar[int | None] = None

    def fit(self, training: Sequence[Sample]) -> Self:
        """Learns nothing of other categories; any earlier normals are forgotten."""
        if self.lights == 1 or len(self.scales) > 1:
            check_scales(self.scales)
        self._member_class  # noqa: B018  raises UserError for a method that can be no member
        self._forget()
        return self

    def refer(self, normals: Sequence[Tensor]) -> Self:
        """Learn from normals of one category, at least one, all of one size; forgets the category before.

        `normal_scores_` are those of normals that every member left out, `normal_peaks_` the highest values of their
        maps.
        """
        self._forget()
        if not len(normals):
            raise UserError("no normal images to refer to: give at least one.")
        self.size_px_ = list(normals[0].shape[-2:])
        roi = getattr(self, "roi_", None)
        self._members, maps = [], KeptMaps()
        for light, scale in self._views:
            seen = Scaled(normals, scale, roi, light)
            member = self._member(scale).fit([]).watch_normals(maps.of_next_member()).refer(seen)
            vars(member).pop("_watch")  # and with it the maps
            self._members.append(member.without_memory() if hasattr(member, "without_memory") else member)
        # All leave out the same ones, spread over all, or the first of them: those more that were in memory.
        count = min(len(member.normal_scores_) for member in self._members)
        left_out = torch.stack([member.normal_scores_[:count] for member in self._members])  # (members, n)
        units = left_out.mean(1) if count else left_out.new_ones(len(left_out))
        self.score_units_ = units.clamp(min=1e-12)
        self.map_units_ = torch.stack([member.units_[0] for member in self._members])
        self.normal_scores_ = self._over_views(left_out / self.score_units_[:, None])
        self.normal_peaks_ = self._peaks(maps, count)
        return self

    def watch_normals(self, watch: Callable[[Tensor], None]) -> Self:
        """As a patch method does."""
        self._watch = watch
        return self

    def keep_within(self, tile_px: int | None) -> Self:
        """As a patch method does."""
        self.tile_px = tile_px
        for member in vars(self).get("_members", ()):
            member.keep_within(tile_px)
        return self

    def look_within(self, roi: Tensor | None) -> Self:
        """As a patch method does."""
        for name in ("roi_", "_watch"):
            vars(self).pop(name, None)
        if roi is not None:
            self._member_class(**self.options).look_within(roi)  # raises UserError for what no member can do
            self.roi_ = roi.to(self.device)
        return self

    def predict(self, images: Iterable[Tensor]) -> Iterator[Prediction]:
        """Scores (b,) and maps (b, h, w), batch by batch."""
        if not hasattr(self, "normal_scores_"):
            raise NotFitted("Ensemble has no normals yet: call refer first.")
        for batch in batches(images, self.batch_size, self.device, True, pixels_at_once(self.tile_px)):
            yield predicted(self._predict_batch, batch)

    def to(self, device: torch.device | str) -> Self:
        if "_members" in vars(self):
            self._members = [copy.copy(member).to(device) for member in self._members]
        return move(self, device)

    def save(self, folder: Path) -> None:
        """Write all members and the encoder that they share; nothing else is needed to load them elsewhere."""
        saved = copy.copy(self)
        saved.encoder, saved.options, saved.scales = ENCODER_FILE, dict(self.options), list(self.scales)
        tensors, metadata = described(saved)
        metadata["members"] = []
        for number, member in enumerate(self._members):
            of_member, about = described(member.packed())
            tensors |= {f"{number}.{name}": tensor for name, tensor in of_member.items()}
            metadata["members"].append(about)
        self._opened_encoder().save(folder / ENCODER_FILE)
        write_tensors(folder / METHOD_FILE, tensors, metadata)

    @classmethod
    def load(cls, folder: Path) -> Self:
        path, (tensors, metadata) = folder / METHOD_FILE, read_method(folder)
        own = {name: tensor for name, tensor in tensors.items() if "." not in name}
        method, encoder = restored(cls, path, own, metadata), load_encoder(folder / ENCODER_FILE)
        members = []
        for number, about in enumerate(metadata["members"]):
            start = f"{number}."
            of_member = {name.removeprefix(start): part for name, part in tensors.items() if name.startswith(start)}
            members.append(restored(method._member_class, path, of_member, about).unpacked(encoder, folder))
        method.encoder, method._members = encoder, members
        return method

    @property
    def pooled_(self) -> Tensor:
        """One vector for each normal that was referred to, as patch methods have it."""
        return self._members[0].pooled_

    @property
    def _views(self) -> list[tuple[int, float]]:
        """The light and the scale of each member."""
        return [(light, scale) for light in range(self.lights) for scale in self.scales]

    def _over_views(self, of_members: Tensor) -> Tensor:
        """What the members say, in units (members, ...), as what all say."""
        return of_members.unflatten(0, (self.lights, len(self.scales))).mean(1).amax(0)

    @property
    def _member_class(self) -> type[PatchMethod]:
        known = {name: entry for name, entry in METHODS.items() if entry.in_ensemble}
        if self.method not in known:
            raise UserError(f"{self.method} cannot look at several scales or lights; {nearest(self.method, known)}")
        return known[self.method].method_class

    def _member(self, scale: float) -> PatchMethod:
        """A new one, that looks where this one does."""
        shared = {"encoder": self._opened_encoder(), "seed": self.seed, "batch_size": self.batch_size}
        member = self._member_class(**{**shared, **self.options}).to(self.device).keep_within(self.tile_px)
        if not hasattr(self, "roi_"):
            return member
        return member.look_within(resized(self.roi_, scaled(self.roi_.shape, scale)))

    def any_member(self) -> PatchMethod:
        """One of them, whichever."""
        return self._members[0] if "_members" in vars(self) else self._member(self.scales[0])

    def _predict_batch(self, images: Tensor) -> Prediction:
        if images.shape[1] != 3 * self.lights:
            raise UserError(f"images of {images.shape[1]} channels are not of {self.lights} lights with 3 each.")
        roi, members = getattr(self, "roi_", None), zip(self._members, self._views, strict=True)
        parts = [member._predict_batch(seen_at(images, scale, roi, light)) for member, (light, scale) in members]
        scores = [part.scores / unit for part, unit in zip(parts, self.score_units_, strict=True)]
        maps = self._fused([part.maps for part in parts], images.shape[-2:])
        return Prediction(self._over_views(torch.stack(scores)), maps)

    def _fused(self, maps: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
        """The maps of all members (b, h, w), each of its own size, as one of `shape`."""
        highest, each = None, iter(zip(maps, self.map_units_, strict=True))
        for _ in range(self.lights):
            total = 0
            for of_member, unit in islice(each, len(self.scales)):
                total = total + enlarged(of_member / unit, shape)
            total = total / len(self.scales)
            highest = total if highest is None else torch.maximum(highest, total)
        return torch.where(self.roi_, highest, 0) if hasattr(self, "roi_") else highest

    def _peaks(self, maps: "KeptMaps", count: int) -> Tensor:
        """The highest values of the fused maps of the first `count` left-out normals, by the members' `maps`."""
        peaks, step = [self.score_units_[:0]], at_once(LEARNING_BATCH, self.size_px_)
        for start in range(0, count, step):
            fused = self._fused(maps.of_all(start, min(start + step, count), self.device), self.size_px_)
            if "_watch" in vars(self):
                self._watch(fused)
            peaks.append(fused.flatten(1).amax(1))
        return torch.cat(peaks)

    def _opened_encoder(self) -> Encoder:
        if "_encoder" not in vars(self):
            self._encoder = asked_encoder(self.encoder, self.architecture, self.seed)
        return self._encoder

    def _forget(self) -> None:
        """Forget all that was learned; where to look was not."""
        roi = vars(self).pop("roi_", None)
        forget(self)
        vars(self).pop("_members", None)
        if roi is not None:
            self.roi_ = roi


class KeptMaps:
    """The maps of left-out normals, until all members have theirs: in memory while there is room, then in a file that
    has no name and goes with this."""

    def __init__(self) -> None:
        self._of_members: list[list[Tensor | np.memmap]] = []
        self._bytes = 0

    def of_next_member(self) -> Callable[[Tensor], None]:
        """What takes in maps (n, h, w) of some normals, in their order."""
        self._of_members.append([])
        return self._add

    def of_all(self, start: int, stop: int, device: torch.device) -> list[Tensor]:
        """Those of some normals by each member, (stop - start, h, w) each."""
        return [torch.cat(list(_some(parts, start, stop, device))) for parts in self._of_members]

    def _add(self, maps: Tensor) -> None:
        self._bytes += maps.nbytes
        self._of_members[-1].append(maps if self._bytes <= MAX_KEPT_BYTES else _on_disk(maps))


def _some(parts: Iterable[Tensor | np.memmap], start: int, stop: int, device: torch.device) -> Iterator[Tensor]:
    """The maps from `start` to `stop` of parts that follow each other."""
    for part in parts:
        some = part[max(0, start) : max(0, stop)]
        yield some if isinstance(some, Tensor) else torch.from_numpy(np.array(some)).to(device)
        if not isinstance(part, Tensor):
            let_go(part)
        start, stop = start - len(part), stop - len(part)


def _on_disk(maps: Tensor) -> np.memmap:
    """Maps in a file that goes with them. Raises UserError where the disk is full."""
    place = cache_root()
    try:
        place.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=place) as file:
            # Written, and not mapped to be written: of a full disk that is an error, and not the end of the process.
            file.write(memoryview(maps.cpu().contiguous().numpy()))
            file.flush()
            return np.memmap(file, np.float32, "r", shape=tuple(maps.shape))
    except OSError as error:
        raise UserError(
            f"the maps of good images, by which scales and lights are fused, cannot be kept in {place} ({error}): name "
            "another folder in HELDOUT_CACHE, or give fewer images."
        ) from None


class Scaled(Sequence[Tensor]):
    """Images (3 x lights, h, w) as `seen_at` a scale, each made when it is asked for."""

    def __init__(self, images: Sequence[Tensor], scale: float, roi: Tensor | None = None, light: int = 0) -> None:
        self._images, self._scale, self._roi, self._light = images, scale, roi, light

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, position: int) -> Tensor:
        image, roi = self._images[position][None], self._roi
        return seen_at(image if roi is None else image.to(roi.device), self._scale, roi, self._light)[0]


def seen_at(images: Tensor, scale: float, roi: Tensor | None = None, light: int = 0) -> Tensor:
    """Of images (b, 3 x lights, h, w) one light at a share of their size. At 1 they stay as they are, and a member
    paints over what does not count; else it is painted over first: made smaller, pixels at its border would be of both
    sides."""
    if images.shape[1] > 3:
        images = images[:, 3 * light : 3 * light + 3]
    shape = scaled(images.shape[-2:], scale)
    if tuple(images.shape[-2:]) == shape:
        return images
    if images.dtype != torch.uint8:
        return smaller(images, shape, roi)
    # Large ones: as floats, all three channels at once take four times as much as the image.
    return torch.cat([smaller(images[:, channel : channel + 1], shape, roi) for channel in range(3)], dim=1)


def smaller(images: Tensor, shape: tuple[int, int], roi: Tensor | None) -> Tensor:
    """Images (b, c, h, w) at `shape`, float32."""
    images = as_floats(images) if roi is None else painted(as_floats(images), roi)
    return F.interpolate(images, shape, mode="bilinear", antialias=True)


def enlarged(maps: Tensor, shape: Sequence[int]) -> Tensor:
    """Maps (b, h, w) at the size of the images."""
    if tuple(maps.shape[-2:]) == tuple(shape):
        return maps
    return F.interpolate(maps[:, None], tuple(shape), mode="bilinear")[:, 0]


def shares_of(typed: Sequence[str]) -> list[float]:
    """Scales as they are typed. Raises UserError for what is no number."""
    try:
        scales = [float(scale) for scale in typed]
    except ValueError:
        raise UserError(f"--scales {','.join(typed)} are no numbers: give shares of the size, such as 0.5,1.") from None
    check_scales(scales)
    return scales


def check_scales(scales: Sequence[float]) -> None:
    """Raise UserError for scales that are not several, or not shares of an image's size."""
    if len(set(scales)) < 2 or len(set(scales)) < len(scales) or not all(0 < scale <= 1 for scale in scales):
        listed = ",".join(f"{scale:g}" for scale in scales)
        raise UserError(f"scales of {listed} cannot be fused: give two or more, above 0 and at most 1, such as 0.5,1.")
