"""The cells of a study as tasks, in this process or on Ray's workers: each cell is kept as soon as it is computed.

A worker is told the study's options and which cells; it plans the study by itself, once, and so finds their images and
encoders, or, where the name of a cell is not in its plan, that it has others than the machine that asks.
"""

import os
import socket
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import torch

from downstream.study.cell import write_cell
from downstream.study.compute import CellTask, LastFitted, compute_cell, fit_settings
from downstream.study.config import Evaluate
from downstream.study.encoders import opened_encoders
from downstream.study.plan import StudyPlan, plan_study
from downstream.study.record import is_finished
from downstream.study.running import said_to_run
from pretrain.command import Names, UserError
from pretrain.free_memory import free_memory_bytes
from pretrain.remembered_maps import MOST_BYTES, MapMemory, remembered_maps
from pretrain.tasks import Here, Lost, OnRay
from pretrain.training.device import choose_device

CellNames = tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """A study as its workers plan it: options with whole paths, the folder in which they were typed, and the encoder
    files that were chosen for each test category."""

    config: Evaluate
    folder: Path
    encoders: tuple[tuple[str, tuple[Path, ...]], ...]


class Outcome(NamedTuple):
    """What became of a cell, by the name of its file: `metadata` of a finished one, else why it failed, and a traceback
    where that is no mistake of the user's."""

    name: str
    seconds: float
    metadata: dict | None
    reason: str = ""
    trace: str = ""


class Cells:
    """Cells of a study by the names of their files, and what they share in a process: the method that was fitted last,
    and maps that are remembered. With `says_what_runs` a file says which one is being computed."""

    def __init__(
        self, tasks: Sequence[CellTask], out: Path, device: torch.device, most_bytes: int, says_what_runs: bool
    ) -> None:
        self._tasks, self._out, self._device = {task.name: task for task in tasks}, out, device
        self._fitted, self._memory = LastFitted(), MapMemory(min(MOST_BYTES, free_memory_bytes() // 4, most_bytes))
        self._says_what_runs = says_what_runs

    def compute(self, names: CellNames) -> list[Outcome]:
        """Compute what is not finished, one after another. A disk that is full, on which all others would be lost too,
        is raised."""
        with remembered_maps(memory=self._memory):
            return [outcome for name in names if (outcome := self._computed(name))]

    def _computed(self, name: str) -> Outcome | None:
        if (task := self._tasks.get(name)) is None:
            raise UserError(
                f"{socket.gethostname()} plans another study than this machine, without {name}: the same images, "
                "encoders and heldout have to be at the same paths on every machine."
            )
        if is_finished(file := self._out / name):  # by a worker that died after it
            return None
        start_s = time.monotonic()
        try:
            with said_to_run(self._out, name) if self._says_what_runs else nullcontext():
                result = compute_cell(task, self._fitted, self._device)
                write_cell(result, file)
            return Outcome(name, time.monotonic() - start_s, result.metadata)
        except OSError:
            raise
        except UserError as error:
            return Outcome(name, time.monotonic() - start_s, None, str(error))
        except Exception as error:  # one cell that cannot be computed must not cost a night's others
            reason = f"{type(error).__name__}: {error}"
            return Outcome(name, time.monotonic() - start_s, None, reason, traceback.format_exc())


def compute_there(job: Job, most_bytes: int, names: CellNames) -> list[Outcome]:
    """As `Cells.compute`, on a worker."""
    return _planned(job, most_bytes).compute(names)


@cache
def _planned(job: Job, most_bytes: int) -> Cells:
    """The study, planned once in a process."""
    with suppress(OSError):  # an encoder may have started from a file that it names by a part of its path
        os.chdir(job.folder)
    tasks = plan_study(job.config, opened_encoders(dict(job.encoders))).tasks
    return Cells(tasks, job.config.out, choose_device(job.config.device), most_bytes, True)


def job_of(config: Evaluate, plan: StudyPlan, device: torch.device) -> Job:
    """What tells workers to plan the same study."""
    encoders = tuple(
        (category, tuple(file.path.resolve() for file in files)) for category, files in plan.encoders.items()
    )
    options = {"data": Path(plan.metadata["folder"]).resolve(), "out": config.out.resolve(), "device": device.type}
    return Job(replace(config, encoder=Names(), **options), Path.cwd(), encoders)


def outcomes(
    plan: StudyPlan, ordered: Sequence[CellTask], config: Evaluate, device: torch.device, tasks: Here | OnRay,
    started: Callable[[CellTask], None],
) -> Iterator[tuple[CellTask, Outcome | None]]:  # fmt: skip
    """Compute cells, and give each as it is done; none where it was there by then. `started` is told what begins in
    this process."""
    by_name, most_bytes = {task.name: task for task in ordered}, int(config.memory_gb * 2**30 / 2)
    if isinstance(tasks, Here):
        compute = Cells(ordered, config.out, device, MOST_BYTES, False).compute
        asked = ((started(task), (task.name,))[1] for task in ordered)
    else:
        compute = partial(compute_there, job_of(config, plan, device), most_bytes)
        asked = together(ordered)
    for names, found in tasks.map(compute, asked):
        # Of a group that is lost, one cell brings its worker down: which, is seen one by one.
        is_group = isinstance(found, Lost) and len(names) > 1
        singly = tasks.map(compute, [(name,) for name in names]) if is_group else [(names, found)]
        for each, result in singly:
            done = [lost(each[0], result)] if isinstance(result, Lost) else result
            known = {outcome.name: outcome for outcome in done}
            yield from ((by_name[name], known.get(name)) for name in each)


def together(ordered: Sequence[CellTask]) -> Iterator[CellNames]:
    """The names of cells that one worker computes one after another: those that share what takes a training."""
    trained, groups = {}, defaultdict(list)
    for task in ordered:
        if task.method.name not in trained:
            trained[task.method.name] = task.method.needs_training
        shared = str(fit_settings(task.cell)) if trained[task.method.name] else task.name
        groups[shared].append(task.name)
    yield from map(tuple, groups.values())


def lost(name: str, result: Lost) -> Outcome:
    return Outcome(name, 0.0, None, result.reason)
