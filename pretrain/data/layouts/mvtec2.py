"""MVTec AD 2: CATEGORY/{train,validation}/good, CATEGORY/test_public/{good,bad}, CATEGORY/test_public/ground_truth/bad.

Its two private tests have no labels here (the publisher's server judges them), so they are left alone.
"""

from collections.abc import Iterator
from pathlib import Path

from pretrain.data.images import Problem, Record
from pretrain.data.layouts.folders import has_any, holders, labeled_tree

EXPECTED = "CATEGORY/test_public/bad/NAME.png"
TEST = "test_public"


def categories(folder: Path) -> dict[str, Path]:
    """Folders with test_public/."""
    return holders(folder, lambda inner: has_any(inner, TEST))


def read(category: str, where: Path, normals_only: bool) -> Iterator[Record | Problem]:
    """train/good and validation/good are both train, as in MVTec LOCO."""
    train = ("train", "validation")
    return labeled_tree(where, category, normals_only, train=train, test=TEST, truth=f"{TEST}/ground_truth")
