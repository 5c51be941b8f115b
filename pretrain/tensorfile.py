"""One file of tensors and metadata: safetensors, whose reader runs nothing that the file brings."""

import json
from pathlib import Path

from torch import Tensor

from pretrain.command import UserError
from pretrain.files import write_whole

HEADER_KEY = "heldout"


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict) -> None:
    """Write `tensors`, and `metadata` as JSON in the header. A reader finds the old file or the new one, never half."""
    from safetensors.torch import save

    data = save({name: tensor.contiguous() for name, tensor in tensors.items()}, {HEADER_KEY: json.dumps(metadata)})
    write_whole(path, data)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """The tensors and the metadata of a file written by `write_tensors`. Raises UserError for any other file."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"there is no file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            metadata = json.loads(header.get(HEADER_KEY, "null"))
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, ValueError, OSError) as error:
        raise UserError(f"{path} is damaged or no safetensors file ({error}).") from None
    if not isinstance(metadata, dict):
        raise UserError(f"{path} was not written by heldout: its header says nothing of what it holds.")
    return tensors, metadata
