"""What every part of gpu.py is told, and how it runs a command of the project."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pretrain.command import UserError, run_command

Value = TypeVar("Value")
Figures = dict[str, object]
# A part gives figures as it has them, so that one that is cut off has lost nothing that it had measured.
Part = Callable[["Setting"], Iterator[Figures]]


@dataclass(frozen=True)
class Setting:
    """`seconds` is how long the part may take about; `data` holds categories in MVTec AD's layout; `folder` is the
    part's own. `is_tiny` is a trial on the CPU: everything is gone through, and no figure means anything."""

    device: str
    is_tiny: bool
    seconds: float
    data: Path
    folder: Path
    best: str

    def size(self, usual: Value, tiny: Value) -> Value:
        return tiny if self.is_tiny else usual

    def minutes(self, share: float) -> float:
        """A share of the part's time."""
        return round(max(0.02, share * self.seconds / 60), 3)


def run_typed(main: Callable, config_class: type, *arguments: object) -> None:
    """Run a command of the project in this process, as if it had been typed. Raises UserError if it fails, with its own
    words above."""
    try:
        code = run_command(main, config_class, list(map(str, arguments)))
    except SystemExit as stop:  # an option that cannot be read
        code = stop.code
    if code:
        raise UserError(f"{main.__module__} ended with exit code {code}: its log says why.")
