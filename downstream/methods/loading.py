"""A method from where it was saved, whichever it is: a folder, or an exported file."""

from pathlib import Path
from typing import TYPE_CHECKING

from downstream.methods.catalogue import METHODS, imported
from downstream.methods.exported import Exported
from pretrain.command import UserError

if TYPE_CHECKING:  # importing the contract imports torch, 1.5 s that a run of an exported model does without
    from baselines.contract.method import Method


def load_any(path: Path, device: str = "cpu", runtime: str | None = None) -> "Method":
    """The method saved in a folder, whichever it is, or an exported file, on a device: cpu, cuda or auto. Raises
    UserError where there is none. `runtime` is an exported file's, onnxruntime or openvino."""
    if path.is_file():
        return Exported(path, device=device, runtime=runtime)
    if runtime is not None:
        raise UserError(f"{path} is a folder, which torch runs: --runtime is for files that export.py made.")
    where = imported("pretrain.training.device.choose_device")(device)
    _, metadata = imported("baselines.contract.method.read_method")(path)
    class_name = metadata["method"]
    for entry in METHODS.values():
        if entry.path.rpartition(".")[2] == class_name:
            return entry.method_class.load(path).to(where)
    raise UserError(f"{path} holds a method {class_name!r} that this heldout does not know: update heldout.")
