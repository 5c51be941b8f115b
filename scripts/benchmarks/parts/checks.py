"""The tests that need a GPU."""

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from pretrain.workers import usable_cores
from scripts.benchmarks.parts.setting import Figures, Setting

REPOSITORY = Path(__file__).resolve().parents[3]
MARK = "@pytest.mark.gpu"


def tests(setting: Setting) -> Iterator[Figures]:
    """How many there are at least, how many passed, and which did not. In a trial those of a file are collected."""
    texts = {path: path.read_text() for path in sorted((REPOSITORY / "tests").rglob("test_*.py"))}
    files = [path for path, text in texts.items() if MARK in text]
    yield {"tests": sum(text.count(f"\n{MARK}\n") for text in texts.values()), "files": len(files)}
    # Only their files: to collect all tests takes half a minute, and packages that the machine need not have. Each has
    # a process of its own, so that one that hangs, or is stopped, takes no other's figures along.
    groups = setting.size([[path] for path in files], [files[-1:]])
    threads = str(max(1, usable_cores() // len(groups)))
    counts, broken = Counter(passed=0, failed=0, skipped=0), []
    with ThreadPoolExecutor(len(groups)) as pool:
        for task in as_completed([pool.submit(run, group, setting.is_tiny, threads) for group in groups]):
            done = task.result()
            print(done.stdout, done.stderr, sep="\n", flush=True)
            counts.update(counted(done.stdout))
            broken += broken_ones(done)
            yield {**counts, "broken": broken}


def run(files: Sequence[Path], only_collect: bool, threads: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *map(str, files)]
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    command += ["--collect-only"] if only_collect else []
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


def counted(output: str) -> dict[str, int]:
    """What pytest says at its end."""
    counts = {name: int(number) for number, name in re.findall(r"(\d+) (passed|failed|error|skipped)", output)}
    found = re.search(r"(\d+)/\d+ tests collected", output)
    return counts | ({"collected": int(found[1])} if found else {})


def broken_ones(done: subprocess.CompletedProcess) -> list[str]:
    """Tests that failed, and files that could not be imported; or that pytest itself did not end well."""
    named = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return named or ([f"pytest ended with {done.returncode}"] if done.returncode else [])
