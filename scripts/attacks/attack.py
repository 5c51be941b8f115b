"""What every part of the campaign is."""

import random
from pathlib import Path
from typing import ClassVar


class Attack:
    """Made of the material, tried again and again, closed. `unit` says what one try is."""

    unit: ClassVar[str]

    def attempt(self, chance: random.Random, folder: Path) -> str | None:
        """One try, in an empty folder: what did not hold; none where all did."""
        raise NotImplementedError

    def close(self) -> None:
        """End what was started for all tries together."""
