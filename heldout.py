"""heldout: SimCLR pretraining on images of products, reused to inspect products it has never seen.

    import heldout

    inspector = heldout.Inspector.fit("FOLDER_OF_GOOD_IMAGES")  # or heldout.load("models/bolt")
    encoder = heldout.load_encoder("runs/simclr/encoder.safetensors")
    index = heldout.Index.build(encoder.embed("FOLDER"))
    method = heldout.PaDiM(encoder=encoder)                     # every method, by its class's name

and the command `heldout`, which runs every file of the project that can be typed: `heldout simclr --data FOLDER` is
`python pretrain/simclr.py --data FOLDER`. Nothing heavy is imported before it is used.
"""

import argparse
import ast
import os
import re
import runpy
import sys
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from downstream.methods.catalogue import METHODS
from pretrain.command import nearest

if TYPE_CHECKING:  # what `__getattr__` gives, checkers read in heldout-stubs
    from baselines.contract.method import Method
    from downstream.inspection.inspector import Inspector

__version__ = "0.1.0"

COMMANDS = {
    "simclr": "pretrain.simclr",
    "survey": "pretrain.survey",
    "convert": "pretrain.convert",
    "manifest": "pretrain.manifest",
    "demo": "pretrain.demo",
    "doctor": "pretrain.doctor",
    "search": "embeddings.search",
    "extract": "embeddings.extract",
    "build": "embeddings.build",
    "duplicates": "embeddings.duplicates",
    "outliers": "embeddings.outliers",
    "knn": "embeddings.knn",
    "image-map": "embeddings.image_map",
    "autoencoder": "baselines.autoencoder",
    "vgg-cam": "baselines.vgg_cam",
    "sadnet": "baselines.sadnet",
    "detect": "downstream.detect",
    "area": "downstream.area",
    "evaluate": "downstream.evaluate",
    "compare": "downstream.compare",
    "restore": "downstream.restore",
    "serve": "downstream.serve",
    "line": "downstream.line",
    "audit": "downstream.audit",
    "export": "downstream.export",
    "push": "downstream.push",
    "pull": "downstream.pull",
}

_NAMES = {
    "Encoder": "pretrain.encoder",
    "load_encoder": "pretrain.encoder",
    "make_encoder": "pretrain.encoder",
    "Index": "embeddings.index",
    "Inspector": "downstream.inspection.inspector",
    "FitSettings": "downstream.inspection.config",
    "UserError": "pretrain.command",
    **{method.path.rpartition(".")[2]: method.path.rpartition(".")[0] for method in METHODS.values()},
}
__all__ = ["load", *_NAMES]


def __getattr__(name: str) -> object:
    """A public name is imported when it is first asked for (PEP 562): torch alone takes a second."""
    if name not in _NAMES:
        raise AttributeError(f"module 'heldout' has no attribute {name!r}")
    return getattr(import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_NAMES])


def load(path: Path | str, device: str = "auto") -> "Inspector | Method":
    """What was saved to a folder or exported to a file: an Inspector where thresholds were saved with the method (as
    `heldout detect fit` does), else the method. `device` is cpu, cuda, or auto for a GPU where there is one. Raises
    UserError where there is neither."""
    inspector = import_module("downstream.inspection.inspector")
    path = Path(path)
    if path.is_file() or (path / inspector.FILE).is_file():
        return inspector.Inspector.load(path, device)
    return import_module("downstream.methods.loading").load_any(path, device)


def main() -> int:
    """The command `heldout`: its first word says which file of the project runs."""
    typed = _completed_words() if "_ARGCOMPLETE" in os.environ else sys.argv[1:]
    name = typed[0] if typed else "--help"
    if name in ("-h", "--help"):
        with suppress(BrokenPipeError):  # `heldout --help | head`
            print(_help(), flush=True)
    elif name == "--version":
        print(f"heldout {__version__}")
    elif name in COMMANDS:
        sys.argv = [f"heldout {name}", *typed[1:]]
        runpy.run_module(COMMANDS[name], run_name="__main__")  # as if its file had been typed: it ends the process
    else:
        print(f"error: there is no command {name}; {nearest(name, COMMANDS)}", file=sys.stderr)
        return 2
    return 0


def _help() -> str:
    lines = ["usage: heldout COMMAND [options]"]
    package = None
    for name, module in COMMANDS.items():
        if module.partition(".")[0] != package:
            package = module.partition(".")[0]
            lines += ["", f"{package}: {_headline(package)}"]
        lines.append(f"  {name:13}{_headline(module)}")
    return "\n".join([*lines, "", "Each of them explains itself with --help."])


def _headline(module: str) -> str:
    """The first sentence of a module's docstring, read without importing the module."""
    spec = find_spec(module)
    assert spec and spec.origin
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    text = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=\.)\s", text)[0]


def _completed_words() -> list[str]:
    """The command, and its second word, of the line that a shell asks to complete. A command's name is completed here;
    what follows it by the command's own parser (jsonargparse), which is told to skip the words before."""
    import argcomplete  # optional: only where a shell was told to use it

    words = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])].split(" ")
    if len(words) < 3:
        parser = argparse.ArgumentParser("heldout")
        parser.add_argument("command", choices=COMMANDS)
        argcomplete.autocomplete(parser)  # ends the process
    typed = words[1 : 3 if len(words) > 3 and not words[2].startswith("-") else 2]
    os.environ["_ARGCOMPLETE"] = str(1 + len(typed))
    return typed


if __name__ == "__main__":
    sys.exit(main())
