"""KolektorSDD: kosNN/PartN.jpg with kosNN/PartN_label.bmp, black where the part is good.

It has no split. A commutator's parts look alike, so all of one are on one side: of odd numbers on train, of even ones
on test.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from pretrain.data.decode import Unreadable, read_mask
from pretrain.data.images import GOOD, Problem, Record
from pretrain.data.layouts.folders import holders, images_in, subfolders

EXPECTED = "kos01/Part0.jpg with kos01/Part0_label.bmp"
DEFECT = "defect"
LABEL = "_label"


def categories(folder: Path) -> dict[str, Path]:
    """A folder of commutators is one category."""
    return holders(folder, lambda inner: any(_number(item) for item in subfolders(inner)))


def read(category: str, where: Path, normals_only: bool) -> Iterator[Record | Problem]:
    """train/good are the parts of odd commutators whose label is black; of even ones not even a label is opened."""
    for item in subfolders(where):
        number = _number(item)
        if number and (number % 2 or not normals_only):
            yield from told_by_masks(images_in(item), LABEL, category, "train" if number % 2 else "test")


def told_by_masks(paths: list[Path], ending: str, category: str, split: str) -> Iterator[Record | Problem]:
    """Images of which nothing but a mask beside them, with `ending` in its name, says whether they are good."""
    masks = {path.stem.removesuffix(ending): path for path in paths if path.stem.endswith(ending)}
    for path in paths:
        if path.stem.endswith(ending):
            continue
        mask = masks.pop(path.stem, None)
        if mask is None:
            yield Problem(path, f"has no {path.stem}{ending} beside it, which says whether it is good", split == "test")
            continue
        try:
            status = mask.stat()
            is_defective = _shows_a_defect(mask, status.st_mtime_ns, status.st_size)
        except (Unreadable, OSError) as error:
            yield Problem(mask, str(error), split == "test")
            continue
        yield Record(path, category, split, DEFECT if is_defective else GOOD, mask if is_defective else None)
    yield from (Problem(mask, "a mask without its image", False) for mask in masks.values())


@lru_cache(maxsize=1 << 16)  # a command lists its folder more than once
def _shows_a_defect(mask: Path, changed_ns: int, size_bytes: int) -> bool:
    return bool(read_mask(mask).any())


def _number(item: Path) -> int:
    """Of a commutator's folder; 0 of any other."""
    found = re.fullmatch(r"kos(\d+)", item.name)
    return int(found[1]) if found else 0
