"""Vectors on disk beside the images they were made from: shards that read as one array and only ever grow.

FOLDER/config.json          the source of the vectors, the data folder, the grid
FOLDER/shard-RANK.f32       float32 rows, `per_image` of them for each image, one after another
FOLDER/shard-RANK.jsonl     a line per image, in the same order, written once its rows are safely on disk: id, path,
                            category, split, defect, mask, digest of its pixels, digest of its rows; or {"gone": id};
                            and a checksum of the line
FOLDER/finished             exists while nothing is known to be missing, and holds the number of images

An image keeps its id for ever. The id of a vector is its image's id times `per_image`, plus the patch.
"""

import json
import os
import time
import zlib
from collections.abc import Collection, Iterator, Sequence
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from embeddings.encoding import Source
from pretrain.command import UserError
from pretrain.data.images import Record, check_names
from pretrain.files import sealed, unsealed, write_json, write_whole
from pretrain.reading import lines_of, parse_json, read_json, read_regular

# Of config.json and the lines: raised where their names or meanings change.
FORMAT = 1
SECONDS_BETWEEN_COMMITS = 1.0
CHECKSUM = b', "crc32": '  # ends every line, but for those from before 0.1
ENTRY_TYPES = {
    "id": int, "path": str, "category": str, "split": str, "defect": str, "mask": str | None, "digest": str,
    "rows": str | None,
}  # fmt: skip


class Line(NamedTuple):
    """One image of a shard: its id, its record, the digest of its pixels, its position in the shard, and the digest of
    its rows, which vectors from before 0.1 lack."""

    id: int
    record: Record
    digest: str
    shard: int
    position: int
    rows: str | None = None


class Vectors:
    """Extracted vectors, float32 (n, dimensions), as one array that stays on disk. `records` describe the images and
    `image_ids` are their int64 ids, in the order of ids. Raises UserError where the extraction was not finished, and
    where rows that are read are not what was written."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder, read_config(folder)
        finished = folder / "finished"
        if not finished.exists():
            raise UserError(f"the extraction in {folder} was not finished: run embeddings/extract.py again to go on.")
        self.data, self.source = Path(self.config["data"]), Source.from_json(self.config["source"])
        self.grid, self.dimensions = tuple(self.config["grid"]), self.config["dimensions"]
        self._lines = read_lines(folder, self.data)
        count = read_regular(finished).decode(errors="replace").strip()  # nothing, before 0.1
        if count and count != str(len(self._lines)):
            raise UserError(
                f"{folder} holds vectors of {len(self._lines)} images and not of {count:.20}, since a file is damaged: "
                "run embeddings/extract.py again to make up what is lost."
            )
        if not self._lines:
            raise UserError(f"{folder} holds vectors of no image: run embeddings/extract.py again.")
        self.records = tuple(line.record for line in self._lines)
        self.digests = tuple(line.digest for line in self._lines)  # equal for copies
        self.image_ids = np.array([line.id for line in self._lines], np.int64)
        self._shard = np.array([line.shard for line in self._lines], np.int64)
        self._start = np.array([line.position for line in self._lines], np.int64) * self.per_image
        # To check all rows at once would read gigabytes to answer for a few: an image is checked when it is read first.
        self._is_checked = np.array([line.rows is None for line in self._lines])
        self._rows = {}
        for shard in np.unique(self._shard):
            # A mapped file costs no memory until its rows are read; one that lost its end is noticed here, not later.
            path = shard_files(folder, shard)[0]
            lines_end = self._start[self._shard == shard].max() + self.per_image
            if (path.stat().st_size if path.exists() else 0) < lines_end * self.dimensions * 4:
                raise UserError(f"{path} is cut off: run embeddings/extract.py again to make up what is lost.")
            count = path.stat().st_size // (self.dimensions * 4)
            self._rows[shard] = np.memmap(path, np.float32, "r", shape=(count, self.dimensions))

    @property
    def per_image(self) -> int:
        """Vectors per image: 1 if pooled, else the patches of the grid."""
        return self.grid[0] * self.grid[1]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.records) * self.per_image, self.dimensions

    @property
    def ids(self) -> np.ndarray:
        """The ids of all vectors, int64 (n,)."""
        return (self.image_ids[:, None] * self.per_image + np.arange(self.per_image)).ravel()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        """Copies of `rows`, float32 (m, dimensions)."""
        # Index.build reads this array as if it were in memory, by blocks of rows.
        rows = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows, np.int64)
        images, patches = np.divmod(rows, self.per_image)
        self._check(np.unique(images[~self._is_checked[images]]))
        result = np.empty((len(rows), self.dimensions), np.float32)
        for shard, stored in self._rows.items():
            here = self._shard[images] == shard
            result[here] = stored[self._start[images[here]] + patches[here]]
        return result

    def _check(self, images: np.ndarray) -> None:
        """Raises UserError where the rows of these images are not those that were written."""
        for image in images.tolist():
            line, start = self._lines[image], self._start[image]
            if _rows_digest(self._rows[line.shard][start : start + self.per_image]) != line.rows:
                raise UserError(
                    f"{shard_files(self.folder, line.shard)[0]} is damaged (at {line.record.path}): remove "
                    f"{self.folder} and extract again."
                )
        self._is_checked[images] = True

    def of_images(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Vectors (m, per_image, dimensions) of the images at `positions`."""
        rows = np.asarray(positions, np.int64)[:, None] * self.per_image + np.arange(self.per_image)
        return self[rows.ravel()].reshape(len(rows), self.per_image, self.dimensions)

    def where(
        self, categories: Collection[str] = (), splits: Collection[str] = (), defects: Collection[str] = ()
    ) -> np.ndarray:
        """Positions of the images whose labels are among those named; no name allows all. Raises UserError for names
        that no image has, and if no image is left."""
        kept = np.ones(len(self.records), bool)
        for name, wanted in (("category", categories), ("split", splits), ("defect", defects)):
            values = [getattr(record, name) for record in self.records]
            check_names(wanted, sorted(set(values)), f"{name} among the vectors in {self.folder}")
            if wanted:
                kept &= np.isin(values, list(wanted))
        if not kept.any():
            asked = "; ".join(",".join(names) for names in (categories, splits, defects) if names)
            raise UserError(f"no image has all of these labels at once: {asked}. Leave one out.")
        return np.flatnonzero(kept)

    def by_category(self, categories: Collection[str] = (), splits: Collection[str] = ()) -> dict[str, list[int]]:
        """`where` for each category."""
        positions: dict[str, list[int]] = {}
        for position in self.where(categories, splits):
            positions.setdefault(self.records[position].category, []).append(int(position))
        return positions

    def positions_of(self, vector_ids: np.ndarray) -> np.ndarray:
        """Positions of the images that the vectors with these ids were made from; the ids must exist."""
        return np.searchsorted(self.image_ids, vector_ids // self.per_image)


class ShardWriter:
    """Appends to one shard, after cutting off what a killed writer left unfinished at its end."""

    def __init__(self, folder: Path, shard: int, per_image: int, dimensions: int) -> None:
        rows_path, lines_path = shard_files(folder, shard)
        for path in (rows_path, lines_path):
            if path.exists() and not path.is_file():  # a pipe would wait for somebody who reads it
                raise UserError(f"{path} is no regular file: remove {folder} and extract again.")
        self._rows, self._lines = open(rows_path, "ab"), open(lines_path, "ab+")  # noqa: SIM115 closed by close()
        image_bytes, stored = per_image * dimensions * 4, os.fstat(self._rows.fileno()).st_size
        self._lines.seek(0)
        whole_bytes = images = 0
        # A line counts if it is whole and all rows before its end are there: the two files can be torn apart by a kill.
        for line in self._lines:
            is_image = not line.startswith(b'{"gone"')
            if not line.endswith(b"\n") or (images + is_image) * image_bytes > stored:
                break
            whole_bytes, images = whole_bytes + len(line), images + is_image
        for file, size in ((self._lines, whole_bytes), (self._rows, images * image_bytes)):
            if os.fstat(file.fileno()).st_size != size:
                file.truncate(size)
        self._waiting: list[bytes] = []
        self._committed_s = time.monotonic()

    def add(self, entries: Sequence[dict], vectors: np.ndarray) -> None:
        """Append images, whose entries hold their ids, and their vectors (images * per_image, dimensions)."""
        vectors = np.ascontiguousarray(vectors, np.float32)
        self._rows.write(vectors.data)
        of_each = np.split(vectors, len(entries)) if entries else []
        self._waiting += [
            _line({**entry, "rows": _rows_digest(rows)}) for entry, rows in zip(entries, of_each, strict=True)
        ]
        if time.monotonic() - self._committed_s > SECONDS_BETWEEN_COMMITS:
            self.commit()

    def forget(self, ids: Sequence[int]) -> None:
        """Record that images are gone."""
        self._waiting += [_line({"gone": int(each)}) for each in ids]
        self.commit()

    def commit(self) -> None:
        """Rows first, then the lines that refer to them: a kill in between loses the rows, never their meaning."""
        for file, data in ((self._rows, b""), (self._lines, b"".join(self._waiting))):
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._waiting.clear()
        self._committed_s = time.monotonic()

    def close(self) -> None:
        self.commit()
        self._rows.close()
        self._lines.close()


def write_shard(folder: Path, shard: int, entries: Sequence[dict], vectors: np.ndarray) -> None:
    """A shard as a whole, which nobody adds to: the rows of its images (images * per_image, dimensions), then, in one
    step, the lines that refer to them."""
    rows_path, lines_path = shard_files(folder, shard)
    vectors = np.ascontiguousarray(vectors, np.float32)
    of_each = np.split(vectors, len(entries)) if entries else []
    write_whole(rows_path, vectors.tobytes())
    lines = (_line({**entry, "rows": _rows_digest(rows)}) for entry, rows in zip(entries, of_each, strict=True))
    write_whole(lines_path, *lines)


def finish(folder: Path, data: Path) -> None:
    """Mark that nothing is missing."""
    write_whole(folder / "finished", b"%d\n" % len(read_lines(folder, data)))


def mend(folder: Path, per_image: int, dimensions: int) -> None:
    """Cut from every shard what was not finished or was lost, so that it is extracted again."""
    for path in folder.glob("shard-*.jsonl"):
        ShardWriter(folder, _number(path), per_image, dimensions).close()


def entry_of(record: Record, image_id: int, digest: bytes, data: Path) -> dict:
    """The line of an image; paths are relative to the data folder."""
    mask = record.mask and record.mask.relative_to(data).as_posix()
    names = {name: getattr(record, name) for name in ("category", "split", "defect")}
    path = record.path.relative_to(data).as_posix()
    return {"id": image_id, "path": path, **names, "mask": mask, "digest": digest.hex()}


def read_config(folder: Path) -> dict:
    """config.json of the vectors in `folder`. Raises UserError where there is none, or one of another format."""
    try:
        config = read_json(folder / "config.json")
        if (number := config.get("format")) == FORMAT:
            return unsealed(config)
    except FileNotFoundError:
        raise UserError(f"there are no vectors in {folder}: embeddings/extract.py makes them.") from None
    except ValueError as error:
        raise UserError(f"{folder}/config.json is damaged ({error}): remove {folder} and extract again.") from None
    raise UserError(f"{folder} has format {number}, this heldout reads {FORMAT}: update heldout.")


def write_config(folder: Path, config: dict) -> None:
    write_json(folder / "config.json", sealed({"format": FORMAT, **config}))


def read_lines(folder: Path, data: Path) -> list[Line]:
    """The images of all shards that are not gone, by id."""
    lines, gone = [], set()
    for shard, entries in _entries(folder):
        position = 0
        for entry in entries:
            if "gone" in entry:
                gone.add(entry["gone"])
                continue
            names = (entry[name] for name in ("category", "split", "defect"))
            record = Record(data / entry["path"], *names, entry["mask"] and data / entry["mask"])
            lines.append(Line(entry["id"], record, entry["digest"], shard, position, entry.get("rows")))
            position += 1
    lines = sorted((line for line in lines if line.id not in gone), key=lambda line: line.id)
    for first, second in pairwise(lines):
        if first.id == second.id:
            raise UserError(f"{folder} is damaged (image {first.id} is there twice): remove it and extract again.")
    return lines


def next_id(folder: Path) -> int:
    """Higher than every id that was ever given out."""
    return 1 + max((entry["id"] for _, entries in _entries(folder) for entry in entries if "id" in entry), default=-1)


def shard_files(folder: Path, shard: int) -> tuple[Path, Path]:
    """The files of its rows and of its lines."""
    return folder / f"shard-{shard:05d}.f32", folder / f"shard-{shard:05d}.jsonl"


def _entries(folder: Path) -> Iterator[tuple[int, list[dict]]]:
    """The lines of each shard; one that a kill cut off is left out."""
    for path in sorted(folder.glob("shard-*.jsonl")):
        try:
            yield _number(path), [_entry(line) for line in lines_of(path) if line.endswith(b"\n")]
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error}): remove {folder} and extract again.") from None


def _entry(line: bytes) -> dict:
    """A line's content. Raises ValueError unless it is what `_line` writes."""
    content, checksum, number = line.rpartition(CHECKSUM)
    if checksum and number != b"%d}\n" % zlib.crc32(content):
        raise ValueError(f"the checksum of {line[:40]!r}... is wrong")
    return parse_json(line, {"gone": int} if line.startswith(b'{"gone"') else ENTRY_TYPES)


def _number(path: Path) -> int:
    return int(path.stem.split("-")[1])


def _line(entry: dict) -> bytes:
    content = json.dumps(entry).encode()[:-1]
    return content + CHECKSUM + b"%d}\n" % zlib.crc32(content)


def _rows_digest(rows: np.ndarray) -> str:
    return blake2b(np.ascontiguousarray(rows), digest_size=8).hexdigest()
