"""The folder of a model that is ready for use: what its method saved, and how it decides, with digests of the rest.

`downstream/inspection/inspector.py` uses it. It stands here because the auto-encoders' command leaves such folders too.
It needs no torch: an exported model is run without, and without its 1.5 s.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

from pretrain.command import UserError
from pretrain.files import restore_folder, sealed, stored_digest, whole_folder, write_json
from pretrain.reading import read_json

FILE = "inspector.json"
FORMAT = 3  # 2: may decide by area; 3: the threshold's `rate` is called `false_alarm_rate`
# Of models that have any of these beside: whoever knows no more than FORMAT must not decide by half of the rule.
EXTENSIONS, EXTENDED_FORMAT = ("drawn_roi", "zone_rule", "alignment", "channels"), 4
# Of a folder that changes while it is read.
MOST_READS = 5

Read = TypeVar("Read")


class Saved(Protocol):
    """A method, as far as it matters here."""

    def save(self, folder: Path) -> None: ...


def write_model(folder: Path, method: Saved, **metadata: object) -> None:
    """Write to `folder`, in place of a model that is there: of a writer that is killed, all of the old one stays."""
    with whole_folder(folder, replaced=parts_of(folder)) as unfinished:
        fill_model(unfinished, method, **metadata)


def fill_model(folder: Path, method: Saved, **metadata: object) -> None:
    """The same into a folder that is there and empty."""
    method.save(folder)
    parts = {file.name: stored_digest(file) for file in sorted(folder.iterdir())}
    write_metadata(folder, **metadata, parts=parts)


def write_metadata(folder: Path, **metadata: object) -> None:
    """Write how the model decides, to a folder that has its method: what an Inspector (downstream/inspection)
    is made of beside the method."""
    described = {name: _with_names(value) for name, value in metadata.items()}
    number = EXTENDED_FORMAT if set(EXTENSIONS) & described.keys() else FORMAT
    write_json(folder / FILE, sealed({**described, "format": number}))


def read_unchanged(folder: Path, read: Callable[[], Read]) -> Read:
    """What `read` makes of a model's folder, all of one model: read again where another one took its place meanwhile,
    as `detect.py promote` does. Raises UserError where that never ends."""
    restore_folder(folder)
    for _ in range(MOST_READS):
        before = _state(folder)
        try:
            made = read()
        except UserError:
            if _state(folder) == before:
                raise
        else:
            if _state(folder) == before:
                return made
    raise UserError(f"{folder} is written again and again while it is read: wait until that ends.")


def _state(folder: Path) -> tuple | None:
    """Another one whenever a file in the folder, or all of it, is exchanged; none where it is missing."""
    try:
        seen = folder.stat()
    except OSError:
        return None
    return seen.st_ino, seen.st_ctime_ns


def parts_of(folder: Path) -> dict[str, str]:
    """The digests of the files beside `inspector.json` that make up a model. None where there is no model yet."""
    try:
        return read_json(folder / FILE, {"parts": dict[str, str] | None}).get("parts") or {}
    except (OSError, ValueError):
        return {}


def check_parts(folder: Path, parts: Mapping[str, str]) -> None:
    """Raise UserError unless the files of a model name the digests of those that were written with it. That these are
    their digests is checked where they are read."""
    for name, digest in parts.items():
        file = folder / Path(name).name
        if not file.is_file():
            raise UserError(f"{file} is missing: copy the model whole, or fit it again.")
        if stored_digest(file) != digest:
            raise UserError(f"{file} is damaged or another model's than {FILE} there: copy it whole, or fit again.")


def check_format(path: Path, number: int, ours: int, maker: str = "fit") -> None:
    """Raise UserError unless a file's format `number` is the one that is written here, `ours`."""
    if number != ours:
        age, remedy = ("a newer", "update heldout") if number > ours else ("an older", f"{maker} the model again")
        raise UserError(f"{path} was written by {age} heldout (format {number}, this one reads {ours}): {remedy}.")


def check_model_format(path: Path, number: int) -> None:
    """Raise UserError unless it is one of those that models are written in here."""
    if number != FORMAT:
        check_format(path, number, EXTENDED_FORMAT)


def _with_names(value: object) -> object:
    """A named tuple, and those inside it, as a dict: JSON would leave the names out."""
    if hasattr(value, "_asdict"):
        return {name: _with_names(inner) for name, inner in value._asdict().items()}
    return [_with_names(inner) for inner in value] if isinstance(value, list) else value
