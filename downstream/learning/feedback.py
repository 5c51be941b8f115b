"""What operators say of a model's verdicts: records that are only ever added, as JSON lines beside the images.

    {"image": "line 3/0012.png", "verdict": "missed defect", "mask": {"box": [120, 40, 180, 90]}, "at": "2026-..", ...}

An image is known by the SHA-256 of its file. Nothing is changed or deleted: a later record corrects an earlier one, and
one that is `taken back` leaves what was there before it. Light: neither torch nor numpy is imported.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.request import Request, urlopen

from pretrain.command import UserError, nearest
from pretrain.data.images import SUFFIXES
from pretrain.files import append_whole
from pretrain.reading import parse_json, read_regular

FILE = "feedback.jsonl"
AGREE, FALSE_ALARM, MISSED, UNSURE, TAKEN_BACK = "agree", "false alarm", "missed defect", "unsure", "taken back"
VERDICTS = (AGREE, FALSE_ALARM, MISSED, UNSURE, TAKEN_BACK)
# Where there are no records: the folders of images that somebody has sorted, and how a mask beside one is called.
SORTED = {"good": False, "defective": True}
MASK_SUFFIX = "_mask"
# What a drawing may be of: no image is larger.
MAX_COORDINATE = 10**7
# A running service, which has all that stands at EXPORT.
ADDRESSES, EXPORT, TOKEN = ("http://", "https://"), "/api/feedback/export", "HELDOUT_TOKEN"
TIMEOUT_S, MAX_BYTES = 30, 2**27


@dataclass(frozen=True)
class Feedback:
    """What somebody said of the verdict on one image.

    `was_defective` is what the model had said, which `agree` needs. `mask` says where a defect is: a file, bright where
    it is, or {"box": [left, top, right, bottom]} or {"polygon": [[x, y], ...]}, several of either as a list, all in
    pixels of the image. `at` is when, UTC unless it says otherwise, the first of all if empty; `model` is whose
    verdict, empty where that is not known, `model_version` 0 where no model was asked.
    """

    image: Path
    verdict: str
    mask: Path | Mapping | Sequence[Mapping] | None = None
    at: str = ""
    by: str = ""
    model: str = ""
    model_version: int | str = 0
    image_digest: str = ""
    was_defective: bool | None = None

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise UserError(f"there is no verdict {self.verdict!r}; {nearest(str(self.verdict), VERDICTS)}")
        texts = (self.at, self.by, self.model, self.image_digest)
        if not all(isinstance(text, str) for text in texts) or not isinstance(self.model_version, int | str):
            raise UserError(
                f"{self.image}: at, by, model and image_digest must be texts, model_version one or a number."
            )
        try:
            datetime.fromisoformat(self.at or "2026-11-29")
        except ValueError:
            raise UserError(f"{self.image}: at {self.at!r} is no moment: give it as 2026-11-29T10:00:00Z.") from None
        if self.verdict == AGREE and not isinstance(self.was_defective, bool):
            raise UserError(f"{self.image}: to agree, was_defective must say with what: true or false.")
        if self.mask is not None and not isinstance(self.mask, Path):
            for shape in shapes_of(self.mask):
                if not _is_shape(shape):
                    raise UserError(
                        f'{self.image}: {shape!r:.60} says not where the defect is: give {{"box": [left, top, right, '
                        'bottom]}, {"polygon": [[x, y], ...]} of three points and more, or the file of a mask.'
                    )

    @property
    def moment(self) -> datetime:
        """When it was said."""
        moment = datetime.fromisoformat(self.at) if self.at else datetime.min
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    @property
    def is_defective(self) -> bool | None:
        """What the operator says is true; none where that is not known."""
        return {AGREE: self.was_defective, FALSE_ALARM: False, MISSED: True}.get(self.verdict)

    def as_json(self) -> dict:
        record = {name: value for name, value in asdict(self).items() if value not in (None, "")}
        return {name: str(value) if isinstance(value, Path) else value for name, value in record.items()}


class Confirmed(NamedTuple):
    """An image of which an operator has said what it is, known by its digest."""

    image: Path
    digest: str
    is_defective: bool
    mask: Path | Mapping | Sequence[Mapping] | None


def confirmed(records: Iterable[Feedback]) -> list[Confirmed]:
    """What stands after all records, one for each image that is known as good or defective, in the order in which they
    were first spoken of. Records come in any order: `at` counts, and among equals their order."""
    standing: dict[str, list[Feedback]] = {}
    for record in sorted(records, key=lambda record: record.moment):
        said = standing.setdefault(record.image_digest, [])
        if record.verdict != TAKEN_BACK:
            said.append(record)
        elif said:
            said.pop()
    last = [said[-1] for said in standing.values() if said]
    return [
        Confirmed(record.image, record.image_digest, record.is_defective, record.mask if record.is_defective else None)
        for record in last
        if record.is_defective is not None
    ]


def add_feedback(file: Path, record: Feedback) -> None:
    """Append a record, of now if it does not say when; it is on disk when this returns."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a+b", buffering=0) as lines:
        lines.seek(max(0, lines.seek(0, os.SEEK_END) - 1))
        mended = b"" if lines.read(1) in (b"", b"\n") else b"\n"  # after a line that somebody did not end
        append_whole(lines, mended + json.dumps(replace(record, at=record.at or now).as_json()).encode() + b"\n")


def read_feedback(named: Path | str) -> list[Feedback]:
    """The records of a file of JSON lines, of `feedback.jsonl` in a folder, or of a running service by its address (its
    images are read on this machine); of a folder without records, its images in good/ and defective/, NAME_mask.png
    beside NAME. Images are named as seen from the file. Raises UserError."""
    if str(named).startswith(ADDRESSES):
        return _records(_fetched(str(named)), str(named), Path())
    path = Path(named)
    if path.is_dir() and not (path / FILE).is_file():
        return _sorted_images(path)
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"there is no file or folder of feedback {path}.")
    try:
        return _records(read_regular(file), str(file), file.parent)
    except OSError as error:
        raise UserError(f"{file} is no file of feedback ({error}): give JSON lines, one record a line.") from None


def _fetched(address: str) -> bytes:
    """What a service answers, by default all feedback that stands. The token is the one that the service was given."""
    if "/api/" not in address:
        address = address.rstrip("/") + EXPORT
    request = Request(address)
    if token := os.environ.get(TOKEN):
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    try:
        with urlopen(request, timeout=TIMEOUT_S) as answer:
            if len(lines := answer.read(MAX_BYTES + 1)) <= MAX_BYTES:
                return lines
    except (OSError, ValueError, HTTPException) as error:
        raise UserError(
            f"{address} gives no feedback ({error}): is the service there, and {TOKEN} its token?"
        ) from None
    raise UserError(f"{address} gives more than {MAX_BYTES:,} bytes of feedback: split what it exports into files.")


def _records(lines: bytes, name: str, folder: Path) -> list[Feedback]:
    try:
        numbered = enumerate(lines.decode().splitlines(), 1)
    except ValueError as error:
        raise UserError(f"{name} is no file of feedback ({error}): give JSON lines, one record a line.") from None
    return [_record(line, name, number, folder) for number, line in numbered if line.strip()]


def _record(line: str, name: str, number: int, folder: Path) -> Feedback:
    try:
        said = parse_json(line)
        unknown = [word for word in said if word not in Feedback.__dataclass_fields__]
        if unknown:
            raise UserError(f"there is no field {unknown[0]!r}; {nearest(unknown[0], Feedback.__dataclass_fields__)}")
        image, mask = folder / said.pop("image"), said.pop("mask", None)
        record = Feedback(image, **said, mask=folder / mask if isinstance(mask, str) else mask)
        return record if record.image_digest else replace(record, image_digest=digest_of(image))
    except (ValueError, OverflowError, TypeError, KeyError, UserError) as error:
        raise UserError(f"{name}, line {number}, is no record of feedback ({error}); mend or remove it.") from None


def digest_of(image: Path) -> str:
    """SHA-256 of a file, as the service has it. Raises UserError where it cannot be read."""
    return sha256(bytes_of(image)).hexdigest()


def bytes_of(image: Path) -> bytes:
    """A file. Raises UserError where it cannot be read."""
    try:
        return read_regular(image)
    except (OSError, ValueError) as error:  # a name that is none, as with a zero in it, is a ValueError
        raise UserError(f"{image} cannot be read ({error}): put it back, or take its record out.") from None


def _sorted_images(folder: Path) -> list[Feedback]:
    """Records of images that lie in good/ and defective/."""
    records = []
    for name, is_defective in SORTED.items():
        files = sorted(path for path in (folder / name).glob("*") if path.suffix.lower() in SUFFIXES)
        images = {path.stem: path for path in files if not path.stem.endswith(MASK_SUFFIX)}
        masks = {path.stem.removesuffix(MASK_SUFFIX): path for path in files if path.stem.endswith(MASK_SUFFIX)}
        if alone := sorted(masks.keys() - images.keys()):
            raise UserError(f"{masks[alone[0]]} is the mask of no image there: put {alone[0]} beside it, or rename it.")
        records += [
            Feedback(path, AGREE, masks.get(path.stem), image_digest=digest_of(path), was_defective=is_defective)
            for path in files
            if path not in masks.values()
        ]
    if not records:
        raise UserError(f"{folder} holds no {FILE}, and no images in good/ or defective/: sort some into those.")
    good, bad = ({r.image_digest: r.image for r in records if r.is_defective is said} for said in (False, True))
    if both := good.keys() & bad.keys():
        image = min(good[digest] for digest in both)
        raise UserError(f"{image} lies in defective/ too: leave it where it belongs.")
    return records


def shapes_of(mask: Mapping | Sequence[Mapping]) -> list[Mapping]:
    """The boxes and polygons of a mask that was drawn."""
    return [mask] if isinstance(mask, Mapping) else list(mask)


def _is_shape(shape: object) -> bool:
    """Whether it is a box or a polygon."""
    match shape:
        case {"box": [_, _, _, _] as numbers}:
            return len(shape) == 1 and all(map(_is_coordinate, numbers))
        case {"polygon": [_, _, _, *_] as points}:
            pairs = all(isinstance(point, Sequence) and len(point) == 2 for point in points)
            return len(shape) == 1 and pairs and all(_is_coordinate(number) for point in points for number in point)
    return False


def _is_coordinate(number: object) -> bool:
    return type(number) in (int, float) and abs(number) <= MAX_COORDINATE  # which nothing is that is no number
