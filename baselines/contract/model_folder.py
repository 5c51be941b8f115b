"""The folder of a model that is ready for use: what its method saved, and a file of metadata, written last.

`downstream/inspection/inspector.py` reads it. It stands here because methods of this package leave such folders too.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from pretrain.files import write_json

if TYPE_CHECKING:
    from baselines.contract.method import Method

FILE = "inspector.json"
FORMAT = 2  # 2: may decide by area


def write_model(folder: Path, method: "Method", **metadata: object) -> None:
    """Write to `folder`, the method first: a folder without the file of metadata is not finished."""
    (folder / FILE).unlink(missing_ok=True)
    method.save(folder)
    write_metadata(folder, **metadata)


def write_metadata(folder: Path, **metadata: object) -> None:
    """Write how the model decides, to a folder that has its method: what an Inspector (downstream/inspection)
    is made of beside the method."""
    described = {name: _named(value) for name, value in metadata.items()}
    write_json(folder / FILE, {**described, "format": FORMAT})


def _named(value: object) -> object:
    """A named tuple, and those inside it, with its names, which JSON would leave out."""
    if hasattr(value, "_asdict"):
        return {name: _named(part) for name, part in value._asdict().items()}
    return value
