"""MVTec AD: CATEGORY/train/good, CATEGORY/test/{good,DEFECT}, CATEGORY/ground_truth/DEFECT/NAME_mask.png.

Masks, test images and defects may be missing. MPDD and most people's own folders are laid out so.
"""

from collections.abc import Iterator
from pathlib import Path

from pretrain.data.images import SPLITS, Problem, Record
from pretrain.data.layouts.folders import has_any, holders, labeled_tree

EXPECTED = "CATEGORY/train/good/NAME.png"


def categories(folder: Path) -> dict[str, Path]:
    """Folders with train/ or test/."""
    return holders(folder, lambda inner: has_any(inner, *SPLITS))


def read(category: str, where: Path, normals_only: bool) -> Iterator[Record | Problem]:
    """train/good is train; validation/good, if there is one, is left alone."""
    return labeled_tree(where, category, normals_only)
