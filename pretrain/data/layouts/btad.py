"""BTAD: CATEGORY/train/ok, CATEGORY/test/{ok,ko}, CATEGORY/ground_truth/ko/NAME.png."""

from collections.abc import Iterator
from pathlib import Path

from pretrain.data.images import Problem, Record
from pretrain.data.layouts.folders import has_any, holders, labeled_tree

EXPECTED = "CATEGORY/train/ok/NAME.png"


def categories(folder: Path) -> dict[str, Path]:
    """Folders with ok/ or ko/ in train/ or test/."""
    return holders(folder, lambda inner: has_any(inner, "train/ok", "test/ok", "test/ko"))


def read(category: str, where: Path, normals_only: bool) -> Iterator[Record | Problem]:
    """train/ok is train/good."""
    return labeled_tree(where, category, normals_only)
