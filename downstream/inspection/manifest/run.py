"""detect.py run --data: a manifest inspected in parts, here or on Ray's workers; a run that was stopped goes on.

Beside this process's few counts nothing is held: the manifest is read as parts are done, results are written by
whoever inspects.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from downstream.inspection.config import Run
from downstream.inspection.inspector import Inspector
from downstream.inspection.manifest.page import PAGE, page_of
from downstream.inspection.manifest.part import (
    PART_NAME,
    RESULTS,
    Job,
    Summary,
    digest_of_model,
    inspect_part,
    inspect_rows,
    unreadable_row,
    write_part,
)
from downstream.inspection.results import exit_code
from pretrain.command import UserError
from pretrain.data.manifest import SUFFIX, Part, count_rows, parts_of, place_of, read_rows, write_manifest
from pretrain.data.places import Listed, Place
from pretrain.files import scratch_folder, sole_writer
from pretrain.progress import Progress
from pretrain.tasks import Here, Lost, OnRay, tasks_at

MANIFEST, SUMMARY = "manifest.parquet", "summary.json"


def run(config: Run, model: Path) -> int:
    """Inspect every image of a manifest or a place; the exit code says how it went."""
    check(config)
    out = Place.of(config.out)
    inspector = Inspector.load(model, "cpu", config.runtime)  # what is wrong with it is said once, and here
    if config.threshold is not None:
        inspector.decide_at(config.threshold)
    with ExitStack() as opened:
        if out.folder is not None:
            opened.enter_context(sole_writer(out.folder, "writes results into", "another --out"))
        images, manifest = opened.enter_context(listed(str(config.data), out))
        job = Job(images.url, out.url, str(model.resolve()), digest_of_model(model), config.threshold, config.overlays,
                  config.device, config.runtime)  # fmt: skip
        summary = inspect_manifest(job, manifest, config)
        remove_others(job, manifest, config.part_images)
        about = {"images": images.url, "model": job.model, "model_digest": job.model_digest,
                 "category": inspector.category, "threshold": inspector.decision.value}  # fmt: skip
        out.write(SUMMARY, json.dumps({**about, **summary._asdict()}, indent=2).encode())
        out.write(PAGE, page_of(out, about, summary).encode("utf-8", "replace"))
    say(out, about, summary)
    return exit_code(bool(summary.defective), bool(summary.unreadable))


def check(config: Run) -> None:
    """Raise UserError for what goes with images that are named one by one alone."""
    if config.images:
        raise UserError("--data names what to inspect: leave the images out, or --data.")
    if config.part_images < 1:
        raise UserError(f"{config.part_images} images make no part: give 1 or more.")
    for name in ("maps", "format", "layout", "memory_gb"):
        if getattr(config, name):
            raise UserError(
                f"--{name.replace('_', '-')} is for images that are named, and not for --data: leave it out."
            )


@contextmanager
def listed(data: str, out: Place) -> Iterator[tuple[Place, Path]]:
    """Where images lie, and their manifest: the one that was named, or one that is made, and kept beside results on
    this machine."""
    if data.endswith(SUFFIX):
        yield place_of(Path(data)), Path(data)
        return
    images = Place.of(data)
    with ExitStack() as opened:
        folder = out.folder or opened.enter_context(scratch_folder("heldout-manifest"))
        changes = write_manifest(images, folder / MANIFEST)
        print(f"{images}: {changes.in_words()}")
        yield images, folder / MANIFEST


def inspect_manifest(job: Job, manifest: Path, config: Run) -> Summary:
    """All parts, as they are done."""
    summary = Summary()
    parts = parts_of(read_rows(manifest), config.part_images)
    with tasks_at(config, config.device) as tasks, Progress("inspecting", count_rows(manifest)) as progress:
        for part, found in tasks.map(partial(inspect_part, job), parts):
            summary += inspect_singly(job, part, tasks) if isinstance(found, Lost) else found
            progress.advance(len(part.rows), f"{summary.defective} defective, {summary.unreadable} unreadable")
    return summary


def inspect_singly(job: Job, part: Part, tasks: Here | OnRay) -> Summary:
    """A part that brings its workers down, image by image: one that does so alone is a row with this reason."""
    found = dict(tasks.map(partial(inspect_one, job), part.rows))
    rows = []
    for row in part.rows:
        result = found[row]
        rows += [unreadable_row(job, row, result.reason)] if isinstance(result, Lost) else result
    return write_part(job, part, rows)


def inspect_one(job: Job, row: Listed) -> list[dict]:
    return inspect_rows(job, (row,))


def remove_others(job: Job, manifest: Path, part_images: int) -> None:
    """Remove the results of an earlier run that are none of this one's: of images that changed or are gone.
    What has another name than a part's is somebody else's."""
    out = Place.of(job.out)
    there = [name for name in out.names(RESULTS) if PART_NAME.fullmatch(name)]
    if len(there) != sum(1 for _ in parts_of(read_rows(manifest), part_images)):
        ours = {job.file_of(part) for part in parts_of(read_rows(manifest), part_images)}
        for name in there:
            if f"{RESULTS}/{name}" not in ours:
                out.remove(f"{RESULTS}/{name}")


def say(out: Place, about: dict, summary: Summary) -> None:
    """What was found, the worst first."""
    print(f"{about['category']}: {summary.defective} of {summary.images} images defective, threshold "
          f"{about['threshold']:.4g}")  # fmt: skip
    for row in summary.worst[:10]:
        print(f"  {row['score']:>10.4g}  {'DEFECTIVE' if row['is_defective'] else 'good':9}  {row['path']}")
    for row in summary.reasons:
        print(f"  cannot be read: {row['path']}: {row['reason']}")
    if summary.unreadable > len(summary.reasons):
        print(f"  and {summary.unreadable - len(summary.reasons)} more cannot be read")
    if summary.distorted:
        print(f"{summary.distorted} images were drawn out of shape to what the model sees: trust them less")
    print(f"results: {out}/{RESULTS}/*.parquet, {out}/{SUMMARY}")
    print(f"worst:   {out}/{PAGE}")
