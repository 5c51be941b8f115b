"""What every part of gpu.py is told, and how it runs a command of the project."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pretrain.command import UserError, run_command

Value = TypeVar("Value")
Figures = dict[str, object]
# A part gives figures as it has them, so that one that is cut off has lost nothing that it had measured.
Part = Callable[["Setting"], Iterator[Figures]]
# A real training that lasts shorter is left out: it would say nothing of a recipe, and be read as if it did.
MIN_TRAINING_S = 20


@dataclass(frozen=True)
class Setting:
    """`seconds` is how long the part may take about; `data` holds categories in MVTec AD's layout; `folder` is the
    part's own. `is_tiny` is a trial on the CPU: everything is gone through, and no figure means anything."""

    device: str
    is_tiny: bool
    seconds: float
    data: Path
    folder: Path
    began_s: float = field(default_factory=time.monotonic)

    def size(self, usual: Value, tiny: Value) -> Value:
        return tiny if self.is_tiny else usual

    @property
    def left_s(self) -> float:
        return self.began_s + self.seconds - time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether no further contestant should begin."""
        return not self.is_tiny and self.left_s <= 0

    def minutes(self, share: float) -> float | None:
        """A share of what is left of the part's time, for a training; none where that is too short to say anything."""
        seconds = share * self.left_s
        return round(seconds / 60, 3) if self.is_tiny or seconds >= MIN_TRAINING_S else None


def left_out(what: str, why: str = "no time was left") -> Figures:
    return {f"left out: {what}": why}


def run_typed(main: Callable, config_class: type, *arguments: object) -> None:
    """Run a command of the project in this process, as if it had been typed. Raises UserError if it fails, with its own
    words above."""
    try:
        code = run_command(main, config_class, list(map(str, arguments)))
    except SystemExit as stop:  # an option that cannot be read
        code = stop.code
    if code:
        raise UserError(f"{main.__module__} ended with exit code {code}: its log says why.")
