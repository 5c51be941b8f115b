"""How far a command is: a bar on a terminal, one plain line every few seconds when the output is piped."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """A context in which `advance` counts up to `total`. Everything goes to stderr: stdout belongs to results.

    Inside another one it says nothing: the outer one tells how far the command is.
    """

    _open = 0  # in this process

    def __init__(self, what: str, total: int, unit: str = "images", done: int = 0) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, done
        self._done_at_start, self._bar = done, None

    def __enter__(self) -> "Progress":
        self._start_s = self._last_line_s = time.monotonic()
        self._is_inner = Progress._open > 0
        Progress._open += 1
        if sys.stderr.isatty() and not self._is_inner:
            columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), self.unit, "{task.fields[rate]}")
            self._bar = Bar(
                *(TextColumn(column) if isinstance(column, str) else column for column in columns),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self.what, total=self.total, completed=self.done, rate="", note="")
        return self

    def advance(self, count: int = 1, note: str = "") -> None:
        """Say that `count` more are done; `note` is shown beside the time left."""
        self.done += count
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, rate=f"{self.rate:.1f}/s", note=note)
        elif not self._is_inner and time.monotonic() - self._last_line_s >= SECONDS_BETWEEN_LINES:
            self._last_line_s = time.monotonic()
            self._line(f"{self.rate:.1f}/s, {self.seconds_left:.0f} s left" + (f", {note}" if note else ""))

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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        Progress._open -= 1
        if self._bar is not None:
            self._bar.stop()
        elif kind is None and not self._is_inner:
            self._line(f"in {time.monotonic() - self._start_s:.1f} s")

    def _line(self, text: str) -> None:
        print(f"{self.what}: {self.done}/{self.total} {self.unit}, {text}", file=sys.stderr, flush=True)
