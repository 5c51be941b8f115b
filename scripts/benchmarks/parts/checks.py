"""The tests that need a GPU."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from scripts.benchmarks.parts.setting import Figures, Setting

REPOSITORY = Path(__file__).resolve().parents[3]
MARK = "@pytest.mark.gpu"
WORKERS = 4


def tests(setting: Setting) -> Iterator[Figures]:
    """How many passed, and which did not."""
    files = [path for path in sorted((REPOSITORY / "tests").rglob("test_*.py")) if MARK in path.read_text()]
    # Only their files: to collect all tests takes half a minute, and packages that the machine need not have.
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *map(str, files)]
    if setting.is_tiny:
        command = [sys.executable, "-m", "pytest", "--version"]
    elif importlib.util.find_spec("xdist"):
        command += ["-n", str(WORKERS)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr, sep="\n", flush=True)
    yield counted(done.stdout) | {"files": len(files)}


def counted(output: str) -> Figures:
    """What pytest says at its end."""
    counts = {name: int(number) for number, name in re.findall(r"(\d+) (passed|failed|error|skipped)", output)}
    broken = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    return {"passed": 0, "failed": 0, "skipped": 0, **counts, "broken": broken}
