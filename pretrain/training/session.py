"""One session for every training of the project: where it stands, what it prints and logs, when it saves and stops.

    with run.held(config), Session("pretraining", module, optimizer, run) as session:
        session.steps = session.steps or 1000      # a resumed session knows its length
        for step in session:                       # from where the last checkpoint stands
            session.log(loss=train_step(step))

Without a `run` there is only a progress bar: so a method trains inside a study.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import asdict
from types import TracebackType
from typing import Protocol, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pretrain.command import Stopped, UserError
from pretrain.progress import Progress
from pretrain.training.device import wait_for
from pretrain.training.run import Run

# Reading a loss makes a GPU wait for it.
STEPS_BETWEEN_READINGS = {"cpu": 1, "cuda": 20}
TIMED_STEPS = 4
# Of the minutes, that timing may take: on a slow machine four steps and the first are a quarter of one minute.
TIMING_SHARE = 0.1
# About as often a training is evaluated, and never oftener than every so many steps: of a short one, evaluations that
# take as long as a step would be a third.
EVALUATIONS, STEPS_BETWEEN_EVALUATIONS = 10, 5
# What torch says of a step that no float32 holds, as with a learning rate of 1e100.
TOO_LARGE = "cannot be converted to type float without overflow"


class Processes(Protocol):
    """What a session asks of lightning's Fabric, whose import takes seconds that a training alone need not wait."""

    world_size: int
    is_global_zero: bool

    def all_reduce(self, data: Tensor, reduce_op: str) -> Tensor: ...

    def broadcast(self, obj: int) -> int: ...


class State(Protocol):
    """What a training keeps beside weights, such as its best epoch: a dataclass of plain values."""

    __dataclass_fields__: dict


class Session:
    """A context and an iterator over the steps that are left. Of several processes only the first prints and writes.

    `state` goes into every checkpoint and comes back from it; `describe` makes of a step's figures what the progress
    bar shows. Ctrl-C, or SIGTERM, ends the step, saves, and raises Stopped; a second Ctrl-C stops at once.
    """

    def __init__(
        self,
        label: str,
        module: nn.Module,
        optimizer: Optimizer,
        run: Run | None = None,
        fabric: Processes | None = None,
        state: State | None = None,
        checkpoint_minutes: float = 1.0,
        describe: Callable[[dict[str, float]], str] = lambda figures: f"loss {figures['loss']:.4g}",
    ) -> None:
        self.label, self.module, self.optimizer, self.run = label, module, optimizer, run
        self.fabric, self.state, self.describe = fabric, state, describe
        self.leads = fabric is None or fabric.is_global_zero
        self.checkpoint_s = 60 * checkpoint_minutes
        self.is_over = False  # set it to end the training early
        stored = run.restore(module, optimizer) if run else None
        self.step, self.steps, self._seconds_before = 0, 0, 0.0
        if stored:
            self.step, self.steps, self._seconds_before = stored["step"], stored["steps"], stored["seconds"]
            for name, value in stored["state"].items():
                setattr(state, name, value)
        self.first_step = self.step

    def __enter__(self) -> Self:
        self._open = ExitStack()
        # Without a run there is nothing to save: Ctrl-C ends the study that this training is a part of.
        self._is_stop_asked = self._open.enter_context(stop_asked(self.fabric)) if self.run else lambda: False
        self._progress: Progress | None = None
        self._start_s = self._saved_s = time.monotonic()
        self._paused_s = 0.0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)
        if isinstance(error, RuntimeError) and TOO_LARGE in str(error):
            raise self.not_a_number() from None

    def __iter__(self) -> Iterator[int]:
        """The steps that are left. After each one a checkpoint is written if it is time; raises Stopped if asked to."""
        self._start_s = self._saved_s = time.monotonic()
        if self.leads:
            if self.run:  # a killed process took steps after its last checkpoint; they are taken again
                self.run.forget_figures_from(self.step)
            self._progress = self._open.enter_context(Progress(self.label, self.steps, "steps", done=self.step))
            if self.step:
                self.print(f"resuming after step {self.step} of {self.steps}")
        while self.step < self.steps and not self.is_over:
            yield self.step
            self.step += 1
            is_stopped = self._is_stop_asked()
            if is_stopped or time.monotonic() - self._saved_s > self.checkpoint_s:
                self.save()
            if is_stopped and self.step < self.steps and not self.is_over:
                raise Stopped(f"stopped after {self.step} of {self.steps} steps; the same command resumes there.")

    @property
    def seconds(self) -> float:
        """Of training, over all resumes."""
        return self._seconds_before + time.monotonic() - self._start_s

    @property
    def steps_per_second(self) -> float:
        """Since this process began, pauses left out; while a step is taken it counts as done."""
        return (self.step + 1 - self.first_step) / (time.monotonic() - self._start_s - self._paused_s)

    def log(self, **figures: Tensor | float) -> None:
        """Show and log the figures of the step that is being taken. Raises UserError if one is no longer a number."""
        first = next(iter(figures.values()))
        every = STEPS_BETWEEN_READINGS.get(first.device.type, 1) if isinstance(first, Tensor) else 1
        if self.step % every and self.step + 1 < self.steps:
            if self._progress:
                self._progress.advance()
            return
        # Detached: torch warns of a loss that is made a number with its gradient.
        values = {
            name: float(value.detach() if isinstance(value, Tensor) else value) for name, value in figures.items()
        }
        self.record(**values)
        if self._progress:
            self._progress.advance(note=self.describe(values))

    def record(self, **figures: float | None) -> None:
        """Add a line to the run's metrics. Raises UserError if a figure is no longer a number."""
        if not all(math.isfinite(value) for value in figures.values() if value is not None):
            raise self.not_a_number()
        if self.run and self.leads:
            self.run.log(self.step, **figures)

    def print(self, line: str) -> None:
        if self._progress:
            self._progress.print(line)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Time in here is not the training's: evaluation does not lower the rate that is shown."""
        before_s = time.monotonic()
        yield
        self._paused_s += time.monotonic() - before_s

    def save(self) -> None:
        """Write a checkpoint, unless the weights are no longer numbers: the last good one stays."""
        self._saved_s = time.monotonic()
        if self.run and self.leads and all(weights.isfinite().all() for weights in self.module.state_dict().values()):
            state = asdict(self.state) if self.state else {}
            metadata = {"step": self.step, "steps": self.steps, "seconds": self.seconds, "state": state}
            self.run.save(self.module, self.optimizer, metadata)

    def steps_within(
        self, minutes: float, train_step: Callable[[int, int], object], evaluate: Callable[[], object] | None = None
    ) -> int:
        """How many steps fit into some minutes, beside `evaluate` as often as `evaluate_every` says and the timing done
        here: takes a few steps, times them, and undoes them. The same on all ranks."""
        began_s = time.monotonic()
        before = deepcopy((self.module.state_dict(), self.optimizer.state_dict()))
        device = next(self.module.parameters()).device

        def seconds_of(work: Callable[[], object]) -> float:
            start_s = time.monotonic()
            work()
            wait_for(device)
            return time.monotonic() - start_s

        first_s = seconds_of(lambda: train_step(0, 1000))  # it allocates and warms caches
        count = self._agreed(min(TIMED_STEPS, max(1, int(60 * minutes * TIMING_SHARE / first_s))))
        numbers = [1 + int((turn + 0.5) * TIMED_STEPS / count) for turn in range(count)]  # spread over 1 to TIMED_STEPS
        step_s = seconds_of(lambda: [train_step(number, 1000) for number in numbers]) / count
        self.module.load_state_dict(before[0])
        self.optimizer.load_state_dict(before[1])
        evaluation_s = seconds_of(evaluate) if evaluate else 0.0
        left_s = 60 * minutes - (time.monotonic() - began_s)
        return self._agreed(steps_that_fit(left_s, step_s, evaluation_s))

    def _agreed(self, number: int) -> int:
        """The first process's number, on all of them."""
        return self.fabric.broadcast(number) if self.fabric else number

    def not_a_number(self) -> UserError:
        is_kept = self.run and self.run.checkpoint_file.exists()
        kept = f" The last good checkpoint is kept in {self.run.folder}; choose another --out." if is_kept else ""
        return UserError(f"the loss is not a number any more at step {self.step}: lower the learning rate.{kept}")


def evaluate_every(steps: int) -> int:
    """How many steps lie between two evaluations of a training; the first is before it, the last after it."""
    return max(STEPS_BETWEEN_EVALUATIONS, math.ceil(steps / EVALUATIONS))


def steps_that_fit(seconds: float, step_s: float, evaluation_s: float) -> int:
    """The most steps, at least one, that fit with their evaluations: two of the shortest, EVALUATIONS + 1 at most."""
    most = max(1, int((seconds - 2 * evaluation_s) / step_s))
    least = max(1, int((seconds - (EVALUATIONS + 1) * evaluation_s) / step_s))
    for steps in range(most, least, -1):
        evaluations = 1 + math.ceil(steps / evaluate_every(steps))
        if steps * step_s + evaluations * evaluation_s <= seconds:
            return steps
    return least


@contextmanager
def stop_asked(fabric: Processes | None) -> Iterator[Callable[[], bool]]:
    """Gives a function that says, alike on all ranks, whether somebody pressed Ctrl-C or asked the process to end.

    A second Ctrl-C stops at once.
    """
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if fabric is None or fabric.world_size == 1:
            yield lambda: bool(asked)
        else:
            yield lambda: bool(fabric.all_reduce(torch.tensor(float(len(asked))), reduce_op="sum") > 0)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
