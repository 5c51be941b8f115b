"""From pixels to vectors: which encoder, at which size, pooled or by patch, so that it can be told and done again."""

import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from embeddings.patches import Patches
from pretrain.command import UserError, nearest
from pretrain.encoder import LEVELS, Encoder, fingerprint, load_encoder
from pretrain.training.device import has_bf16

DEFAULT_ENCODER = Path("runs/simclr/encoder.safetensors")
RANDOM = Path("random")
FORMS = ("pooled", "patches")
DEFAULT_LEVELS = {"pooled": ("level4",), "patches": ("level2", "level3")}
# Cosine of a vector in bf16 with itself in fp32.
SAFE_COSINE = 0.999


@dataclass(frozen=True)
class Source:
    """What made vectors, all of it plain JSON; vectors are comparable if it is the same.

    `encoder` is a fingerprint. `form` pooled: one vector an image, the means of `levels`; patches: one a cell, see
    `patches.py`, of `dimensions` drawn with `seed` (none: all).
    """

    encoder: str
    form: str
    levels: tuple[str, ...]
    size_px: int
    grid: int | None = None
    dimensions: int | None = None
    seed: int = 0
    precision: str = "32-true"

    def as_json(self) -> dict:
        return {**asdict(self), "levels": list(self.levels)}

    @classmethod
    def from_json(cls, metadata: dict) -> "Source":
        return cls(**{**metadata, "levels": tuple(metadata["levels"])})


class Encoding:
    """uint8 images (b, size, size, 3) -> float32 vectors (b * cells, dimensions), cell by cell, row by row.

    `grid` is (rows, columns) of cells an image, (1, 1) if pooled.
    """

    def __init__(self, encoder: Encoder, source: Source, device: torch.device | str = "cpu") -> None:
        self.source, self.device = source, torch.device(device)
        self._encoder = encoder.eval().to(self.device, memory_format=torch.channels_last)
        self._patches = None
        if source.form == "patches":
            chosen = {"grid": source.grid, "dimensions": source.dimensions, "seed": source.seed}
            self._patches = Patches(self._encoder, source.levels, **chosen)
        blank = self(np.zeros((1, source.size_px, source.size_px, 3), np.uint8))
        self.dimensions = blank.shape[-1]
        self.grid = tuple(blank.shape[1:3])

    @property
    def cells(self) -> int:
        return self.grid[0] * self.grid[1]

    @torch.inference_mode()
    def __call__(self, pixels: np.ndarray) -> Tensor:
        """Vectors (b, rows, columns, dimensions), on the device; a GPU may still be at work on them."""
        images = torch.from_numpy(pixels).to(self.device, non_blocking=True)
        images = images.permute(0, 3, 1, 2).float().div(255)  # channels_last, as the convolutions like it
        with self._autocast():
            if self._patches is not None:
                return self._patches(images)
            maps = self._encoder(images, self.source.levels)
        pooled = torch.cat([part.float().mean((2, 3)) for part in maps.values()], dim=1)
        return pooled[:, None, None]

    def vectors(self, pixels: np.ndarray) -> np.ndarray:
        """The same in memory, float32 (b * cells, dimensions)."""
        return self(pixels).flatten(0, 2).float().cpu().numpy()

    def _autocast(self) -> AbstractContextManager:
        if self.source.precision == "32-true":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def choose_encoder(path: Path | None, seed: int, is_demo: bool) -> tuple[Encoder, Path]:
    """The encoder that was typed (`random`: a ResNet-18 with weights of the seed), else the usual one if there is one
    that may be used, else a random one, which is said aloud. Also gives what to call it."""
    if path is None and DEFAULT_ENCODER.is_file():
        encoder = load_encoder(DEFAULT_ENCODER)
        if is_demo or not (encoder.origin and encoder.origin.is_demo):
            return encoder, DEFAULT_ENCODER
        print(f"{DEFAULT_ENCODER} was made on demo data and is not used for yours.", file=sys.stderr)
    if path is None:
        print(
            f"no encoder given and none in {DEFAULT_ENCODER} for this data: using a RANDOM one. "
            "python pretrain/simclr.py makes a better one.",
            file=sys.stderr,
        )
    if path is None or path == RANDOM:
        return Encoder("resnet18", seed).eval(), RANDOM
    return load_encoder(path), path


def encoder_of(config: dict, path: Path | None = None) -> Encoder:
    """The encoder that made the vectors whose `config.json` this is, or the one that was typed. Raises UserError if
    it is another one by now."""
    if path is None and config["encoder_file"] != str(RANDOM):
        path = Path(config["encoder_file"])
    encoder, name = choose_encoder(path or RANDOM, config["seed"], is_demo=True)
    found, wanted = fingerprint(encoder), config["source"]["encoder"]
    if found != wanted:
        raise UserError(
            f"the vectors were made by an encoder with fingerprint {wanted}, {name} has {found}: their distances mean "
            "nothing. Give the same encoder, or extract the images with this one."
        )
    return encoder


def make_source(
    encoder: Encoder,
    form: str,
    levels: Sequence[str] = (),
    size_px: int | None = None,
    grid: int | None = None,
    dimensions: int | None = None,
    seed: int = 0,
    precision: str = "32-true",
) -> Source:
    """A checked Source; what is left out is usual for the form, or the encoder's."""
    if form not in FORMS:
        raise UserError(f"there is no form of vectors {form!r}; {nearest(form, FORMS)}")
    for level in levels:
        if level not in LEVELS:
            raise UserError(f"there is no feature level {level!r}; {nearest(level, LEVELS)}")
    size_px = size_px or encoder.input_size_px
    if size_px < 32:
        raise UserError(f"an encoder needs images of 32 px or more, not {size_px}.")
    if form == "pooled" and (grid or dimensions):
        raise UserError("a grid and a choice of dimensions are for patches: leave them out, or ask for patches.")
    if min(grid or 1, dimensions or 1) < 1:
        raise UserError(f"a grid of {grid} cells and {dimensions} dimensions cannot be made: give 1 or more.")
    levels = tuple(level for level in LEVELS if level in (levels or DEFAULT_LEVELS[form]))
    seed = seed if dimensions else 0  # it draws nothing else
    return Source(fingerprint(encoder), form, levels, size_px, grid, dimensions, seed, precision)


def safe_precision(encoder: Encoder, source: Source, pixels: np.ndarray, device: torch.device) -> str:
    """bf16-mixed where these images come out as in fp32, and sooner, else 32-true."""
    if not has_bf16(device.type):
        return "32-true"
    vectors, seconds = [], []
    for precision in ("32-true", "bf16-mixed"):
        encoding = Encoding(encoder, replace(source, precision=precision), device)
        encoding.vectors(pixels)  # the first time is slower
        started_s = time.perf_counter()
        vectors.append(encoding.vectors(pixels))
        seconds.append(time.perf_counter() - started_s)
    exact, quick = vectors
    cosines = (exact * quick).sum(1) / (np.linalg.norm(exact, axis=1) * np.linalg.norm(quick, axis=1))
    # On a CPU that other processes use too, bf16 was seen to be ten times slower.
    return "bf16-mixed" if (cosines > SAFE_COSINE).all() and seconds[1] < seconds[0] else "32-true"
