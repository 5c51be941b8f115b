"""The options of all commands, in a module that costs nothing."""

import subprocess
import sys

from conftest import REPOSITORY


def test_options_are_read_before_anything_heavy_is_imported():
    heavy = ("torch", "numpy", "faiss", "PIL", "sklearn", "rich", "jinja2")
    code = f"import sys, embeddings.config; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
