"""Many requests become one call: what came in while the last call ran is taken together.

There is no waiting for a batch to fill: alone, an image is judged at once; under load, batches grow by themselves.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

# Retry-After is made of the speed at which so many answers were given.
MAX_REMEMBERED_ANSWERS = 64
MAX_RETRY_S = 60


class Busy(Exception):
    """As much is waiting as may wait; come back after `retry_s` seconds."""

    def __init__(self, retry_s: int) -> None:
        super().__init__(f"too much is waiting: come back in {retry_s} s")
        self.retry_s = retry_s


class Admission:
    """Counts what was accepted and is not answered yet, `max_in_progress` at once. Whoever comes in is answered."""

    def __init__(self, max_in_progress: int) -> None:
        self.max_in_progress, self.in_progress = max_in_progress, 0
        self._left_s: deque[float] = deque(maxlen=MAX_REMEMBERED_ANSWERS)

    @contextmanager
    def enter(self, count: int = 1) -> Iterator[None]:
        """Hold `count` places. Raises Busy, at once, if there are not so many."""
        if self.in_progress + count > self.max_in_progress:
            raise Busy(self.retry_s())
        self.in_progress += count
        try:
            yield
        finally:
            self.in_progress -= count
            self._left_s.extend([time.monotonic()] * count)

    def retry_s(self) -> int:
        """Whole seconds, at least 1, after which what is inside should be answered at the speed of late."""
        if len(self._left_s) < 2:
            return 1
        seconds = time.monotonic() - self._left_s[0]
        return min(MAX_RETRY_S, max(1, math.ceil(self.in_progress * seconds / len(self._left_s))))


class Batcher(Generic[Item, Outcome]):
    """Hands items that wait, up to `max_at_once`, to `process` in one thread, and each caller its own outcome.

    `process` gives an outcome for each item, in their order; one that is an exception is raised to its caller alone,
    and one that it raises, to all of them. A caller that was cancelled meanwhile is left out.
    """

    def __init__(self, process: Callable[[Sequence[Item]], Sequence[Outcome]], max_at_once: int, name: str) -> None:
        self._process, self._max_at_once = process, max_at_once
        self._waiting: deque[tuple[Item, asyncio.Future]] = deque()
        self._has_items = asyncio.Event()
        self._is_stopping = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._task: asyncio.Task | None = None

    def start(self) -> None:
        """Begin, in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Finish all that was handed in, then end."""
        self._is_stopping = True
        self._has_items.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    def __len__(self) -> int:
        return len(self._waiting)

    async def __call__(self, item: Item) -> Outcome:
        """The outcome of one item."""
        if self._is_stopping:
            raise Busy(1)
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._has_items.set()
        return await future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting or not self._is_stopping:
            if not self._waiting:
                self._has_items.clear()
                await self._has_items.wait()
                continue
            batch = self._next()
            if not batch:
                continue
            try:
                outcomes = await loop.run_in_executor(self._thread, self._process, [item for item, _ in batch])
            except Exception as error:  # a fault of one batch must not end the service
                outcomes = [error] * len(batch)
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if future.done():
                    continue
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)

    def _next(self) -> list[tuple[Item, asyncio.Future]]:
        batch: list[tuple[Item, asyncio.Future]] = []
        while self._waiting and len(batch) < self._max_at_once:
            item, future = self._waiting.popleft()
            if not future.done():
                batch.append((item, future))
        return batch
