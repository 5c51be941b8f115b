"""What every part of the campaign is."""

import random
from pathlib import Path
from typing import ClassVar


class Attack:
    """Made of the material, tried again and again, closed. `unit` says what one try is, `number` which one it is: what
    it does follows from its number and from chance alone."""

    unit: ClassVar[str]
    number: int = 0
    said: str | None = None  # what is to be told beneath the table

    def attempt(self, chance: random.Random, folder: Path) -> str | None:
        """One try, in an empty folder: what did not hold; none where all did."""
        raise NotImplementedError

    def conclude(self, folder: Path) -> str | None:
        """What did not hold of all tries together; what shows it may be left in the empty folder."""
        return None

    def close(self) -> None:
        """End what was started for all tries together."""


def traceback_in(said: str) -> str | None:
    """Of what a process said, its first traceback, cut off; none where there is none."""
    return said[said.index("Traceback") :][:2000] if "Traceback" in said else None
