"""detect.py fit --data MANIFEST: good images on many machines fitted apart, in parts, and merged to one model.

What PaDiM learns are sums, so that parts merged are the model of one fit; of the coresets of parts a coreset is chosen.
No machine sees all images. This process sees as many as tell the usual size and how patches are compared, and those
that are left out in turn for units and thresholds.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from baselines.contract.method import as_images
from downstream.inspection.asked_method import make_method, typed_options
from downstream.inspection.config import Fit, FitSettings
from downstream.inspection.fitting import arguments_of, check, map_threshold_of, pixels_of, say_threshold
from downstream.inspection.inspector import Inspector
from downstream.methods.fused import Fused
from downstream.methods.normals import MAX_FOR_CHANNELS, evenly
from downstream.methods.padim import PaDiM
from downstream.methods.parts import InParts, Space
from downstream.methods.parts import Part as LearnedPart
from downstream.methods.patchcore import PatchCore
from downstream.methods.references import own_threshold
from embeddings.encoding import choose_encoder
from pretrain.command import UserError
from pretrain.data.dataset import MAX_MEASURED, check_size, usual_size
from pretrain.data.decode import Decoded, Unreadable
from pretrain.data.images import Problem
from pretrain.data.manifest import Part, count_rows, parts_of, place_of, read_rows
from pretrain.data.places import Listed, Place
from pretrain.data.size import Size, named
from pretrain.demo import is_demo
from pretrain.encoder import asked_encoder, fingerprint
from pretrain.progress import Progress
from pretrain.tasks import Lost, tasks_at
from pretrain.training.device import choose_device

# What needs all images at once, or is not merged.
WHOLE = ("roi", "align", "reference", "lights", "range", "scales", "train", "allow_contamination", "validation_share",
         "layout")  # fmt: skip
# What is known to be merged; what is made of these learns more than they do.
MERGED = (Fused, PaDiM, PatchCore)


@dataclass(frozen=True)
class Job:
    """What is the same for all parts: images below a place, by its URL, seen at a size, and how they are fitted to, by
    an encoder of this fingerprint."""

    images: str
    size_px: Size
    settings: FitSettings
    encoder: str

    def __hash__(self) -> int:
        return hash(repr(self))  # options may be lists


class Learned(NamedTuple):
    """What a part of the good images gives: what the method learned, or none of no image; the paths of the images,
    digests of the files, and their aspects; what could not be read."""

    part: LearnedPart | None
    paths: list[str]
    digests: list[str]
    aspects: list[float]
    problems: list[Problem]


class Seen(Sequence[Tensor]):
    """The images that were learned from, in their order. What is kept of each is small; it is read again where it is
    asked for."""

    def __init__(self, place: Place, size_px: Size) -> None:
        self._place, self._size_px = place, size_px
        self.paths: list[str] = []
        self.digests: list[str] = []
        self.aspects: list[float] = []
        self.parts = 0

    def parts_of(self, learned: Iterable[Learned]) -> Iterator[LearnedPart]:
        """What the method learns from. Raises UserError where that is too little."""
        for each in learned:
            self.paths += each.paths
            self.digests += each.digests
            self.aspects += each.aspects
            if each.part is not None:
                self.parts += 1
                yield each.part
        if len(self) < 2:
            raise UserError(f"{len(self)} good images in {self._place} can be read: give two or more.")

    def __len__(self) -> int:
        return len(self.digests)

    def __getitem__(self, position: int) -> Tensor:
        """Raises UserError where the file is another one by now."""
        path = self.paths[position]
        try:
            image = self._place.image(path, self._size_px)
        except Unreadable as unreadable:
            raise UserError(f"{self._place}/{path}, which was learned from, {unreadable}.") from None
        if image.file_digest.hex() != self.digests[position]:
            raise UserError(f"{self._place}/{path} was changed while it was learned from: begin again.")
        return as_images(torch.from_numpy(image.pixels))


def fit(config: Fit) -> None:
    """Fit, report, and write the model."""
    check_parts(config)
    place, manifest = place_of(config.data), config.data
    # Every worker takes what is chosen here, wherever it was started.
    asked = everywhere(config, is_demo(Path(place.url)))
    method = make_method(asked, Path(place.url), print)
    if type(method) not in MERGED:
        names = ", ".join(sorted(each.__name__.lower() for each in MERGED))
        raise UserError(f"parts are merged for {names} alone: fit {config.method} to a folder.")
    method = method.to(choose_device(config.device))
    size_px = size_of(config, place, manifest)
    settings = FitSettings(**{each.name: getattr(asked, each.name) for each in fields(FitSettings)})
    encoder = asked_encoder(method.encoder, method.architecture, method.seed)
    job = Job(place.url, size_px, settings, fingerprint(encoder))
    space, seen = method.space_of(spread_over(place, manifest, size_px)), Seen(place, size_px)
    method.refer_to_parts(seen.parts_of(learn(job, space, manifest, config)), space, seen)
    digests, aspect = seen.digests, float(np.median(seen.aspects))
    model = Inspector(
        method, config.category or manifest.stem, size_px,
        own_threshold(method, [], config.false_alarm_rate, {}, config.seed),
        map_threshold_of(method, config, len(digests)), config.minimum_area, method.normal_scores_.tolist(),
        {
            "data": place.url, "normals": len(digests), "aspect": aspect, "method": config.method,
            "scales": [], "false_alarm_rate": config.false_alarm_rate, "learned_from": digests,
            "allow_contamination": 0.0, "left_out_as_outliers": [], "encoder": encoder.as_json(),
            "parts": seen.parts, "layout": None, "arguments": arguments_of(config),
        },
    )  # fmt: skip
    print(f"{config.method} fitted to {len(digests)} good images in {seen.parts} parts ({place}), seen at "
          f"{named(size_px)} px")  # fmt: skip
    say_threshold(model, config, print)
    out = config.out or Path("models") / model.category
    model.save(out)
    print(f"model: {out}")
    print(f"next:  python downstream/detect.py run IMAGE_OR_FOLDER --model {out}")


def check_parts(config: Fit) -> None:
    """Raise UserError for what can be refused before any image is opened."""
    check(config)
    defaults = Fit(data=config.data)
    for name in WHOLE:
        if getattr(config, name) != getattr(defaults, name):
            raise UserError(f"--{name.replace('_', '-')} looks at all good images, and a manifest is fitted to in "
                            "parts: leave it out, or name a folder.")  # fmt: skip
    if config.memory_gb is not None:
        raise UserError("--memory-gb is for the images of a folder, and a manifest's are seen elsewhere: leave it out.")
    if config.shots != "all":
        raise UserError("--shots draws from all good images, and a manifest is fitted to in parts: leave it out.")
    if config.part_images < 1:
        raise UserError(f"{config.part_images} images make no part: give 1 or more.")


def size_of(config: Fit, place: Place, manifest: Path) -> Size:
    """At which size images are seen: what some of them, spread over all, usually are."""
    step = max(1, count_rows(manifest) // MAX_MEASURED)
    measured = []
    for number, row in enumerate(read_rows(manifest)):
        if number % step == 0 and len(measured) < MAX_MEASURED:
            with suppress(Unreadable):  # it is named where its part is fitted to
                measured.append(place.image(row.path)[1:3])
    size_px = usual_size(measured, pixels_of(config), lambda measured: measured)
    check_size(size_px)
    return size_px


def everywhere(config: Fit, has_demo_images: bool) -> Fit:
    """The same with encoder files by their whole paths, as a worker may be started in any folder."""
    _, chosen = choose_encoder(config.encoder, config.seed, has_demo_images)
    options = typed_options(config.options)
    if isinstance(named := options.get("encoder"), str) and Path(named).is_file():
        options["encoder"] = str(Path(named).resolve())
    return replace(config, encoder=chosen.resolve() if chosen.is_file() else chosen, options=options)


def spread_over(place: Place, manifest: Path, size_px: Size) -> list[Tensor]:
    """Some of the images, spread over all: they tell how patches are compared."""
    chosen, found = set(evenly(count_rows(manifest), MAX_FOR_CHANNELS)), []
    for number, row in enumerate(read_rows(manifest)):
        if number in chosen:
            with suppress(Unreadable):  # it is named where its part is fitted to
                found.append(as_images(torch.from_numpy(place.image(row.path, size_px).pixels)))
    if not found:
        raise UserError(f"none of {len(chosen)} images spread over {place} can be read: are they images?")
    return found


def learn(job: Job, space: Space, manifest: Path, config: Fit) -> Iterator[Learned]:
    """Of all parts, in their order. Raises UserError for a part that is lost."""
    parts = parts_of(read_rows(manifest), config.part_images)
    with tasks_at(config, config.device) as tasks, Progress("fitting", count_rows(manifest)) as progress:
        for part, found in tasks.map(partial(learn_part, job, space), parts, in_order=True):
            if isinstance(found, Lost):
                raise UserError(f"a part of the images, from {part.rows[0].path} on, {found.reason}.")
            for problem in found.problems:
                progress.print(f"{problem.path}: {problem.reason}")
            progress.advance(len(part.rows))
            yield found


def learn_part(job: Job, space: Space, part: Part) -> Learned:
    """What is learned of one part, in main memory."""
    place = Place.of(job.images)

    def read(row: Listed) -> Decoded | Problem:
        try:
            return place.image(row.path, job.size_px)
        except Unreadable as unreadable:
            return Problem(Path(row.path), str(unreadable))

    with ThreadPoolExecutor(max_workers=4) as pool:
        found = list(pool.map(read, part.rows))
    paths = [row.path for row, each in zip(part.rows, found, strict=True) if not isinstance(each, Problem)]
    images = [each for each in found if not isinstance(each, Problem)]
    problems = [each for each in found if isinstance(each, Problem)]
    learned = None
    if images:
        learned = _method(job).part_of([as_images(torch.from_numpy(each.pixels)) for each in images], space).to("cpu")
    digests, aspects = [each.file_digest.hex() for each in images], [each.width / each.height for each in images]
    return Learned(learned, paths, digests, aspects, problems)


@cache
def _method(job: Job) -> InParts:
    """The method, once in a process. Raises UserError where this machine has another encoder."""
    method = make_method(job.settings, Path(job.images), lambda line: None)
    if fingerprint(asked_encoder(method.encoder, method.architecture, method.seed)) != job.encoder:
        raise UserError(f"the encoder {job.settings.encoder} is not the same on every machine: copy it to all.")
    return method.to(choose_device(job.settings.device))
