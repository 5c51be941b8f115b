"""Run the notebooks of docs/notebooks/ and keep in them what they print and show.

    python scripts/notebooks.py

Each runs as Jupyter would run it, cell by cell in one namespace and in an empty folder, but in this process and without
Jupyter: nbclient would start a kernel for each, with two dozen packages, and import torch there again. What a cell
prints and its last value are its outputs, images as JPEG. Commit what this writes.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from pretrain.command import start
    from scripts.config import Notebooks

    start("scripts.notebooks:main", Notebooks)

import ast
import base64
import json
import time
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from pretrain.data.images import check_names
from scripts.config import Notebooks

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "notebooks"


def main(config: Notebooks) -> None:
    """Run and write each."""
    paths = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
    check_names(config.only, paths, "notebook")
    for path in [paths[name] for name in config.only or paths]:
        start_s = time.perf_counter()
        with TemporaryDirectory() as folder:
            notebook = executed(json.loads(path.read_text(encoding="utf-8")), Path(folder))
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{path.name}: {path.stat().st_size // 1024} kB, in {time.perf_counter() - start_s:.0f} s")


def executed(notebook: dict, folder: Path) -> dict:
    """A notebook with the outputs of its cells, which run in a folder. What goes wrong in one is raised."""
    namespace: dict = {"__name__": "__main__"}
    cells, count = [], 0
    with chdir(folder):
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                count += 1
                outputs = outputs_of("".join(cell["source"]), namespace, count)
                cell = {**cell, "execution_count": count, "outputs": outputs}
            cells.append(cell)
    return {**notebook, "cells": cells}


def outputs_of(source: str, namespace: dict, count: int) -> list[dict]:
    """Run a cell: what it prints, and the value of its last line if that is an expression."""
    body, value = ast.parse(source).body, None
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    with redirect_stdout(StringIO()) as printed:
        exec(compile(ast.Module(body, []), f"cell {count}", "exec"), namespace)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), f"cell {count}", "eval"), namespace)
    outputs = []
    if text := printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
    if value is not None:
        shown: dict = {"text/plain": [repr(value)]}
        if hasattr(value, "_repr_jpeg_"):
            shown = {"image/jpeg": base64.b64encode(value._repr_jpeg_()).decode()}
        outputs.append({"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": shown})
    return outputs
