"""One model for many stations: what waits is judged together, the most urgent first, as many as are done in time."""

import heapq
import itertools
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import nullcontext, suppress
from pathlib import Path

from downstream.inspection.inspection import Inspection
from downstream.service.models import LoadedModel, Models
from downstream.service.monitoring import LOG
from pretrain.command import UserError
from pretrain.data.decode import Decoded
from pretrain.data.images import Problem

# A forward pass that takes so long is one that hangs: stations say so, and their parts are faults.
HANGS_S = 10.0
# Of the newest pass in the estimate of what an image takes.
NEWEST_SHARE = 0.2
# Of batches that wait, before those that are too late are forgotten.
MANY = 8


class NotJudged(Exception):
    """Why an image has no verdict, in words."""


class SharedModel:
    """The model called `name` of `models`, with a thread of its own. Raises UserError for a damaged one."""

    def __init__(self, models: Models, name: str, batch_size: int) -> None:
        self.name, self._models, self._batch_size = name, models, batch_size
        self.loaded = models.load(name)
        self._jobs: list[tuple[float, int, Decoded, Future]] = []  # a heap, by deadline
        self._numbers, self._arrived, self._is_stopping = itertools.count(), threading.Condition(), False
        self._image_s, self._started_s = 0.0, None
        warm_up(self.loaded)
        self._thread = threading.Thread(target=self._run, name=f"model {name}", daemon=True)
        self._thread.start()

    def judge(self, image: Decoded, deadline_s: float) -> "Future[Inspection]":
        """An image of the model's size, judged before `deadline_s` or not at all: then NotJudged."""
        future: Future = Future()
        with self._arrived:
            if len(self._jobs) > MANY * self._batch_size:  # it hangs, or is far behind: images are large
                self._jobs = [job for job in self._jobs if job[0] > time.monotonic() and not job[3].cancelled()]
                heapq.heapify(self._jobs)
            heapq.heappush(self._jobs, (deadline_s, next(self._numbers), image, future))
            self._arrived.notify()
        return future

    def what_is_wrong(self) -> str | None:
        """In words, where it hangs."""
        started_s = self._started_s
        if started_s is not None and time.monotonic() - started_s > HANGS_S:
            return f"the model {self.name} does not answer"
        return None

    def refresh(self) -> None:
        """Go on with the version that was written since, if there is one. From a thread that may wait for it."""
        try:
            loaded = self._models.load(self.name)
            if loaded is not self.loaded:
                warm_up(loaded)
                self.loaded = loaded
        except Exception as error:  # the one in memory goes on
            metadata = {"model": self.name, "reason": str(error)}
            LOG.warning("a model cannot be read again, and goes on as it was", extra={"metadata": metadata})

    def stop(self) -> None:
        with self._arrived:
            self._is_stopping = True
            self._arrived.notify()

    def _run(self) -> None:
        while True:
            with self._arrived:
                self._arrived.wait_for(lambda: self._jobs or self._is_stopping)
                if not self._jobs:
                    return
                batch = self._next_batch()
            if not batch:
                continue
            self._started_s = start_s = time.monotonic()
            outcomes = forward(self.loaded, [image for image, _ in batch])
            self._started_s, image_s = None, (time.monotonic() - start_s) / len(batch)
            self._image_s += (NEWEST_SHARE if self._image_s else 1.0) * (image_s - self._image_s)
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)

    def _next_batch(self) -> list[tuple[Decoded, Future]]:
        """The most urgent first, and so many that the first is not late for waiting for the last."""
        batch, now_s, first_s = [], time.monotonic(), None
        while self._jobs and len(batch) < self._batch_size:
            if first_s is not None and now_s + (len(batch) + 1) * self._image_s > first_s:
                break
            deadline_s, _, image, future = heapq.heappop(self._jobs)
            if not future.set_running_or_notify_cancel():
                continue
            if deadline_s < now_s:
                with suppress(InvalidStateError):
                    future.set_exception(NotJudged("the model was too busy"))
                continue
            first_s = deadline_s if first_s is None else first_s
            batch.append((image, future))
        return batch


def forward(loaded: LoadedModel, images: Sequence[Decoded]) -> list[Inspection | Exception]:
    """All in one batch; if that fails, each alone, so that one image's fault is not that of its neighbors."""
    try:
        with _without_gradients(loaded):
            outcomes = loaded.inspector.inspect_decoded([Path()] * len(images), images)
        return [NotJudged(o.reason.rstrip(".")) if isinstance(o, Problem) else o for o in outcomes]
    except Exception as error:
        if len(images) == 1:
            return [NotJudged(f"the model failed ({type(error).__name__}: {error})")]
        return [outcome for image in images for outcome in forward(loaded, [image])]


def _without_gradients(loaded: LoadedModel):
    if getattr(loaded.inspector.method, "takes_pixels", False):
        return nullcontext()
    import torch  # not above: a line of exported models does without, and without its memory

    return torch.inference_mode()


def warm_up(loaded: LoadedModel) -> None:
    """The first image takes longer: let it be no part's."""
    gray = loaded.gray()
    forward(loaded, [gray] * 2)
    forward(loaded, [gray])


def set_threads(count: int | None) -> None:
    """How many threads models compute with; before any is loaded."""
    if count is not None:
        os.environ["OMP_NUM_THREADS"] = str(count)  # onnxruntime's, as Exported reads it


def model_named(models: Models, name: str | None) -> str:
    """The one that is named, or the only one. Raises UserError."""
    names = models.names()
    if name is None and len(names) > 1:
        raise UserError(f"there are {len(names)} models: name one, of {', '.join(names)}.")
    return name or names[0]
