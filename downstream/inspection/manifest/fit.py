"""detect.py fit --data MANIFEST: good images on many machines fitted apart, in parts, and merged to one model.

What PaDiM learns are sums, so that parts merged are the model of one fit. No machine sees all images, and this process
sees as many as tell the usual size.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from baselines.contract.method import as_images
from downstream.inspection.asked_method import make_method
from downstream.inspection.config import Fit, FitSettings
from downstream.inspection.fitting import arguments_of, check, map_threshold_of, pixels_of, say_threshold
from downstream.inspection.inspector import Inspector
from downstream.methods import padim
from downstream.methods.padim import PaDiM
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


@dataclass(frozen=True)
class Job:
    """What is the same for all parts: images below a place, by its URL, seen at a size, and how they are fitted to, by
    an encoder of this fingerprint."""

    images: str
    size_px: Size
    settings: FitSettings
    encoder: str


class Learned(NamedTuple):
    """What a part of the good images gives: what the method learned, or none of no image; digests of the files, and
    their aspects; what could not be read."""

    part: padim.Part | None
    digests: list[str]
    aspects: list[float]
    problems: list[Problem]


class Seen:
    """What is kept of the images beside what the method learns."""

    def __init__(self) -> None:
        self.digests: list[str] = []
        self.aspects: list[float] = []
        self.count = 0

    def parts_of(self, learned: Iterable[Learned], place: Place) -> Iterator[padim.Part]:
        """What the method learns from. Raises UserError where that is too little."""
        for each in learned:
            self.digests += each.digests
            self.aspects += each.aspects
            if each.part is not None:
                self.count += 1
                yield each.part
        if len(self.digests) < 2:
            raise UserError(f"{len(self.digests)} good images in {place} can be read: give two or more.")


def fit(config: Fit) -> None:
    """Fit, report, and write the model."""
    check_parts(config)
    place, manifest = place_of(config.data), config.data
    # Every worker takes what is chosen here, wherever it was started.
    _, chosen = choose_encoder(config.encoder, config.seed, is_demo(Path(place.url)))
    asked = replace(config, encoder=chosen.resolve() if chosen.is_file() else chosen)
    method = make_method(asked, Path(place.url), print)
    if not isinstance(method, PaDiM) or method.normalize:
        raise UserError(f"only what padim learns can be merged from parts: fit {config.method} to a folder.")
    size_px = size_of(config, place, manifest)
    settings = FitSettings(**{each.name: getattr(asked, each.name) for each in fields(FitSettings)})
    encoder = asked_encoder(method.encoder, method.architecture, method.seed)
    job = Job(place.url, size_px, settings, fingerprint(encoder))
    seen = Seen()
    method.refer_to_parts(seen.parts_of(learn(job, manifest, config), place))
    digests, aspect = seen.digests, float(np.median(seen.aspects))
    model = Inspector(
        method, config.category or manifest.stem, size_px,
        own_threshold(method, [], config.false_alarm_rate, {}, config.seed),
        map_threshold_of(method, config, len(digests)), config.minimum_area, method.normal_scores_.tolist(),
        {
            "data": place.url, "normals": len(digests), "aspect": aspect, "method": config.method,
            "scales": [], "false_alarm_rate": config.false_alarm_rate, "learned_from": digests,
            "allow_contamination": 0.0, "left_out_as_outliers": [], "encoder": encoder.as_json(),
            "parts": seen.count, "layout": None, "arguments": arguments_of(config),
        },
    )  # fmt: skip
    print(f"{config.method} fitted to {len(digests)} good images in {seen.count} parts ({place}), seen at "
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


def learn(job: Job, manifest: Path, config: Fit) -> Iterator[Learned]:
    """Of all parts, in their order. Raises UserError for a part that is lost."""
    parts = parts_of(read_rows(manifest), config.part_images)
    with tasks_at(config, config.device) as tasks, Progress("fitting", count_rows(manifest)) as progress:
        for part, found in tasks.map(partial(learn_part, job), parts, in_order=True):
            if isinstance(found, Lost):
                raise UserError(f"a part of the images, from {part.rows[0].path} on, {found.reason}.")
            for problem in found.problems:
                progress.print(f"{problem.path}: {problem.reason}")
            progress.advance(len(part.rows))
            yield found


def learn_part(job: Job, part: Part) -> Learned:
    """What is learned of one part, in main memory."""
    place = Place.of(job.images)

    def read(row: Listed) -> Decoded | Problem:
        try:
            return place.image(row.path, job.size_px)
        except Unreadable as unreadable:
            return Problem(Path(row.path), str(unreadable))

    with ThreadPoolExecutor(max_workers=4) as pool:
        found = list(pool.map(read, part.rows))
    images = [each for each in found if not isinstance(each, Problem)]
    problems = [each for each in found if isinstance(each, Problem)]
    learned = None
    if images:
        learned = _method(job).part_of([as_images(torch.from_numpy(each.pixels)) for each in images])
        tensors = ("moments", "kept", "pooled", "patch_sum")
        learned = learned._replace(**{name: getattr(learned, name).to("cpu") for name in tensors})
    return Learned(
        learned, [each.file_digest.hex() for each in images], [each.width / each.height for each in images], problems
    )


@cache
def _method(job: Job) -> PaDiM:
    """The method, once in a process. Raises UserError where this machine has another encoder."""
    method = make_method(job.settings, Path(job.images), lambda line: None)
    if fingerprint(asked_encoder(method.encoder, method.architecture, method.seed)) != job.encoder:
        raise UserError(f"the encoder {job.settings.encoder} is not the same on every machine: copy it to all.")
    return method.to(choose_device(job.settings.device))
