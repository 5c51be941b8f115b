"""KolektorSDD2: train/ and test/ with NAME.png and NAME_GT.png, black where the image is good."""

from collections.abc import Iterator
from pathlib import Path

from pretrain.data.images import SPLITS, Problem, Record
from pretrain.data.layouts.folders import holders, images_in
from pretrain.data.layouts.ksdd import told_by_masks

EXPECTED = "train/NAME.png with train/NAME_GT.png"
ENDING = "_GT"


def categories(folder: Path) -> dict[str, Path]:
    """A folder whose train/ or test/ holds images with such masks is one category."""
    return holders(folder, lambda inner: any(any((inner / split).glob(f"*{ENDING}.png")) for split in SPLITS))


def read(category: str, where: Path, normals_only: bool) -> Iterator[Record | Problem]:
    """The split is the publisher's, which has defective images in train too; train/good are those with a black mask."""
    for split in SPLITS[:1] if normals_only else SPLITS:
        yield from told_by_masks(images_in(where / split), ENDING, category, split)
