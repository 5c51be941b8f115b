"""SIGKILL at a random moment of a command that writes: the old result stays or the new one is whole, the same command
comes to its end afterwards, and nothing of the killed one is left."""

import random
import time
from pathlib import Path

from scripts.attacks.attack import Attack
from scripts.attacks.material import Material, Started, command
from scripts.attacks.writers import WRITERS


class Kills(Attack):
    """One try is one kill; the commands take turns."""

    unit = "a kill"

    def __init__(self, material: Material) -> None:
        self._material, self._seconds = material, {}

    def attempt(self, chance: random.Random, folder: Path) -> str | None:
        """What did not hold; none where all did."""
        name = list(WRITERS)[self.number % len(WRITERS)]
        writer, out, undisturbed = WRITERS[name], folder / name, folder / "undisturbed"
        writer.prepare(self._material, out)
        command_line = writer.words(self._material, out)
        if name not in self._seconds:  # how long it takes when nobody kills it
            writer.prepare(self._material, undisturbed)
            start_s = time.perf_counter()
            if (done := command(*writer.words(self._material, undisturbed))).returncode not in writer.ends_with:
                return f"{name} does not run at all: {done.stderr[-300:]}"
            self._seconds[name] = time.perf_counter() - start_s
        process = Started(*command_line)
        time.sleep(chance.uniform(0, 1.05) * self._seconds[name])
        process.kill()
        process.communicate()
        if writer.replaces:
            writer.opened(out)  # the old one or the new one
        again = command(*command_line)
        if again.returncode not in writer.ends_with:
            return f"{name} does not go on: {again.stderr[-300:]}"
        if left := [str(path.relative_to(folder)) for path in folder.rglob(".*.part")]:
            return f"{name} leaves {left}"
        writer.opened(out)
        return None
