"""MVTec LOCO AD: as MVTec AD, with validation/good, and a folder of masks for each defective image:
CATEGORY/ground_truth/{logical,structural}_anomalies/NAME/000.png, 001.png, ...

Each mask is one defect, which may saturate (be found whole once a part of it is found); their union is the mask.
"""

from collections.abc import Iterator
from pathlib import Path

from pretrain.data.images import SPLITS, Problem, Record
from pretrain.data.layouts.folders import has_any, holders, labeled_tree

EXPECTED = "CATEGORY/validation/good/NAME.png and CATEGORY/ground_truth/logical_anomalies/NAME/000.png"


def categories(folder: Path) -> dict[str, Path]:
    """Folders with train/ or test/, where one has validation/ too: some data sets have it of some categories only."""
    found = holders(folder, lambda inner: has_any(inner, *SPLITS))
    return found if any(has_any(inner, "validation") for inner in found.values()) else {}


def read(category: str, where: Path, normals_only: bool) -> Iterator[Record | Problem]:
    """train/good and validation/good are both train: thresholds come from normals that a method leaves out itself."""
    return labeled_tree(where, category, normals_only, train=("train", "validation"))
