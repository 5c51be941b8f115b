"""One file of tensors and facts: safetensors, whose reader runs nothing that the file brings."""

import json
from pathlib import Path

from torch import Tensor

from pretrain.command import Mistake
from pretrain.files import write_whole

HEADER_KEY = "heldout"


def write_tensors(path: Path, tensors: dict[str, Tensor], facts: dict) -> None:
    """Write `tensors`, and `facts` as JSON in the header. A reader finds the old file or the new one, never half."""
    from safetensors.torch import save

    data = save({name: tensor.contiguous() for name, tensor in tensors.items()}, {HEADER_KEY: json.dumps(facts)})
    write_whole(path, data)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """The tensors and the facts of a file written by `write_tensors`. Raises Mistake for any other file."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise Mistake(f"there is no file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            facts = json.loads(header.get(HEADER_KEY, "null"))
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, ValueError, OSError) as error:
        raise Mistake(f"{path} is damaged or no safetensors file ({error}).") from None
    if not isinstance(facts, dict):
        raise Mistake(f"{path} was not written by heldout: its header says nothing of what it holds.")
    return tensors, facts
