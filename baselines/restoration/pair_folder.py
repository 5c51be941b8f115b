"""Real pairs from disk, in the layout of the original: images of one name in three folders.

    .../Degraded_image/DEFECT/NAME.png    .../GT_clean_image/DEFECT/NAME.png    .../Defect_mask/DEFECT/NAME_mask.png

The three may lie in the folder itself or at any depth; the folder that holds them names the category. Masks may be
missing.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from baselines.contract.method import Pair
from baselines.restoration.pairs import NamedPair, check_pair
from pretrain.command import UserError
from pretrain.data.decode import Unreadable, decode, read_mask
from pretrain.data.images import SUFFIXES

DEGRADED, CLEAN, MASKS = "Degraded_image", "GT_clean_image", "Defect_mask"
LAYOUT = f"FOLDER/{DEGRADED}/NAME.png beside FOLDER/{CLEAN}/NAME.png and FOLDER/{MASKS}/NAME_mask.png"
MAX_SHOWN = 3  # in an error message


class PairFiles(NamedTuple):
    """The files of one pair."""

    name: str
    category: str
    degraded: Path
    clean: Path
    mask: Path | None


class PairFolder(Sequence[NamedPair]):
    """The pairs of a folder, each read when it is asked for, as they are or stretched to squares of `size_px`.

    Raises UserError, before anything is read, where images lack their partners; `check` also reads them all.
    """

    def __init__(self, folder: Path, size_px: int | None = None, categories: Sequence[str] = ()) -> None:
        self.files = [files for files in find_pairs(folder) if not categories or files.category in categories]
        if not self.files:
            raise UserError(f"{folder} holds no pairs of {', '.join(categories)}: name other categories.")
        self.size_px = size_px

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, position: int) -> NamedPair:
        files = self.files[position]
        return NamedPair(files.name, files.category, read_pair(files, self.size_px))

    def __iter__(self) -> Iterator[NamedPair]:
        return (self[position] for position in range(len(self)))

    @property
    def has_masks(self) -> bool:
        return any(files.mask for files in self.files)

    def check(self, min_px: int = 1) -> "PairFolder":
        """Read every pair once: one that does not fit is reported before hours are spent on the others."""
        # Decoders release Python's lock, so that threads read as fast as processes would.
        with ThreadPoolExecutor(max_workers=4) as pool:
            for files, pair in zip(self.files, pool.map(read_pair, self.files), strict=True):
                height, width = pair.clean.shape[-2:]
                if min(height, width) < min_px:
                    raise UserError(
                        f"{files.name}: an image of {width}x{height} is smaller than the window of {min_px} px "
                        "that SSIM looks through: leave it out."
                    )
        return self


def find_pairs(folder: Path) -> list[PairFiles]:
    """All pairs at any depth, in the order of their names. Raises UserError where there are none, or where an image
    lacks its partner."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder} of pairs; expected {LAYOUT}.")
    pairs, unpaired = [], []
    for parent, inner, _ in os.walk(folder):
        inner.sort()  # in place, as os.walk has it: the order of files differs between disks
        if DEGRADED not in inner:
            continue
        degraded, clean, masks = (_by_name(Path(parent, part)) for part in (DEGRADED, CLEAN, MASKS))
        is_top = Path(parent) == folder
        category = folder.resolve().name if is_top else Path(parent).relative_to(folder).as_posix()
        unpaired += [(path, CLEAN) for name, path in degraded.items() if name not in clean]
        unpaired += [(path, DEGRADED) for name, path in clean.items() if name not in degraded]
        unpaired += [(path, DEGRADED) for name, path in masks.items() if name not in degraded]
        start = "" if is_top else f"{category}/"
        pairs += [
            PairFiles(start + name, category, path, clean[name], masks.get(name))
            for name, path in sorted(degraded.items())
            if name in clean
        ]
    if unpaired:
        shown = ", ".join(f"{path.relative_to(folder)} (nothing in {part})" for path, part in unpaired[:MAX_SHOWN])
        more = f" and {len(unpaired) - MAX_SHOWN} more" if len(unpaired) > MAX_SHOWN else ""
        raise UserError(f"{len(unpaired)} images in {folder} lack their partner: {shown}{more}; add or remove them.")
    if not pairs:
        raise UserError(f"{folder} holds no pairs; expected {LAYOUT}.")
    return pairs


def read_pair(files: PairFiles, size_px: int | None = None) -> Pair:
    """The images of a pair and its mask. Raises UserError where they cannot be read, or differ in size and are not
    stretched to squares."""
    try:
        images = [as_tensor(decode(path, size_px).pixels) for path in (files.degraded, files.clean)]
        mask = None if files.mask is None else torch.from_numpy(read_mask(files.mask, size_px).copy())
    except Unreadable as unreadable:
        raise UserError(f"an image of the pair {files.name} cannot be used: {unreadable}.") from None
    pair = Pair(*images, mask)
    check_pair(pair, files.name)
    return pair


def as_tensor(pixels: np.ndarray) -> Tensor:
    """uint8 (h, w, 3) -> float32 (3, h, w) in [0, 1]."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float().div(255)


def _by_name(folder: Path) -> dict[str, Path]:
    """Images at any depth by their path in the folder, without ending and without `_mask`."""
    images = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file())
    return {
        path.relative_to(folder).with_suffix("").as_posix().removesuffix("_mask"): path
        for path in images
        if not path.name.startswith(".")
    }
