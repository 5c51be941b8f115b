"""How long a study will take, by what the same work took before on this machine.

A cell costs its fit, unless the method stands fitted by the cell before, and then its references, thresholds and test
images. Both are kept as seconds an image, in the cache folder. What was never measured here is not guessed: it is
named, and one fit of it goes first, so that soon all is known.
"""

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from downstream.methods.references import shots_of
from downstream.study.compute import CellTask, fit_settings
from downstream.study.folds import CALIBRATION_SHARE, FIT_SHARE
from pretrain.data.cache import cache_root
from pretrain.files import write_json
from pretrain.progress import Progress, duration
from pretrain.reading import read_json

FORMAT = 1
KEPT = 5  # measurements of the same work; more are of code and a machine of long ago
# Assumed beyond what was measured: other work on the machine, and images that are not those of last time.
SPREAD = 1.3
SECONDS_BETWEEN_SAVES = 20.0  # each waits for the disk
COSTLIEST = 3  # rows that are named


class Work(NamedTuple):
    """A part of a cell: what it is, so that equal work has equal keys, and on how many images."""

    key: str
    images: int


class Estimate(NamedTuple):
    """Seconds, and between which they may well lie; `unmeasured` are the methods that they leave out."""

    seconds: float
    low: float
    high: float
    unmeasured: tuple[str, ...] = ()

    @property
    def is_unknown(self) -> bool:
        return bool(self.unmeasured) and not self.seconds

    def __str__(self) -> str:
        if self.is_unknown:
            return "not known yet"
        span = f"{duration(self.low)} to {duration(self.high)}"
        return f"at least {duration(self.low)}" if self.unmeasured else f"about {duration(self.seconds)} ({span})"


class Rates:
    """Seconds an image of every kind of work that was measured here, the last ones of each, kept in a file."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file or cache_root() / "study-rates.json"
        try:
            self._measured = read_json(self.file, {"rates": dict[str, list[float]]})["rates"]
        except (OSError, ValueError):  # none yet, or damaged: they are measured anew
            self._measured = {}

    def __contains__(self, key: str) -> bool:
        return key in self._measured

    def add(self, work: Work, seconds: float) -> None:
        """Take in a measurement."""
        self._measured[work.key] = [*self._measured.get(work.key, []), seconds / max(1, work.images)][-KEPT:]

    def seconds(self, work: Work) -> tuple[float, float, float]:
        """How long the work will take, and between which values; the key must have been measured."""
        rates = [rate * max(1, work.images) for rate in self._measured[work.key]]
        return median(rates), min(rates) / SPREAD, max(rates) * SPREAD

    def save(self) -> None:
        """Keep them for the next study. That there is no room for them must not stop this one."""
        try:
            write_json(self.file, {"format": FORMAT, "rates": self._measured})
        except OSError:
            return


def machine_of(device: torch.device, cores: int | None = None) -> str:
    """What the time of an image depends on of this machine; `cores` of a worker that has no more."""
    return f"{device.type} | {(cores or torch.get_num_threads()) if device.type == 'cpu' else ''}"


class StudyClock:
    """What is still to be computed, and how long that will take where so many cells are computed `at_once`. Learns from
    every cell that is finished."""

    def __init__(self, tasks: Sequence[CellTask], rates: Rates, machine: str, at_once: int = 1) -> None:
        self.rates, self.at_once = rates, at_once
        self.tasks = measured_first(tasks, rates, machine)
        # In the order in which they are computed: the first of a fit pays for it.
        items = zip(self.tasks, work_of(self.tasks, machine), strict=True)
        self._left = {task.name: (task, work) for task, work in items}
        self._running: CellTask | None = None
        self._start_s, self._saved_s = 0.0, time.monotonic()

    def start(self, task: CellTask) -> None:
        """The cell is being computed from now on, in this process."""
        self._running, self._start_s = task, time.monotonic()

    def finish(self, task: CellTask, seconds: float, metadata: Mapping | None) -> bool:
        """The cell is done and kept; its metadata say what of the time was the fit, none where it failed. Returns
        whether the last of what was unmeasured is measured now."""
        self._running = None
        was_open = bool(self.estimate().unmeasured)
        _, work = self._left.pop(task.name)
        if metadata is None:
            return False
        fit_s = metadata["fit_took_s"] if metadata["is_new_fit"] else 0.0
        self.rates.add(work[-1], max(0.0, seconds - fit_s))
        if len(work) > 1 and metadata["is_new_fit"]:
            self.rates.add(work[0], fit_s)
        if not self._left or time.monotonic() - self._saved_s > SECONDS_BETWEEN_SAVES:
            self._saved_s = time.monotonic()
            self.rates.save()
        return was_open and not self.estimate().unmeasured

    def estimate(self) -> Estimate:
        """Of all that is left, the running cell included."""
        total, task = self._sum(list(self._left.values())), self._running
        item = task and self._left.get(task.name)
        if item is None:
            at_once = max(1, min(self.at_once, len(self._left)))
            return Estimate(*(value / at_once for value in total[:3]), total.unmeasured)
        running, elapsed_s = self._sum([item]), time.monotonic() - self._start_s
        # An unmeasured fit that tells how far it is says at least how long it still takes.
        inner = Progress.innermost()
        more = inner.seconds_left if running.unmeasured and inner and inner.rate else 0.0
        left = (value - min(elapsed_s, part) + more for value, part in zip(total[:3], running[:3], strict=True))
        return Estimate(*left, total.unmeasured)

    def time_left(self) -> str:
        """For the progress line; asked by a thread of its own too."""
        estimate = self.estimate()
        if estimate.is_unknown:
            return "time left not known yet"
        unmeasured = f", and what {', '.join(estimate.unmeasured)} take" if estimate.unmeasured else ""
        return f"{estimate} left{unmeasured}"

    def costliest(self) -> str:
        """The rows that take longest of what is left: 'padim-random-all-normals 3 min, ...'."""
        by_row: dict[str, float] = defaultdict(float)
        for task, work in self._left.values():
            by_row[task.cell.row.name] += self._sum([(task, work)]).seconds
        rows = sorted(by_row, key=by_row.get, reverse=True)[:COSTLIEST]
        return ", ".join(f"{row} {duration(by_row[row])}" for row in rows if by_row[row] > 0)

    def _sum(self, items: Iterable[tuple[CellTask, Sequence[Work]]]) -> Estimate:
        total, unmeasured = [0.0, 0.0, 0.0], {}
        for task, work in items:
            for part in work:
                if part.key in self.rates:
                    total = [a + b for a, b in zip(total, self.rates.seconds(part), strict=True)]
                else:
                    unmeasured[task.method.name] = None
        return Estimate(*total, tuple(unmeasured))


def plan_lines(clock: StudyClock, finished: int) -> list[str]:
    """What a study says before it begins: how many cells, how long they take, and which rows cost most."""
    count, estimate = len(clock.tasks), clock.estimate()
    if not count:
        return [f"study: all {finished} cells are finished"]
    rows = len({task.cell.row for task in clock.tasks})
    lines = [f"study: {count} cells to compute, of {rows} rows" + (f"; {finished} are finished" if finished else "")]
    lines.append(f"  time: {estimate}" + ("" if estimate.is_unknown else ", by what this took on this machine before"))
    if costliest := clock.costliest():
        lines.append(f"  most of it: {costliest}")
    if estimate.unmeasured:
        lines.append(f"  never measured on this machine, so they go first: {', '.join(estimate.unmeasured)}")
    return lines


def work_of(tasks: Sequence[CellTask], machine: str) -> list[list[Work]]:
    """The work of each cell, computed in this order: its fit first, where it is not the fit of the cell before."""
    work, fitted = [], None
    for task in tasks:
        settings = fit_settings(task.cell)
        parts = [] if settings == fitted else [_fit_work(task, machine)]
        work.append([*parts, _rest_work(task, machine)])
        fitted = settings
    return work


def measured_first(tasks: Sequence[CellTask], rates: Rates, machine: str) -> list[CellTask]:
    """The cells so that those which share a fit follow each other, and among those of a seed the ones that ask the
    same encoder, which remembers; in front the fits in which something is done that was never measured here."""
    groups: dict[str, list[CellTask]] = defaultdict(list)
    encoders = list(dict.fromkeys(task.cell.encoder_id for task in tasks))
    for task in sorted(tasks, key=lambda task: (task.cell.seed, encoders.index(task.cell.encoder_id))):
        groups[str(fit_settings(task.cell))].append(task)
    first, rest, known = [], [], set()
    for group in groups.values():
        keys = {part.key for parts in work_of(group, machine) for part in parts if part.key not in rates}
        (rest if keys <= known else first).extend(group)
        known |= keys
    return [*first, *rest]


def _fit_work(task: CellTask, machine: str) -> Work:
    return Work(_key("fit", task, machine), round(FIT_SHARE * len(task.images.labeled)))


def _rest_work(task: CellTask, machine: str) -> Work:
    images, shots = task.images, task.cell.row.shots
    references = shots_of(shots, len(images.normals)) if shots else 0
    count = len(images.tests) + references + round(CALIBRATION_SHARE * len(images.labeled))
    return Work(_key(f"shots {shots}", task, machine), count)


def _key(part: str, task: CellTask, machine: str) -> str:
    """Everything that the time of an image depends on."""
    architecture = task.encoder.architecture if task.encoder else ""
    arguments = json.dumps(task.cell.arguments, sort_keys=True)
    return " | ".join(map(str, (part, task.method.name, arguments, architecture, task.cell.size_px, machine)))
