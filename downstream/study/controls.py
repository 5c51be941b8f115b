"""What a pretrained encoder is compared with: the weights it started from, random ones, and ImageNet's.

What SimCLR is worth is its difference to its own start. The difference to random weights also counts what the start
knew before, which with ImageNet's is most of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from downstream.study.cell import IMAGENET, RANDOM, START
from downstream.study.encoders import PretrainedEncoder, imagenet_encoder
from pretrain import weights
from pretrain.command import UserError
from pretrain.encoder import DEFAULT_ARCHITECTURE, Encoder, fingerprint, make_encoder

RANDOM_WEIGHTS = "random weights"
Control = tuple[Encoder, str]  # an encoder and its fingerprint


@dataclass(frozen=True)
class StartRow:
    """What an encoder started from. `row` is the encoder's name in the rows that are of this start, none where it is
    not at hand; `note` is what a reader must know about the comparison; `saw` what the start was trained on, in words.
    `control` is there where the start has rows of its own."""

    name: str
    row: str | None
    note: str = ""
    saw: str = ""
    control: Control | None = None

    @property
    def metadata(self) -> dict:
        return {name: getattr(self, name) for name in ("name", "row", "note", "saw")}


class ControlEncoders:
    """The controls of the chosen encoder files, by architecture. Each is made once."""

    def __init__(self, chosen: Mapping[str, Sequence[PretrainedEncoder]]) -> None:
        files = {file.path: file for of_category in chosen.values() for file in of_category}
        architectures = [file.encoder.architecture for file in files.values()] or [DEFAULT_ARCHITECTURE]
        self.architecture = architectures[0]
        found = {architecture: imagenet_encoder(architecture) for architecture in dict.fromkeys(architectures)}
        self.imagenet = {name: (encoder, fingerprint(encoder)) for name, encoder in found.items() if encoder}
        self.starts = {path: self._start(file) for path, file in files.items()}
        self._random: dict[tuple[str, int], Control] = {}

    def random(self, architecture: str, seed: int) -> Control:
        """An untrained encoder and its fingerprint."""
        if (architecture, seed) not in self._random:
            encoder = Encoder(architecture, seed).eval()
            self._random[architecture, seed] = encoder, fingerprint(encoder)
        return self._random[architecture, seed]

    def _start(self, file: PretrainedEncoder) -> StartRow:
        """The row that an encoder file is compared with, or why there is none: nothing else is put in its place."""
        name, recorded = recorded_start(file.encoder)
        if name == "random":
            return StartRow(RANDOM_WEIGHTS, RANDOM)
        if not name:
            note = f"{file.path} does not say what it started from: it is compared with random weights"
            return StartRow(RANDOM_WEIGHTS, RANDOM, note)
        architecture = file.encoder.architecture
        is_imagenet = name in (weights.IMAGENET, weights.HUB)
        shown = "ImageNet" if is_imagenet else name
        found = self.imagenet.get(architecture) if is_imagenet else _opened(architecture, Path(name))
        if found is None or recorded and found[1] != recorded:
            why = "not at hand" if found is None else f"another one now (fingerprint {found[1]}, was {recorded})"
            note = f"{file.path} started from {shown}, which is {why}: what SimCLR added to it is not tested"
            return StartRow(shown, None, note)
        if architecture in self.imagenet and found[1] == self.imagenet[architecture][1]:
            return StartRow("ImageNet", IMAGENET)
        note = "" if recorded else f"the start of {file.path} was found by its path, {name}; no fingerprint confirms it"
        origin = found[0].origin
        saw = ", ".join([origin.data, *origin.categories]) if origin else "not known"
        return StartRow(shown, START, note, saw, found)


def recorded_start(encoder: Encoder) -> tuple[str, str]:
    """What an encoder's file says that it started from: imagenet, hub, random or a file, '' where it says nothing; and
    that start's fingerprint, '' where it is not recorded."""
    if encoder.started_from:
        return encoder.started_from.name, encoder.started_from.fingerprint
    recipe = encoder.origin.recipe if encoder.origin else {}  # all that files of format 1 have
    return str(recipe.get("start") or ""), ""


def _opened(architecture: str, path: Path) -> Control | None:
    """The weights in a file; none where it is gone, damaged, or of another architecture."""
    try:
        encoder = make_encoder(architecture, path).eval()
    except UserError:
        return None
    return encoder, fingerprint(encoder)
