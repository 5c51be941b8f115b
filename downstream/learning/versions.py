"""The versions of a model: which is in use, which were before, and how another takes its place.

    models/bolt/                 the version in use, as `detect.py fit` wrote it or a promotion left it
    models/bolt/versions/2/      any other, a model folder like it, with its report
    models/bolt/history.json     which was in use since when, and who said so

What a fitted model says of itself is its number; without one it is version 1. A folder takes the place of another in
one step, so whoever reads the model finds one version or the other, whole, and whoever has it in memory keeps it. Of a
process that is killed, at whatever step, nothing but hidden files is left, which the next one clears away.
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from baselines.contract.model_folder import FILE, check_model_format, check_parts, parts_of
from pretrain.command import UserError
from pretrain.files import check_digest, link_or_copy, restore_folder, sealed, unsealed, whole_folder, write_json
from pretrain.reading import read_json

FOLDER, HISTORY, PROOF = "versions", "history.json", "proof.json"
# In what a model says of itself: its number, and that of the fitted model which it learned on top of.
NUMBER, BASE = "version", "base_version"
# For another process that changes versions: all that is done meanwhile is to read and to write files.
WAIT_S = 60
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class NotWhole(UserError):
    """There is no model in a folder, or it is damaged."""


class Version(NamedTuple):
    """A version on disk. `made` is UTC; `learned` how many images of feedback it has learned from, as
    {"good": 12, "defective": 3}; none where it was fitted."""

    number: int
    folder: Path
    is_in_use: bool
    made: str
    base: int
    learned: dict | None


class Change(NamedTuple):
    """A line of the history: which version came into use, when, who said so, and how: promoted, rolled back."""

    version: int
    at: str
    by: str
    how: str


def version_in_use(model: Path) -> int:
    """Its number. Raises UserError where there is no model."""
    restore_folder(model)
    return _described(model, model).number


def versions_of(model: Path) -> list[Version]:
    """All that are whole, by number; the one in use is the model's folder itself. Raises UserError where there is no
    model."""
    versions = [_described(model, model)]
    for folder in _stored(model):
        with suppress(UserError):  # `version_of` says what is wrong with it
            versions += [_described(folder, model)] if folder.name != str(versions[0].number) else []
    return sorted(versions)


def version_of(model: Path, number: int) -> Version:
    """One of them. Raises UserError for a number that is none."""
    known = {version.number: version for version in versions_of(model)}
    if number not in known:
        if (model / FOLDER / str(number)).is_dir():
            return _described(model / FOLDER / str(number), model)
        numbers = ", ".join(map(str, known))
        raise UserError(f"there is no version {number} of {model}; choose from {numbers}.")
    return known[number]


def next_number(model: Path) -> int:
    """The number of a version that is to be made: 1 where there is no model yet."""
    numbers = [int(folder.name) for folder in _stored(model)]
    with suppress(NotWhole):  # fitting again mends it, and its stored versions keep their numbers
        numbers.append(version_in_use(model))
    return 1 + max(numbers, default=0)


@contextmanager
def fitted_in_place_of(model: Path) -> Iterator[dict[str, int]]:
    """What a model that is fitted into this folder says of its number, to be written before this ends. Where the one
    there has versions, it is kept. Raises UserError where it was written by a newer heldout."""
    with changing(model):
        if not _stored(model):
            yield {}
            return
        with suppress(NotWhole):  # a damaged one is not kept
            _store(model)
        number = next_number(model)
        yield {NUMBER: number, BASE: number}


@contextmanager
def changing(model: Path) -> Iterator[None]:
    """Hold the right to change a model: to add and to exchange versions. Waits for another process that has it. Raises
    UserError where nothing can be written."""
    model = model.resolve()
    # Beside the model, whose folder another one takes the place of.
    lock = FileLock(model.with_name(f".{model.name}.lock"))
    try:
        model.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=WAIT_S)
    except Timeout:
        raise UserError(f"another process changes the versions of {model}: wait for it, or name another.") from None
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        raise UserError(
            f"models can only be read in {model.parent} ({error.strerror}), so this one stays as it is: give whoever "
            "runs this the right to write there."
        ) from None
    try:
        yield
    finally:
        lock.release()


def add_version(model: Path, number: int, write: Callable[[Path], None]) -> Path:
    """Have `write` fill the folder of a new version, which is there when all of it is; to be called while `changing`.
    The version in use is stored beside it, as learning begins at the fitted one whatever is in use by then."""
    _store(model)
    folder = model / FOLDER / str(number)
    with whole_folder(folder) as unfinished:
        write(unfinished)
    return folder


def promote(
    model: Path, number: int, by: str = "", how: str = "promoted", in_place_of: int | None = None,
    announce: Callable[[int, int], None] = lambda before, after: None,
) -> Version:  # fmt: skip
    """Put a version into use; the one before stays beside it. `announce` is called with both numbers when nothing but
    the exchange is left to do: what it raises stops that. Raises UserError for a version that is none, or is damaged,
    or where another one is in use by now than it is to take the place of."""
    version_in_use(model)  # where there is no model, nothing is to be made
    with changing(model):
        in_use = version_in_use(model)
        if in_place_of not in (None, in_use):
            raise UserError(
                f"version {number} of {model} was proved beside version {in_place_of}, and version {in_use} is in use "
                "by now: learn again, or promote it all the same."
            )
        wanted = version_of(model, number)
        if wanted.is_in_use:
            raise UserError(f"version {number} of {model} is in use already.")
        check_parts(wanted.folder, parts := parts_of(wanted.folder))
        for name in parts:
            check_digest(wanted.folder / name)
        _store(model)
        history = [*history_of(model), Change(number, _now(), by, how)]
        with whole_folder(model, replaced=parts_of(model)) as unfinished:
            for name in (*parts, FILE):
                link_or_copy(wanted.folder / name, unfinished / name)
            write_json(unfinished / HISTORY, sealed({"changes": [change._asdict() for change in history]}))
            announce(in_use, number)
    return version_of(model, number)


def roll_back(
    model: Path, number: int | None = None, by: str = "",
    announce: Callable[[int, int], None] = lambda before, after: None,
) -> Version:  # fmt: skip
    """Put the version into use that was before, or another. Raises UserError where there was none."""
    return promote(model, previous(model) if number is None else number, by, "rolled back", announce=announce)


def previous(model: Path) -> int:
    """The version that a roll back leads to: the one that the version in use took the place of. Rolled back twice, that
    is the one before both. Raises UserError where there was none."""
    in_use, there = version_in_use(model), {version.number for version in versions_of(model)}
    line: list[int] = []  # how the one in use came about, without what was rolled back
    for change in history_of(model):
        line = line[: line.index(change.version)] if change.version in line else line
        line.append(change.version)
    before = line[: line.index(in_use)] if in_use in line else line
    for number in reversed(before):
        if number in there:
            return number
    raise UserError(f"no version of {model} was in use before version {in_use}: name one, of {_numbers(there)}.")


def history_of(model: Path) -> list[Change]:
    """Which versions came into use, the first one first. One that was fitted in place of another is the last."""
    changes, in_use = [], _described(model, model)
    try:
        if (model / HISTORY).is_file():
            said = unsealed(read_json(model / HISTORY, {"changes": list[dict[str, int | str]]}))
            changes = [Change(**change) for change in said["changes"]]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{model / HISTORY} is damaged ({error}): remove it; versions stay as they are.") from None
    is_known = changes and changes[-1].version == in_use.number
    return changes if is_known else [*changes, Change(in_use.number, in_use.made, "", "fitted")]


def said_by(model: Path) -> str:
    """Who put the version into use that a model's folder is, as its history says; empty where nobody said it, or the
    model was fitted or decided anew since."""
    try:
        history, decided = ((model / name).stat().st_mtime_ns for name in (HISTORY, FILE))
        return history_of(model)[-1].by if decided <= history else ""
    except (UserError, OSError):
        return ""


def _store(model: Path) -> None:
    """Keep the version in use beside itself, as it is now: its threshold may have changed since it was made. Of files
    that are never written into a second name takes no room."""
    folder = model / FOLDER / str(version_in_use(model))
    with whole_folder(folder, replaced=parts_of(folder)) as unfinished:
        for name in (*parts_of(model), FILE):
            link_or_copy(model / name, unfinished / name)


def _stored(model: Path) -> list[Path]:
    folder = model / FOLDER
    return [path for path in folder.iterdir() if path.name.isdecimal()] if folder.is_dir() else []


def _described(folder: Path, model: Path) -> Version:
    """What a model's folder says of it. Raises UserError where there is none, or it is not whole."""
    file = folder / FILE
    if not file.is_file():
        raise NotWhole(f"there is no model in {folder}; python downstream/detect.py fit makes one.")
    try:
        said = read_json(file)
        check_model_format(file, said["format"])
        metadata = unsealed(said).get("metadata", {})
        number, base = (int(metadata.get(name, 1)) for name in (NUMBER, BASE))
        made = metadata.get("made") or datetime.fromtimestamp(file.stat().st_mtime, UTC).isoformat(timespec="seconds")
        return Version(number, folder, folder == model, made, base, metadata.get("learned"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotWhole(f"{file} is damaged ({error}): fit the model again, or copy it whole.") from None


def _numbers(numbers: set[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
