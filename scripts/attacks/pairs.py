"""The same command twice at once into the same place: one may be refused in a sentence, and the result is whole."""

import random
import time
from pathlib import Path

from scripts.attacks.attack import Attack
from scripts.attacks.material import Material, Started
from scripts.attacks.writers import WRITERS

SECONDS, MOST_APART_S = 300, 1.5


class Pairs(Attack):
    """One try is one pair, begun up to a second and a half apart; the commands take turns."""

    unit = "a pair of commands"

    def __init__(self, material: Material) -> None:
        self._material = material

    def attempt(self, chance: random.Random, folder: Path) -> str | None:
        name = list(WRITERS)[self.number % len(WRITERS)]
        writer, out = WRITERS[name], folder / name
        writer.prepare(self._material, out)
        words = writer.words(self._material, out)
        pair = [Started(*words)]
        time.sleep(chance.choice((0, 0, chance.uniform(0, MOST_APART_S))))
        pair.append(Started(*words))
        try:
            errors = [process.communicate(timeout=SECONDS)[1] for process in pair]
        finally:
            for process in pair:
                process.kill()
        codes = [process.returncode for process in pair]
        for code, error in zip(codes, errors, strict=True):
            if code not in (*writer.ends_with, 2) or "Traceback" in error or (code == 2 and "error: " not in error):
                return f"{name}: exit code {code}: {error[-300:]}"
        if codes == [2, 2]:
            return f"{name}: both are refused: {errors[0][-200:]} {errors[1][-200:]}"
        writer.opened(out)
        left = [str(path.relative_to(folder)) for path in folder.rglob(".*.part")]
        return f"{name} leaves {left}" if left else None
