"""The methods of the project by the names that a user types. To add one: its file, and one line here."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain.command import UserError, nearest

if TYPE_CHECKING:
    from baselines.contract.method import Method

# Where each class is: a method is imported when it is asked for, not before.
METHODS = {
    "padim": "downstream.methods.padim.PaDiM",
    "bank": "downstream.methods.patchcore.PatchBank",
    "residual": "downstream.methods.residual.Residual",
    "ae": "baselines.autoencoders.method.AutoEncoder",
    "vae": "baselines.autoencoders.method.VariationalAutoEncoder",
    "cae": "baselines.autoencoders.method.ConvolutionalAutoEncoder",
    "vgg-cam": "baselines.cam.method.VggCam",
    "mean": "baselines.trivial.MeanImage",
}


def method_class(name: str) -> "type[Method]":
    """The class of a method by its name. Raises UserError for a name that is none."""
    if name not in METHODS:
        raise UserError(f"there is no method {name!r}; {nearest(name, METHODS)}")
    module, _, kind = METHODS[name].rpartition(".")
    return getattr(import_module(module), kind)


def load_any(folder: Path) -> "Method":
    """The method that was saved to `folder`, whichever it is, or exported to a file. Raises UserError where there is
    none."""
    if folder.is_file():
        from downstream.methods.exported import Exported

        return Exported(folder)
    from baselines.contract.method import read_method

    _, metadata = read_method(folder)
    for place in METHODS.values():
        module, _, kind = place.rpartition(".")
        if kind == metadata["method"]:
            return getattr(import_module(module), kind).load(folder)
    raise UserError(f"{folder} holds a method {metadata['method']!r} that this heldout does not know: update heldout.")
