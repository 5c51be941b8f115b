"""What every benchmark shares: contestants that take turns, ratios, targets, and a last line of JSON.

seconds = in_rounds(5, {"ours": ours, "peer": peer})    # by contestant, what it returned in each round
figures = {"speedup": speedup(seconds["ours"], seconds["peer"])}
return finish("search", config, lines, figures, at_least={"speedup": 2.0}, packages=("torch",))
"""

import json
import os
import platform
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TypeVar

from pretrain.encoder import commit
from scripts.benchmarks.config import Benchmark

Measured = TypeVar("Measured")


def in_rounds(
    rounds: int, contestants: Mapping[str, Callable[[], Measured]], *, warm_up: bool = True
) -> dict[str, list[Measured]]:
    """By contestant, what it returned in each round. They take turns, so that a slow spell of the machine hits all of
    them; the turn that warms up, in which workers start and memory is allocated, does not count."""
    measured: dict[str, list[Measured]] = {name: [] for name in contestants}
    for number in range(0 if warm_up else 1, rounds + 1):
        print(f"round {number} of {rounds}" if number else "warming up", file=sys.stderr, flush=True)
        for name, turn in contestants.items():
            result = turn()
            if number:
                measured[name].append(result)
    return measured


def seconds_of(work: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s


def speedup(ours_s: Iterable[float], theirs_s: Iterable[float]) -> float:
    """How many times faster ours is: the median of each round's own ratio, in which the machine was alike for both."""
    return median(their_s / our_s for our_s, their_s in zip(ours_s, theirs_s, strict=True))


def finish(
    name: str,
    config: Benchmark,
    lines: Sequence[str],
    figures: Mapping[str, object],
    *,
    at_least: Mapping[str, float] | None = None,
    at_most: Mapping[str, float] | None = None,
    packages: Sequence[str] = ("torch",),
    missed: Sequence[str] = (),
    heading: str | None = None,
) -> int:
    """Print the table, each figure that has a target beside it, and one JSON object as the last line; record it where
    that is asked for. `missed` are targets that are no numbers. Returns the exit code: 1 where a target is missed and
    --check was given."""
    at_least, at_most = at_least or {}, at_most or {}
    # Not `figure < target`: a figure that is no number has missed its target too.
    missed = [*missed, *(each for each, target in at_least.items() if not figures[each] >= target)]
    missed += [each for each, target in at_most.items() if not figures[each] <= target]
    lines = [
        *lines,
        *(f"  {each:24}{figures[each]:10.3g}  (target: at least {target:g})" for each, target in at_least.items()),
        *(f"  {each:24}{figures[each]:10.3g}  (target: at most {target:g})" for each, target in at_most.items()),
        f"missed: {', '.join(missed)}" if missed else "all targets met",
    ]
    print("\n".join(lines))
    versions = {package: version(package) for package in packages}
    hardware = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    if config.record:
        command = shlex.join(["python", f"scripts/benchmarks/{name}.py", *sys.argv[1:]])
        described = [str(date.today()), f"{os.cpu_count()} cores", platform.machine(), f"commit {(commit() or '')[:7]}"]
        described += map(" ".join, versions.items())
        indented = "\n".join(f"    {line}".rstrip() for line in lines)
        with open(config.record, "a", encoding="utf-8") as file:
            file.write(f"\n## {heading or f'Speed: {name}'}\n\n{', '.join(described)}\n\n    {command}\n\n{indented}\n")
    result = {"benchmark": name, **asdict(config), **figures, "missed": missed, **hardware, **versions}
    print(json.dumps(result, default=str))
    return int(bool(missed) and config.check)


class Memory:
    """A context that watches the memory of this process, without files that are mapped: its peak, and by how much that
    is above what there was before."""

    def __enter__(self) -> "Memory":
        self.before_mib = self.peak_mib = self._now_mib()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(0.02):
            self.peak_mib = max(self.peak_mib, self._now_mib())

    @staticmethod
    def _now_mib() -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        (kib,) = (int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
        return kib / 1024
