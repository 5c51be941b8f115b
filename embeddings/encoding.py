"""From pixels to vectors: which encoder, at which size, pooled or by patch, written down so that it can be repeated."""

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
from pretrain.backbone import CHANNELS, TIMM
from pretrain.command import UserError, nearest
from pretrain.encoder import DEFAULT_ARCHITECTURE, LEVELS, Encoder, fingerprint, load_encoder, make_encoder
from pretrain.training.device import full_precision, has_bf16, transferred
from pretrain.training.memory import in_parts

DEFAULT_ENCODER = Path("runs/simclr/encoder.safetensors")
RANDOM, IMAGENET = Path("random"), Path("imagenet")
FORMS = ("pooled", "patches")
DEFAULT_LEVELS = {"pooled": ("level4",), "patches": ("level2", "level3")}
# bf16 is used where the cosine of each vector with itself in fp32 is higher.
SAFE_COSINE = 0.999


@dataclass(frozen=True)
class Source:
    """What made vectors, as plain JSON; vectors of equal sources are comparable.

    `encoder` is a fingerprint. `form` is pooled (one vector per image, the means of `levels`) or patches (one per
    patch, see `patches.py`, of `dimensions` drawn with `seed`; None: all).
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
    """uint8 images (b, size, size, 3) -> float32 vectors (b * per_image, dimensions), patch by patch, row by row.

    `grid` is the (rows, columns) of patches in an image, (1, 1) if pooled.
    """

    def __init__(self, encoder: Encoder, source: Source, device: torch.device | str = "cpu") -> None:
        self.source, self.device = source, torch.device(device)
        self._encoder = encoder.eval().to(self.device, memory_format=torch.channels_last)
        self._patches = None
        if source.form == "patches":
            chosen = {"grid": source.grid, "dimensions": source.dimensions, "seed": source.seed}
            self._patches = Patches(self._encoder, source.levels, **chosen)
        # One blank image tells the grid and the dimensions of any architecture.
        blank = self(np.zeros((1, source.size_px, source.size_px, 3), np.uint8))
        self.dimensions = blank.shape[-1]
        self.grid = tuple(blank.shape[1:3])

    @property
    def per_image(self) -> int:
        return self.grid[0] * self.grid[1]

    @torch.inference_mode()
    @full_precision()
    def __call__(self, pixels: np.ndarray) -> Tensor:
        """Vectors (b, rows, columns, dimensions), on the device; a GPU may still be at work on them."""
        images = transferred(torch.from_numpy(pixels), self.device)
        images = images.permute(0, 3, 1, 2).float().div(255)  # (b, 3, h, w), in memory still channels_last
        parts = in_parts(self._encoded, images)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _encoded(self, images: Tensor) -> Tensor:
        with self._autocast():
            if self._patches is not None:
                return self._patches(images)
            maps = self._encoder(images, self.source.levels)
        pooled = torch.cat([level.float().mean((2, 3)) for level in maps.values()], dim=1)  # (b, dimensions)
        return pooled[:, None, None]

    def vectors(self, pixels: np.ndarray) -> np.ndarray:
        """The same in memory, float32 (b * per_image, dimensions)."""
        return self(pixels).flatten(0, 2).float().cpu().numpy()

    def _autocast(self) -> AbstractContextManager:
        if self.source.precision == "32-true":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def choose_encoder(path: Encoder | Path | None, seed: int, is_demo: bool) -> tuple[Encoder, Path]:
    """The encoder at `path` (`imagenet`; `random`, the same architecture with random weights of the seed; or the name
    of an architecture, with its published weights), else the default file where it may be used, else ImageNet's; and
    the path, or that name. An encoder is itself, called by its architecture."""
    if isinstance(path, Encoder):
        return path.eval(), Path(path.architecture)
    if path is None and DEFAULT_ENCODER.is_file():
        encoder = load_encoder(DEFAULT_ENCODER)
        if reason := why_not_default(encoder, is_demo):
            print(f"{DEFAULT_ENCODER} {reason}; --encoder {DEFAULT_ENCODER} takes it anyway.", file=sys.stderr)
        else:
            return encoder, DEFAULT_ENCODER
    if path is None or path == IMAGENET:
        return make_encoder(start="imagenet").eval(), IMAGENET
    if path == RANDOM:
        return make_encoder(DEFAULT_ARCHITECTURE, seed=seed).eval(), RANDOM
    if is_architecture(path):
        return make_encoder(str(path), str(IMAGENET)).eval(), path
    return load_encoder(path), path


def check_encoder(path: Encoder | Path | None) -> None:
    """Raise UserError for a file that is not there, as `choose_encoder` does, but before any image is opened."""
    if isinstance(path, Path) and path not in (IMAGENET, RANDOM) and not is_architecture(path) and not path.is_file():
        load_encoder(path)


def is_architecture(path: Path) -> bool:
    return not path.is_file() and (str(path) in CHANNELS or str(path).startswith(TIMM))


def why_not_default(encoder: Encoder, is_demo: bool) -> str:
    """Why an encoder is not taken unless somebody names it; empty for one that is."""
    if encoder.origin and encoder.origin.is_demo and not is_demo:
        return "was made on demo data and is not used for yours"
    reason = encoder.origin.why_not_better if encoder.origin else "does not say what it learned from"
    return reason and f"{reason} and is not used"


def encoder_of(config: dict, path: Path | None = None) -> Encoder:
    """The encoder that made the vectors whose `config.json` this is, at `path` if it was moved. Raises UserError if the
    file holds another encoder."""
    if path is None and config["encoder_file"] != str(RANDOM):
        path = Path(config["encoder_file"])
    encoder, name = choose_encoder(path or RANDOM, config["seed"], is_demo=True)
    actual, wanted = fingerprint(encoder), config["source"]["encoder"]
    if actual != wanted:
        raise UserError(
            f"the vectors were made by an encoder with fingerprint {wanted}, {name} has {actual}: their distances mean "
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
    """A checked Source; what is left out takes the default of the form or of the encoder."""
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
        raise UserError(f"a grid of {grid} patches and {dimensions} dimensions cannot be made: give 1 or more.")
    levels = tuple(level for level in LEVELS if level in (levels or DEFAULT_LEVELS[form]))
    seed = seed if dimensions else 0  # it draws only dimensions: equal vectors shall have equal sources
    return Source(fingerprint(encoder), form, levels, size_px, grid, dimensions, seed, precision)


def safe_precision(encoder: Encoder, source: Source, pixels: np.ndarray, device: torch.device) -> str:
    """bf16-mixed where it gives the same vectors of these images as fp32, and faster; else 32-true."""
    if not has_bf16(device.type):
        return "32-true"
    vectors, seconds = [], []
    for precision in ("32-true", "bf16-mixed"):
        encoding = Encoding(encoder, replace(source, precision=precision), device)
        encoding.vectors(pixels)  # warms up
        started_s = time.perf_counter()
        vectors.append(encoding.vectors(pixels))
        seconds.append(time.perf_counter() - started_s)
    exact, quick = vectors
    cosines = (exact * quick).sum(1) / (np.linalg.norm(exact, axis=1) * np.linalg.norm(quick, axis=1))
    # On a CPU shared with other processes bf16 was ten times slower: it has to be tried where it is used.
    return "bf16-mixed" if (cosines > SAFE_COSINE).all() and seconds[1] < seconds[0] else "32-true"
