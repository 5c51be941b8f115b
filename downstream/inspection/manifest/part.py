"""One part of a manifest inspected: a Parquet file with a row an image, and overlays.

A part is written once, in one step, under a name made of all that it depends on. So whoever is given it again finds it
done, and a worker that dies, or two that were given the same, leave what one would.
"""

import heapq
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2b
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from baselines.contract.model_folder import FILE
from downstream.inspection.inspection import Inspection
from downstream.inspection.inspector import Inspector
from downstream.inspection.results import DRAWN_COMPRESSION
from pretrain.command import UserError
from pretrain.data.channels import PLAIN, Channels
from pretrain.data.decode import Decoded
from pretrain.data.images import Problem
from pretrain.data.manifest import Part, import_parquet
from pretrain.data.places import Listed, Place
from pretrain.data.size import Size
from pretrain.reading import read_regular

RESULTS, OVERLAYS = "results", "overlays"
PART_NAME = re.compile(r"[0-9a-f]{24}\.parquet")
SHOWN, REASONS_SHOWN = 30, 20
Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What is the same for all parts: images below the place `images`, results below `out`, both by URL, and a model by
    its path on every machine and its digest."""

    images: str
    out: str
    model: str
    model_digest: str
    threshold: float | None
    overlays: str
    device: str
    runtime: str | None = None

    def file_of(self, part: Part) -> str:
        """Where the results of a part lie below `out`."""
        told = (self.images, self.model_digest, self.threshold, self.overlays, part.digest)
        return f"{RESULTS}/{blake2b(repr(told).encode(), digest_size=12).hexdigest()}.parquet"


class Summary(NamedTuple):
    """What is known of some parts: counts, their worst images, and why some images could not be read."""

    images: int = 0
    defective: int = 0
    unreadable: int = 0
    distorted: int = 0
    worst: tuple[Row, ...] = ()
    reasons: tuple[Row, ...] = ()

    def __add__(self, other: "Summary") -> "Summary":
        counts = (ours + theirs for ours, theirs in zip(self[:4], other[:4], strict=True))
        # By path where scores are equal: in whichever order parts are done, the same are shown.
        worst = heapq.nsmallest(SHOWN, (*self.worst, *other.worst), key=lambda row: (-row["score"], row["path"]))
        reasons = heapq.nsmallest(REASONS_SHOWN, (*self.reasons, *other.reasons), key=lambda row: row["path"])
        return Summary(*counts, tuple(worst), tuple(reasons))

    @classmethod
    def of(cls, rows: list[Row]) -> "Summary":
        """Of the rows of one part."""
        judged = [row for row in rows if row["reason"] is None]
        counts = (sum(row[name] for row in judged) for name in ("is_defective", "is_distorted"))
        defective, distorted = counts
        read = cls(len(rows), defective, len(rows) - len(judged), distorted)
        return cls() + read._replace(
            worst=tuple(judged), reasons=tuple(row for row in rows if row["reason"] is not None)
        )


def inspect_part(job: Job, part: Part) -> Summary:
    """Inspect a part, unless that was done, and write it down."""
    out, file = _place(job.out), job.file_of(part)
    if out.has(file):
        return Summary.of(read_rows(out, file))
    return write_part(job, part, inspect_rows(job, part.rows))


def inspect_rows(job: Job, rows: tuple[Listed, ...]) -> list[Row]:
    """A row of results for each image, and the overlays that were asked for."""
    model = _opened(job.model, job.model_digest, job.threshold, job.device, job.runtime)
    return list(_inspected(job, model, rows))


def write_part(job: Job, part: Part, rows: list[Row]) -> Summary:
    """Write the rows of a part, all at once."""
    parquet, arrow = import_parquet(), import_module("pyarrow")
    data, table = BytesIO(), arrow.Table.from_pylist(rows, schema=_schema())
    parquet.write_table(table, data)
    _place(job.out).write(job.file_of(part), data.getvalue())
    return Summary.of(table.to_pylist())  # as it will be read: with every column


def read_rows(out: Place, file: str) -> list[Row]:
    """What `write_part` wrote. Raises UserError for what is damaged."""
    try:
        return import_parquet().read_table(BytesIO(out.read(file))).to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own are such
        raise UserError(f"{out}/{file} is damaged ({error}): remove it, and the same command makes it again.") from None


def unreadable_row(job: Job, row: Listed, reason: str) -> Row:
    """In place of a verdict: why there is none."""
    return {**row._asdict(), "reason": reason, "model": job.model_digest}


def _inspected(job: Job, model: Inspector, rows: tuple[Listed, ...]) -> Iterator[Row]:
    place, digests = _place(job.images), {}
    keys = {Path(str(number)): row.path for number, row in enumerate(rows)}  # as a path a//b would be a/b

    def read(path: Path, size_px: Size, channels: Channels) -> Decoded:
        decoded = place.image(keys[path], size_px, channels)
        digests[path] = decoded.file_digest
        return decoded

    for row, found in zip(rows, model.inspect(list(keys), read), strict=True):
        if isinstance(found, Problem):
            yield unreadable_row(job, row, found.reason)
            continue
        is_drawn = job.overlays == "all" or (job.overlays == "defective" and found.is_defective)
        yield {
            **unreadable_row(job, row, ""),
            "reason": None,
            "overlay": _draw(job, model, row, found) if is_drawn else None,
            "digest": digests[found.path].hex(),
            **{name: getattr(found, name) for name in ("score", "threshold", "confidence", "width", "height")},
            **{name: getattr(found, name) for name in ("is_defective", "is_distorted", "is_not_aligned")},
            "zones": found.defective_zones,
            "regions": [region._asdict() for region in found.regions],
        }


def _draw(job: Job, model: Inspector, row: Listed, found: Inspection) -> str:
    """Draw an image with what was found, and say where."""
    place, outlines = _place(job.images), model.outlines(found)
    if place.folder is None:
        pixels = place.image(row.path, channels=found.channels).pixels[:, :, :3]
        found = replace(found, given=pixels, channels=PLAIN)
    else:
        found = replace(found, path=place.folder / row.path)
    data, name = BytesIO(), blake2b(row.path.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    found.overlay(outlines=outlines).save(data, "PNG", compress_level=DRAWN_COMPRESSION)
    _place(job.out).write(file := f"{OVERLAYS}/{name}.png", data.getvalue())
    return file


@cache
def _place(url: str) -> Place:
    return Place.of(url)


@cache
def _opened(model: str, digest: str, threshold: float | None, device: str, runtime: str | None) -> Inspector:
    """The model, once in a process. Raises UserError where this machine has another one at that path."""
    if digest_of_model(Path(model)) != digest:
        raise UserError(f"{model} is not the same model on every machine: copy it to all, or use a shared disk.")
    opened = Inspector.load(model, device, runtime)
    if threshold is not None:
        opened.decide_at(threshold)
    return opened


def digest_of_model(path: Path) -> str:
    """Of a model's folder or an exported file. How it decides names the digests of all else in the folder."""
    file = path / FILE if path.is_dir() else path
    try:
        return blake2b(read_regular(file), digest_size=12).hexdigest()
    except OSError:
        raise UserError(f"there is no model in {path}; python downstream/detect.py fit makes one.") from None


@cache
def _schema() -> object:
    arrow = import_module("pyarrow")
    number, text, flag = arrow.float64(), arrow.string(), arrow.bool_()
    region = {"area_px": arrow.int64(), "box": arrow.list_(arrow.int32()), "peak": number,
              "center": arrow.list_(arrow.int32()), "zone": text}  # fmt: skip
    return arrow.schema({
        "path": text, "size": arrow.int64(), "version": text, "reason": text, "score": number, "threshold": number,
        "is_defective": flag, "confidence": number, "width": arrow.int32(), "height": arrow.int32(),
        "is_distorted": flag, "is_not_aligned": flag, "zones": arrow.list_(text),
        "regions": arrow.list_(arrow.struct(region)), "overlay": text, "digest": text, "model": text,
    })  # fmt: skip
