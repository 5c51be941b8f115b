"""The folder of a model that is ready for use: what its method saved, and how it decides, in a file written last.

`downstream/inspection/inspector.py` uses it. It stands here because the auto-encoders' command leaves such folders too.
"""

from pathlib import Path

from baselines.contract.method import Method
from pretrain.files import write_json

FILE = "inspector.json"
FORMAT = 3  # 2: may decide by area; 3: the threshold's `rate` is called `false_alarm_rate`


def write_model(folder: Path, method: Method, **metadata: object) -> None:
    """Write to `folder`, the method first: a folder without the file of metadata is not finished."""
    (folder / FILE).unlink(missing_ok=True)
    method.save(folder)
    write_metadata(folder, **metadata)


def write_metadata(folder: Path, **metadata: object) -> None:
    """Write how the model decides, to a folder that has its method: what an Inspector (downstream/inspection)
    is made of beside the method."""
    described = {name: _with_names(value) for name, value in metadata.items()}
    write_json(folder / FILE, {**described, "format": FORMAT})


def _with_names(value: object) -> object:
    """A named tuple, and those inside it, as a dict: JSON would leave the names out."""
    if hasattr(value, "_asdict"):
        return {name: _with_names(inner) for name, inner in value._asdict().items()}
    return value
