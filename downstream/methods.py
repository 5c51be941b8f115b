"""The methods of the project by the names that a user types. To add one: its file, and one line here."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain.command import Mistake, nearest

if TYPE_CHECKING:
    from baselines.method import Method

# Where each class is: a method is imported when it is asked for, not before.
METHODS = {
    "padim": "downstream.padim.PaDiM",
    "bank": "downstream.bank.PatchBank",
    "residual": "downstream.residual.Residual",
    "ae": "baselines.reconstruction.AutoEncoder",
    "vae": "baselines.reconstruction.VariationalAutoEncoder",
    "cae": "baselines.reconstruction.ConvolutionalAutoEncoder",
    "vgg-cam": "baselines.vgg_method.VggCam",
    "mean": "baselines.trivial.MeanPicture",
}


def method_class(name: str) -> "type[Method]":
    """The class of a method by its name. Raises Mistake for a name that is none."""
    if name not in METHODS:
        raise Mistake(f"there is no method {name!r}; {nearest(name, METHODS)}")
    module, _, kind = METHODS[name].rpartition(".")
    return getattr(import_module(module), kind)


def load_any(folder: Path) -> "Method":
    """The method that was saved to `folder`, whichever it is, or exported to a file. Raises Mistake where there is
    none."""
    if folder.is_file():
        from downstream.exported import Exported

        return Exported(folder)
    from baselines.method import METHOD_FILE
    from pretrain.tensorfile import read_tensors

    _, facts = read_tensors(folder / METHOD_FILE)
    for place in METHODS.values():
        module, _, kind = place.rpartition(".")
        if kind == facts.get("method"):
            return getattr(import_module(module), kind).load(folder)
    raise Mistake(f"{folder} holds a method {facts.get('method')!r} that this heldout does not know: update heldout.")
