"""The folder of a model that is ready for use: what its method saved, and how it decides, in a file written last.

`downstream/inspection/inspector.py` uses it. It stands here because the auto-encoders' command leaves such folders too.
It needs no torch: an exported model is run without, and without its 1.5 s.
"""

from pathlib import Path
from typing import Protocol

from pretrain.command import UserError
from pretrain.files import write_json

FILE = "inspector.json"
FORMAT = 3  # 2: may decide by area; 3: the threshold's `rate` is called `false_alarm_rate`


class Saved(Protocol):
    """A method, as far as it matters here."""

    def save(self, folder: Path) -> None: ...


def write_model(folder: Path, method: Saved, **metadata: object) -> None:
    """Write to `folder`, the method first: a folder without the file of metadata is not finished."""
    (folder / FILE).unlink(missing_ok=True)
    method.save(folder)
    write_metadata(folder, **metadata)


def write_metadata(folder: Path, **metadata: object) -> None:
    """Write how the model decides, to a folder that has its method: what an Inspector (downstream/inspection)
    is made of beside the method."""
    described = {name: _with_names(value) for name, value in metadata.items()}
    write_json(folder / FILE, {**described, "format": FORMAT})


def check_format(path: Path, number: int, ours: int, maker: str = "fit") -> None:
    """Raise UserError unless a file's format `number` is the one that is written here, `ours`."""
    if number != ours:
        age, remedy = ("a newer", "update heldout") if number > ours else ("an older", f"{maker} the model again")
        raise UserError(f"{path} was written by {age} heldout (format {number}, this one reads {ours}): {remedy}.")


def _with_names(value: object) -> object:
    """A named tuple, and those inside it, as a dict: JSON would leave the names out."""
    if hasattr(value, "_asdict"):
        return {name: _with_names(inner) for name, inner in value._asdict().items()}
    return value
