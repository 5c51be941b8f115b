"""A method that is ready for use: fitted to one category, with thresholds, on images as they come from a camera.

An inspector's folder holds `inspector.json` and what its method saved; nothing else is needed, and no pickle is read.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np

from baselines.contract.model_folder import (
    EXTENSIONS,
    FILE,
    check_model_format,
    check_parts,
    fill_model,
    parts_of,
    read_unchanged,
    write_metadata,
    write_model,
)
from baselines.contract.threshold import Threshold
from downstream.inspection.alignment import Alignment
from downstream.inspection.config import FitSettings
from downstream.inspection.decision import AreaRule, decision_from
from downstream.inspection.inspection import Inspection
from downstream.inspection.judge import Judge, one_by_one
from downstream.inspection.roi import DrawnRoi
from downstream.inspection.zones import ZoneRule
from downstream.learning.versions import changing, fitted_in_place_of
from downstream.methods.catalogue import imported
from downstream.methods.loading import load_any
from pretrain.command import UserError
from pretrain.data.arrays import given, name_of, opened
from pretrain.data.channels import PLAIN, Channels, read_image
from pretrain.data.decode import Decoded, Unreadable
from pretrain.data.images import LayoutName, Problem
from pretrain.data.size import Size, sides
from pretrain.files import unsealed
from pretrain.reading import parse_json, read_json

# Of images as they are opened, so that a few large ones do not fill the memory.
MAX_PIXELS_AT_ONCE = 16 * 1024**2
NO_PIXELS = np.empty((0, 0, 3), np.uint8)
# As `read_image`: raises Unreadable.
Read = Callable[[Path, Size, Channels], Decoded]

if TYPE_CHECKING:  # importing the contract imports torch, 1.5 s that a run of an exported model does without
    from baselines.contract.method import Method


@dataclass
class Inspector(Judge):
    """Inspects images of one category: `method` was fitted to images of `size_px`, to which others are stretched.

    An image is defective if its score is above `threshold`; `normal_scores` are what confidence is measured by. With
    `minimum_area_px`, in pixels of the original image, smaller regions are dropped, and without any an image is
    good. Where `area_rule` is there, `downstream/area.py` found it, and it alone decides. `drawn_roi` is where it
    looks, where that was drawn as polygons; where these are zones, `zone_rule` alone decides. With `alignment` each
    image is turned and moved as the reference lies before the method sees it. `channels` say how files become
    images. `parts` are the digests of the files that it was loaded from.
    """

    method: "Method"
    category: str
    size_px: Size
    threshold: Threshold
    map_threshold: Threshold | None = None
    minimum_area_px: int = 0
    normal_scores: list[float] = field(default_factory=list)
    metadata: dict = field(default_factory=dict)
    area_rule: AreaRule | None = None
    drawn_roi: DrawnRoi | None = None
    zone_rule: ZoneRule | None = None
    alignment: Alignment | None = None
    channels: Channels = PLAIN
    parts: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def roi(self) -> np.ndarray | None:
        """Where it looks, bool (h, w) of the size that the method sees; none where it looks everywhere."""
        roi = getattr(self.method, "roi_", None)
        if roi is None:  # an exported method has none, but was told where to look
            return self.labels > 0 if self.drawn_roi else None
        return np.asarray(roi.cpu())

    def outlines(self, inspection: Inspection) -> list[tuple[str, np.ndarray]]:
        """What to draw a line around on an image: each zone, by its name, or all of `roi`."""
        if self.zone_rule:
            labels = self.as_it_lies(self.labels, inspection.pose)
            return [(zone.name, labels == number) for number, zone in enumerate(self.zone_rule.zones, 1)]
        if (roi := self.roi) is None:
            return []
        return [("", self.as_it_lies(roi.astype(np.uint8), inspection.pose) > 0)]

    @classmethod
    def fit(
        cls,
        images: object,
        *,
        category: str | None = None,
        layout: LayoutName | None = None,
        verbose: bool = False,
        **settings: object,
    ) -> Self:
        """An inspector fitted to good images of one product: a folder, or one image or many, as `predict` takes them.

        `settings` are those of FitSettings, by name: `method`, `encoder`, `size_px`, `false_alarm_rate`. With `verbose`
        it says what `heldout detect fit` prints, such as where its threshold comes from and which good image looks
        suspicious. `category` is what to call the product, and where the folder holds several, which one; `layout`
        how it is laid out, where that is not to be found out. Raises UserError for what is no image or no setting.
        """
        say = print if verbose else lambda line: None
        fitted_to = imported("downstream.inspection.fitting.fitted_to")  # stands above this file, and imports torch
        return fitted_to(images, category, layout, FitSettings.of(**settings), say)

    @overload
    def predict(self, images: list) -> list[Inspection]: ...

    # A path may be a folder's, and an array many images: then it is a list, which no type of `images` tells.
    @overload
    def predict(self, images: object) -> Inspection | Any: ...

    def predict(self, images: object) -> Inspection | list[Inspection]:
        """The verdict on one image, or a list of those on many: paths, a folder, arrays, tensors, Pillow's images; of a
        model of several lights, a tuple of them is one part. Raises UserError for what is no image; `inspect` goes on
        past a damaged file."""
        images, is_one = given(images, self.channels)
        found = []
        for start in range(0, len(images), self._at_once):
            part = images[start : start + self._at_once]
            names = [name_of(image, position) for position, image in enumerate(part, start)]
            pixels = [opened(image, self.size_px, self.channels) for image in part]
            for image, inspection in zip(part, self.inspect_decoded(names, pixels), strict=True):
                if isinstance(inspection, Problem):
                    raise UserError(f"{inspection.path}: {inspection.reason}.")
                found.append(replace(inspection, given=image))
        return found[0] if is_one else found

    @property
    def _at_once(self) -> int:
        return max(1, min(self.method.batch_size, MAX_PIXELS_AT_ONCE // math.prod(sides(self.size_px))))

    def inspect(self, paths: Sequence[Path], read: Read = read_image) -> Iterator[Inspection | Problem]:
        """Inspect image files, in their order; one that cannot be read is a Problem with its reason. `read` is for
        those that are no files of this machine."""
        if math.prod(sides(self.size_px)) > MAX_PIXELS_AT_ONCE:  # two at once take gigabytes
            for path in paths:
                yield from self._inspected([path], [self._opened(path, read)])
            return
        chunks = [paths[start : start + self._at_once] for start in range(0, len(paths), self._at_once)]
        with ThreadPoolExecutor(max_workers=4) as pool:
            waiting = None
            for chunk in [*chunks, None]:  # while one is judged, on a GPU above all, the next is decoded
                following = chunk and (chunk, [pool.submit(self._opened, path, read) for path in chunk])
                if waiting:
                    yield from self._inspected(waiting[0], [image.result() for image in waiting[1]])
                waiting = following

    def inspect_decoded(self, names: Sequence[Path], images: Sequence[Decoded]) -> list[Inspection | Problem]:
        """Inspect images from memory, of `size_px`, in one batch: at most the method's `batch_size`."""
        return list(self._inspected(names, images)) if images else []

    def save(self, folder: Path | str) -> None:
        """Write to `folder`, in place of a model that is there; where that has versions, as another one of them."""
        folder = Path(folder)
        is_there = bool(self.parts) and parts_of(folder) == self.parts
        with nullcontext({}) if is_there else fitted_in_place_of(folder) as numbers:
            self.metadata |= numbers
            write_model(folder, method=self.method, **self._described())
            self.parts = parts_of(folder)

    def fill(self, folder: Path) -> None:
        """The same into a folder that is there and empty."""
        fill_model(folder, method=self.method, **self._described())

    def save_decision(self, folder: Path) -> None:
        """Write how this inspector decides to the folder that it was loaded from. Raises UserError for an exported
        file, and where another model took its place meanwhile."""
        if folder.is_file():
            raise UserError(
                f"{folder} is exported and keeps deciding as it does: name the model's folder, export anew."
            )
        with changing(folder):
            if parts_of(folder) != self.parts:
                raise UserError(f"{folder} is another model by now than the one this was found for: do it again.")
            write_metadata(folder, **self._described(), parts=self.parts)

    def _described(self) -> dict:
        """All but the method, as `decision_from` reads it; what a model does not have is left out."""
        separate = ("method", "parts")
        described = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in separate}
        described |= {
            name: value.as_json() for name in ("drawn_roi", "alignment") if (value := getattr(self, name)) is not None
        }
        described["channels"] = None if self.channels == PLAIN else self.channels.as_json()
        return {name: value for name, value in described.items() if name not in EXTENSIONS or value is not None}

    @classmethod
    def load(cls, folder: Path | str, device: str = "auto", runtime: str | None = None) -> Self:
        """The inspector in `folder`, or in an exported file, on a device: cpu, cuda, or auto for a GPU where there is
        one. `runtime` is what runs an exported one, onnxruntime, onnxruntime-gpu or openvino. Raises UserError where
        there is none, or it is damaged or newer."""
        folder = Path(folder)
        if folder.is_file():
            return cls._read(folder, device, runtime)
        return read_unchanged(folder, lambda: cls._read(folder, device, runtime))

    @classmethod
    def _read(cls, folder: Path, device: str, runtime: str | None) -> Self:
        exported = load_any(folder, device, runtime) if folder.is_file() else None
        path = folder if exported else folder / FILE
        if not path.is_file():
            raise UserError(f"there is no model in {folder}; python downstream/detect.py fit makes one.")
        try:
            metadata = parse_json(exported.inspector) if exported else read_json(path)
            check_model_format(path, metadata["format"])
            metadata = unsealed(metadata)
            del metadata["format"]
            parts = metadata.pop("parts", {})
            if not exported:
                check_parts(folder, parts)
            method = exported or load_any(folder, device, runtime)
            return cls(method, **decision_from(**metadata), parts=parts)
        except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
            raise UserError(f"{path} is damaged ({error}): fit the model again.") from None

    def _opened(self, path: Path, read: Read) -> Decoded | Problem:
        try:
            return read(path, self.size_px, self.channels)
        except Unreadable as unreadable:
            return Problem(path, str(unreadable))

    def _inspected(self, paths: Sequence[Path], opened: Sequence) -> Iterator[Inspection | Problem]:
        readable = [image for image in opened if not isinstance(image, Problem)]
        poses = [self.alignment and self.alignment.find(image.pixels) for image in readable]
        pairs = zip(readable, poses, strict=True)
        images = self._as_given([
            image.pixels if pose is None else self.alignment.aligned(image.pixels, pose) for image, pose in pairs
        ])  # fmt: skip
        start_s = time.perf_counter()
        batches = self.method.predict(images) if len(images) else ()  # of large images, fewer at once
        judged = [each for batch in batches for each in one_by_one(batch.cpu())]
        milliseconds = 1e3 * (time.perf_counter() - start_s) / max(1, len(images))
        answers = iter(zip(judged, poses, strict=True))
        if math.prod(sides(self.size_px)) > MAX_PIXELS_AT_ONCE:  # judged they are, and a large one takes memory
            images, readable, batches = (), (), ()
            opened = [each if isinstance(each, Problem) else each._replace(pixels=NO_PIXELS) for each in opened]
        for path, image in zip(paths, opened, strict=True):
            if isinstance(image, Problem):
                yield image
                continue
            answer, pose = next(answers)
            yield self.judged(path, image, answer, milliseconds, pose)

    def _as_given(self, pixels: Sequence[np.ndarray]) -> Sequence:
        """Images uint8 (h, w, 3 x lights) as the method takes them, on its device, in one transfer of bytes: an
        exported one as they are, and torch stays out of it."""
        if getattr(self.method, "takes_pixels", False) or not pixels:
            return pixels
        import torch  # not above, as an exported model is run without

        transferred = imported("pretrain.training.device.transferred")
        as_images = imported("baselines.contract.method.as_images")
        # A copy of one large image takes memory; one that may not be written is what torch warns of.
        stacked = np.stack(pixels) if len(pixels) > 1 else np.require(pixels[0], requirements=("C", "W"))[None]
        return as_images(transferred(torch.from_numpy(stacked), self.method.device))  # (b, 3 x lights, h, w)
