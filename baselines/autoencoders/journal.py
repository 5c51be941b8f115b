"""What a training of an auto-encoder tells and keeps: a progress bar alone, or a run's folder too."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict

from torch import Tensor, nn
from torch.optim import Optimizer

from baselines.autoencoders.training import Standing, not_a_number
from pretrain.progress import Progress
from pretrain.training.run import Run

# Reading a loss makes a GPU wait for it.
STEPS_BETWEEN_READINGS = {"cpu": 1, "cuda": 20}


class Stopped(Exception):
    """Somebody asked the training to stop; a checkpoint is written. Its text says how far it came."""


class Journal:
    """Without a `run` nothing is written and nothing can be gone on with."""

    def __init__(
        self,
        what: str,
        run: Run | None = None,
        checkpoint_minutes: float = 1.0,
        is_stop_asked: Callable[[], bool] = lambda: False,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
    ) -> None:
        self.what, self.run, self.autocast = what, run, autocast
        self._checkpoint_s, self._is_stop_asked = 60 * checkpoint_minutes, is_stop_asked
        self._validation: float | None = None

    def restored(self, learner: nn.Module, optimizer: Optimizer) -> Standing | None:
        """Put a checkpoint back, where there is one."""
        metadata = self.run.restore(learner, optimizer) if self.run else None
        return metadata and Standing(**metadata["standing"])

    @contextmanager
    def following(self, standing: Standing, steps: int, batch: int) -> Iterator[None]:
        """Show how far the training is, while it lasts."""
        self._steps, self._saved_s = steps, time.monotonic()
        self._start_s, self._seconds_before = time.monotonic(), standing.seconds
        if self.run:
            self.run.forget_figures_from(standing.step)
        with Progress(self.what, steps, "steps", done=standing.step) as self._progress:
            if standing.step:
                self._progress.print(f"going on after step {standing.step} of {steps}")
            yield
            if standing.is_over and standing.step < steps:
                self._progress.print(f"ended early at step {standing.step}: nothing better since {standing.best_epoch}")
        standing.seconds = self._seconds(standing)

    def note(self, standing: Standing, loss: Tensor) -> None:
        """Show and log the loss of a step. Raises UserError if it is no longer a number."""
        if standing.step % STEPS_BETWEEN_READINGS.get(loss.device.type, 1) and standing.step + 1 < self._steps:
            self._progress.advance()
            return
        value = float(loss)
        if not math.isfinite(value):
            raise not_a_number(standing.step)
        if self.run:
            self.run.log(standing.step, loss=value)
        held_out = "" if self._validation is None else f", held out {self._validation:.4g}"
        self._progress.advance(note=f"loss {value:.4g}{held_out}")

    def log(self, step: int, **figures: float) -> None:
        self._validation = figures.get("validation", self._validation)
        if self.run:
            self.run.log(step, **figures)

    def save_if_due(self, standing: Standing, learner: nn.Module, optimizer: Optimizer) -> None:
        """Write a checkpoint now and then, and when the training is to stop: then raise Stopped."""
        is_stopped = self._is_stop_asked()
        if self.run and (is_stopped or time.monotonic() - self._saved_s > self._checkpoint_s):
            metadata = asdict(standing) | {"seconds": self._seconds(standing)}
            self.run.save(learner, optimizer, {"step": standing.step, "standing": metadata})
            self._saved_s = time.monotonic()
        if is_stopped:
            raise Stopped(f"stopped after {standing.step} of {self._steps} steps")

    def _seconds(self, standing: Standing) -> float:
        return self._seconds_before + time.monotonic() - self._start_s
