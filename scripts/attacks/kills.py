"""SIGKILL at a random moment of a command that writes: the old result stays or the new one is whole, the same command
comes to its end afterwards, and nothing of the killed one is left."""

import random
import shutil
import time
from pathlib import Path

from downstream.inspection.inspector import Inspector
from embeddings.vectors import Vectors
from pretrain.encoder import load_encoder
from scripts.attacks.attack import Attack
from scripts.attacks.material import Material, command, extracting, fitting, pretraining, started

# What makes the words of each command, and what opens its result.
COMMANDS = {
    "fit": (fitting, Inspector.load),
    "extract": (extracting, Vectors),
    "pretrain": (pretraining, lambda out: load_encoder(out / "encoder.safetensors")),
}


class Kills(Attack):
    """One try is one kill; the commands take turns."""

    unit = "a kill"

    def __init__(self, material: Material) -> None:
        self._material, self._seconds, self._tries = material, {}, 0

    def attempt(self, chance: random.Random, folder: Path) -> str | None:
        """What did not hold; none where all did."""
        name = list(COMMANDS)[self._tries % len(COMMANDS)]
        words, opened = COMMANDS[name]
        self._tries += 1
        out = folder / name
        if name == "fit":  # over a model that is in use
            shutil.copytree(self._material.model, out)
        command_line = words(self._material, out)
        if name not in self._seconds:  # how long it takes when nobody kills it
            start_s = time.perf_counter()
            if (done := command(*words(self._material, folder / "undisturbed"))).returncode:
                return f"{name} does not run at all: {done.stderr[-300:]}"
            self._seconds[name] = time.perf_counter() - start_s
        process = started(*command_line)
        time.sleep(chance.uniform(0.2, 1.05) * self._seconds[name])
        process.kill()
        process.communicate()
        if name == "fit":
            opened(out)  # the old one or the new one
        again = command(*command_line)
        if again.returncode:
            return f"{name} does not go on: {again.stderr[-300:]}"
        if left := [str(path.relative_to(folder)) for path in folder.rglob(".*.part")]:
            return f"{name} leaves {left}"
        opened(out)
        return None
