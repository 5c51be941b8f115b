"""Files of models, encoders and vectors, damaged at random: each is refused in a sentence, or gives what it gave."""

import random
import shutil
from pathlib import Path

import numpy as np

from downstream.inspection.inspector import Inspector
from embeddings.vectors import Vectors
from pretrain.command import UserError
from scripts.attacks.attack import Attack
from scripts.attacks.material import CATEGORY, Material

NESTED = b'{"a":' * 100_000


class Damage(Attack):
    """One try is one damaged file, opened in this process."""

    unit = "a damaged file"

    def __init__(self, material: Material) -> None:
        self._material = material
        good = sorted((material.data / CATEGORY / "test" / "good").iterdir())
        self._images = good[:1]
        self._score = self._scored(material.model)
        self._rows = Vectors(material.vectors)[:]

    def attempt(self, chance: random.Random, folder: Path) -> str | None:
        is_model = chance.random() < 0.6
        copied = Path(shutil.copytree(self._material.model if is_model else self._material.vectors, folder / "copy"))
        names = [path for path in sorted(copied.iterdir()) if path.is_file() and path.stat().st_size]
        file = chance.choice(names)
        how = damaged(file, names, chance)
        said = f"{file.name} {how}"
        try:
            if is_model:
                if self._scored(copied) != self._score:
                    return f"{said}: another score, and no word"
            elif not self._is_part_of_known(Vectors(copied)[:], file):
                return f"{said}: other vectors, and no word"
        except UserError:
            return None
        except Exception as error:
            return f"{said}: {type(error).__name__}: {error}"
        return None

    def _scored(self, model: Path) -> float:
        (inspection,) = Inspector.load(model).inspect(self._images)
        return inspection.score

    def _is_part_of_known(self, rows: np.ndarray, file: Path) -> bool:
        """Vectors have no digest of their numbers: a flipped bit there goes unnoticed, and counts as held."""
        return file.suffix == ".f32" or {*map(bytes, rows)} <= {*map(bytes, self._rows)}


def damaged(file: Path, others: list[Path], chance: random.Random) -> str:
    """Damage a file; says how."""
    data = bytearray(file.read_bytes())
    how = chance.choice(("flipped", "cut", "emptied", "swapped", "noise", "nested", "doubled", "zeros"))
    at = chance.randrange(len(data))
    if how == "flipped":
        data[at] ^= 1 << chance.randrange(8)
    elif how == "cut":
        del data[at:]
    elif how == "emptied":
        data.clear()
    elif how == "swapped":
        data = bytearray(chance.choice(others).read_bytes())
    elif how == "noise":
        length = min(64, len(data) - at)
        data[at : at + length] = chance.randbytes(length)
    elif how == "nested":
        data = bytearray(NESTED)
    elif how == "doubled":
        data = data * 2
    else:
        data[at:] = bytes(len(data) - at)
    file.write_bytes(data)
    return f"{how} at {at} of {file.stat().st_size}"
