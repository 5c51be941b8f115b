"""The options of detect.py's commands on versions: learn, promote, roll-back and versions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Learn:
    """Make a new version of a model from what operators say of its verdicts, and prove it beside the version in use.

    Attributes:
        model: Folder of a model that fit wrote.
        feedback: JSON lines of records (docs/learning.md), a folder with feedback.jsonl or with images in good/ and
            defective/, or the address of a service on this machine, such as http://127.0.0.1:5000.
        promote: never, or if-better to put the new version into use by the rule of docs/learning.md.
        by: Who says so, for the history.
        device: cpu, cuda, or auto for a GPU where there is one.
    """

    model: Path
    feedback: str
    promote: Literal["never", "if-better"] = "never"
    by: str = ""
    device: str = "auto"


@dataclass(frozen=True)
class Promote:
    """Put another version of a model into use; the one before stays.

    Attributes:
        model: Folder of the model.
        version: Which version. Default is the newest.
        by: Who says so, for the history.
    """

    model: Path
    version: int | None = None
    by: str = ""


@dataclass(frozen=True)
class RollBack:
    """Put the version of a model into use again that was before.

    Attributes:
        model: Folder of the model.
        version: Another version than the one before.
        by: Who says so, for the history.
    """

    model: Path
    version: int | None = None
    by: str = ""


@dataclass(frozen=True)
class Versions:
    """List the versions of a model, which is in use, and how each was judged.

    Attributes:
        model: Folder of the model.
    """

    model: Path
