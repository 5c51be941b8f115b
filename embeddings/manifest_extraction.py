"""Vectors of the images of a manifest, here or on Ray's workers: each part of it becomes one shard, written once.

FOLDER/parts.jsonl holds, for each part ever seen, its digest, the number of its shard and the id of its first image. So
the same command gives out the same numbers, finds what is done, and makes the rest; ids are never used again.
"""

import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np

from embeddings.config import Extract
from embeddings.encoding import Encoding, Source, choose_encoder, make_source
from embeddings.vector_source import check_finite, describe, with_precision
from embeddings.vectors import entry_of, finish, shard_files, write_shard
from pretrain.command import UserError
from pretrain.data.decode import Decoded, Unreadable
from pretrain.data.decode_pool import pixel_digest
from pretrain.data.images import Problem, Record
from pretrain.data.manifest import Part, count_rows, parts_of, place_of, read_rows
from pretrain.data.places import Listed, Place
from pretrain.encoder import fingerprint
from pretrain.files import sole_writer
from pretrain.progress import Progress
from pretrain.reading import lines_of, parse_json
from pretrain.tasks import Lost, tasks_at
from pretrain.training.device import choose_device

PARTS = "parts.jsonl"
SAMPLE = 8


@dataclass(frozen=True)
class Job:
    """What is the same for all parts: images below a place, by its URL, the folder of the vectors, and what makes
    them: `encoder` as it was typed, and a Source, which holds its fingerprint."""

    images: str
    out: Path
    encoder: Path
    seed: int
    source: Source
    batch: int
    device: str


class Numbered(NamedTuple):
    """A part, its shard, and the id of its first image."""

    part: Part
    shard: int
    first_id: int


def extract_manifest(config: Extract) -> Path:
    """Bring the vectors in `config.out` up to date with a manifest, and return that folder."""
    manifest = Path(config.data)
    place = place_of(manifest)
    if config.categories or config.layout:
        raise UserError("the images of a manifest have no categories and no layout: leave out what names them.")
    encoder, encoder_path = choose_encoder(config.encoder, config.seed, False)
    source = make_source(
        encoder, config.form, config.levels, config.size_px, config.grid, config.dimensions, config.seed
    )
    name = blake2b(f"{place.url} {source.as_json()}".encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    out = config.out or Path("runs/vectors") / f"{manifest.stem}-{source.form}-{name}"
    read_from = {"data": place.url, "categories": [], "layout": None, "manifest": str(manifest.resolve()),
                 "part_images": config.part_images}  # fmt: skip
    device = choose_device(config.device)
    with sole_writer(out):
        sample = partial(sampled, place, manifest, source)
        source = with_precision(config, source, encoder, sample, read_from, out, device)
        describe(out, config.seed, Encoding(encoder, source, device), read_from, place.url, encoder, encoder_path)
        (out / "finished").unlink(missing_ok=True)
        typed = encoder_path.resolve() if encoder_path.is_file() else encoder_path
        job = Job(place.url, out.resolve(), typed, config.seed, source, config.batch, config.device)
        lost = run(job, manifest, config)
        if lost:
            raise UserError(f"{len(lost)} parts are missing; the first {lost[0].reason}. The same command tries again.")
        finish(out, Path(place.url))
    return out


def run(job: Job, manifest: Path, config: Extract) -> list[Lost]:
    """Make all shards that are not there, and remove those that are of no part any more."""
    numbers, lost = Numbers(job.out), []
    parts = numbers.of(parts_of(read_rows(manifest), config.part_images))
    with tasks_at(config, config.device) as tasks, Progress("extracting", count_rows(manifest)) as progress:
        for numbered, found in tasks.map(partial(extract_part, job), parts):
            for problem in () if isinstance(found, Lost) else found:
                progress.print(f"{problem.path}: {problem.reason}")
            lost += [found] if isinstance(found, Lost) else []
            progress.advance(len(numbered.part.rows))
    numbers.remove_others()
    return lost


class Numbers:
    """The shard and the ids of each part, in a file that only grows."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder / PARTS
        self._known: dict[str, tuple[int, int]] = {}
        self._seen: set[int] = set()
        self._next_shard = self._next_id = 0
        try:
            for line in lines_of(self._file) if self._file.exists() else ():
                with suppress(ValueError):  # a kill cut it off, before its part was given to anybody
                    digest, shard, first_id, images = parse_json(line, list)
                    self._add(digest, shard, first_id, images)
        except OSError as error:
            raise UserError(f"{self._file} is damaged ({error}): remove {folder} and extract again.") from None

    def of(self, parts: Iterable[Part]) -> Iterator[Numbered]:
        """Each part with its numbers: what is given out is on disk before."""
        with open(self._file, "a") as file:
            file.write("\n" * bool(file.tell()))  # after a line that was cut off
            for part in parts:
                if part.digest not in self._known:
                    line = (part.digest, self._next_shard, self._next_id, len(part.rows))
                    file.write(json.dumps(line) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                    self._add(*line)
                shard, first_id = self._known[part.digest]
                self._seen.add(shard)
                yield Numbered(part, shard, first_id)

    def remove_others(self) -> None:
        """Remove the shards of parts that were not asked for."""
        for shard, _ in self._known.values():
            if shard not in self._seen:
                for file in reversed(shard_files(self._folder, shard)):
                    file.unlink(missing_ok=True)

    def _add(self, digest: str, shard: int, first_id: int, images: int) -> None:
        self._known[digest] = (shard, first_id)
        self._next_shard, self._next_id = max(self._next_shard, shard + 1), max(self._next_id, first_id + images)


def extract_part(job: Job, numbered: Numbered) -> list[Problem]:
    """Write the shard of a part, unless it is there. Gives what cannot be read."""
    part, shard, first_id = numbered
    if all(file.exists() for file in shard_files(job.out, shard)):
        return []
    encoding, place = _encoding(job), Place.of(job.images)
    entries, vectors, problems = [], [np.empty((0, encoding.dimensions), np.float32)], []
    with ThreadPoolExecutor(max_workers=4) as pool:
        for start in range(0, len(part.rows), job.batch):
            rows = part.rows[start : start + job.batch]
            opened = list(pool.map(partial(_opened, place, job.source.size_px), rows))
            problems += [each for each in opened if isinstance(each, Problem)]
            readable = [(number, each) for number, each in enumerate(opened, start) if isinstance(each, Decoded)]
            if readable:
                found = encoding.vectors(np.stack([image.pixels for _, image in readable]))
                check_finite(found, [Path(part.rows[number].path) for number, _ in readable], encoding.per_image)
                vectors.append(found)
            for number, image in readable:
                path = part.rows[number].path
                entry = entry_of(Record(Path(path), "", "", ""), first_id + number, pixel_digest(image.pixels), Path())
                entries.append({**entry, "path": path})  # as it is: a//b would be a/b
    write_shard(job.out, shard, entries, np.concatenate(vectors))
    return problems


def sampled(place: Place, manifest: Path, source: Source) -> np.ndarray:
    """The first images of a manifest: uint8 (b, size, size, 3)."""
    found = []
    for row in read_rows(manifest):
        image = _opened(place, source.size_px, row)
        found += [] if isinstance(image, Problem) else [image.pixels]
        if len(found) == SAMPLE:
            break
    if not found:
        raise UserError(f"none of the images in {place} can be read.")
    return np.stack(found)


def _opened(place: Place, size_px: int, row: Listed) -> Decoded | Problem:
    try:
        return place.image(row.path, size_px)
    except Unreadable as unreadable:
        return Problem(Path(row.path), str(unreadable))


@cache
def _encoding(job: Job) -> Encoding:
    """The encoder, once in a process. Raises UserError where this machine has another one."""
    encoder, _ = choose_encoder(job.encoder, job.seed, False)
    if fingerprint(encoder) != job.source.encoder:
        raise UserError(f"the encoder {job.encoder} is not the same on every machine: copy it to all.")
    return Encoding(encoder, job.source, choose_device(job.device))
