"""What the vectors in a folder are made of: chosen, written down before the first, compared before there are more."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from embeddings.config import Extract
from embeddings.encoding import Encoding, Source, safe_precision
from embeddings.vectors import read_config, write_config
from pretrain.command import UserError
from pretrain.encoder import Encoder


def with_precision(
    config: Extract,
    source: Source,
    encoder: Encoder,
    sample: Callable[[], np.ndarray],
    read_from: dict,
    out: Path,
    device: torch.device,
) -> Source:
    """`source` with a precision: as asked, as in the folder, or what suits machine and encoder, by some images. Raises
    UserError if the folder holds vectors of another source, or `read_from` elsewhere."""
    stored = read_config(out) if (out / "config.json").exists() else None
    if config.precision or stored is None:
        chosen = config.precision or safe_precision(encoder, source, sample(), device)
    else:
        chosen = stored["source"]["precision"]
    source = replace(source, precision=chosen)
    if stored is not None:
        wanted = {**source.as_json(), **read_from}
        held = {**stored["source"], **{name: stored.get(name) for name in read_from}}
        differing = [name for name in wanted if wanted[name] != held[name]]
        if differing:
            changes = ", ".join(f"{name} was {held[name]} and is {wanted[name]}" for name in differing)
            raise UserError(f"{out} holds other vectors ({changes}): choose another --out.")
    return source


def describe(
    out: Path, seed: int, encoding: Encoding, read_from: dict, name: str, encoder: Encoder, encoder_path: Path
) -> None:
    """Write config.json, before the first vectors."""
    about = encoder.as_json()
    write_config(
        out,
        {
            "source": encoding.source.as_json(),
            **read_from,
            "data_name": name,
            "encoder_file": str(encoder_path.resolve() if encoder_path.is_file() else encoder_path),
            "seed": seed,
            "encoder_saw": about["saw"],
            "encoder_started_from": about["started_from"],
            "grid": list(encoding.grid),
            "dimensions": encoding.dimensions,
        },
    )


def check_finite(vectors: np.ndarray, paths: Sequence[Path], per_image: int) -> None:
    """Raise UserError where the vectors (n * per_image, dimensions) of images are no numbers."""
    wrong = ~np.isfinite(vectors).all(axis=1)
    if wrong.any():
        path = paths[int(wrong.argmax()) // per_image]
        raise UserError(f"the encoder gives values that are no numbers for {path}: try --precision 32-true.")
