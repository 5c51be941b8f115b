"""How far a command is: a bar on a terminal, one plain line every few seconds when the output is piped."""

import sys
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import ClassVar

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

SECONDS_BETWEEN_LINES = 5.0
# Where a single count takes minutes, a line now and then says that the command lives.
SECONDS_BETWEEN_SIGNS = 20.0


class Bar(RichProgress):
    """rich's bar, and what is shown `below` it."""

    below: Callable[[], RenderableType] | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.below is not None:
            yield self.below()


class Progress:
    """A context in which `advance` counts up to `total`. Everything goes to stderr: stdout belongs to results.

    Inside another one it says nothing: the outer one tells how far the command is. Where counts are not alike,
    `time_left` says in words what the mean rate cannot, and is asked again while a count takes long. On a terminal
    `below` is shown beneath the bar.
    """

    _opened: ClassVar[list["Progress"]] = []  # in this process, the outermost first

    def __init__(
        self,
        what: str,
        total: int,
        unit: str = "images",
        done: int = 0,
        time_left: Callable[[], str] | None = None,
        below: Callable[[], RenderableType] | None = None,
    ) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, done
        self._done_at_start, self._bar, self._below = done, None, below
        self._time_left, self._note, self._ended = time_left, "", threading.Event()

    def __enter__(self) -> "Progress":
        self._start_s = self._last_line_s = time.monotonic()
        self._is_inner = bool(Progress._opened)
        Progress._opened.append(self)
        if sys.stderr.isatty() and not self._is_inner:
            left = ("{task.fields[rate]}", TimeRemainingColumn()) if self._time_left is None else (self._column(),)
            columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), self.unit, *left)
            self._bar = Bar(
                *(TextColumn(column) if isinstance(column, str) else column for column in columns),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self._bar.below = self._below
            self._bar.start()
            self._task = self._bar.add_task(self.what, total=self.total, completed=self.done, rate="", note="")
        elif self._time_left is not None and not self._is_inner:
            threading.Thread(target=self._give_signs, daemon=True).start()
        return self

    def running(self, note: str) -> None:
        """Say what is being done until the next `advance`."""
        self._note = note
        if self._bar is not None:
            self._bar.update(self._task, note=note)

    def advance(self, count: int = 1, note: str = "") -> None:
        """Say that `count` more are done; `note` is shown beside the time left."""
        self.done += count
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, rate=f"{self.rate:.1f}/s", note=note)
        elif not self._is_inner and time.monotonic() - self._last_line_s >= SECONDS_BETWEEN_LINES:
            self._print_left(note)

    def print(self, line: str) -> None:
        """Print a line without tearing the bar."""
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=sys.stderr, flush=True)

    @property
    def rate(self) -> float:
        """Done per second since the context was entered."""
        return (self.done - self._done_at_start) / max(time.monotonic() - self._start_s, 1e-9)

    @property
    def seconds_left(self) -> float:
        return (self.total - self.done) / self.rate if self.rate else float("inf")

    @classmethod
    def innermost(cls) -> "Progress | None":
        """The one within all others that are open: how far the running part of a count is."""
        return cls._opened[-1] if len(cls._opened) > 1 else None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        Progress._opened.remove(self)
        if self._bar is not None:
            self._bar.stop()
        elif kind is None and not self._is_inner:
            self._line(f"in {time.monotonic() - self._start_s:.1f} s")

    def _give_signs(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_SIGNS / 4):
            if time.monotonic() - self._last_line_s >= SECONDS_BETWEEN_SIGNS:
                self._print_left(self._note)

    def _print_left(self, note: str) -> None:
        self._last_line_s = time.monotonic()
        left = self._time_left() if self._time_left else f"{self.rate:.1f}/s, {self.seconds_left:.0f} s left"
        self._line(left + (f", {note}" if note else ""))

    def _column(self) -> ProgressColumn:
        words = self._time_left

        class TimeLeft(ProgressColumn):
            """What `time_left` says, asked once a second."""

            max_refresh = 1.0

            def render(self, task: Task) -> Text:
                return Text(words())

        return TimeLeft()

    def _line(self, text: str) -> None:
        print(f"{self.what}: {self.done}/{self.total} {self.unit}, {text}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """'40 s', '12 min', '2 h 10 min': as exact as an estimate is."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
