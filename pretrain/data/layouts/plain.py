"""A plain folder: images at any depth, without labels. Where good images are asked for, the user says that all are."""

import os
from collections.abc import Iterator
from pathlib import Path

from pretrain.data.images import GOOD, UNLABELED, Problem, Record
from pretrain.data.layouts.folders import images_in

EXPECTED = "NAME.png, at any depth"


def categories(folder: Path) -> dict[str, Path]:
    """Every folder with images: `folder` itself by its name, the rest by their path from there."""
    found = {}
    for parent, inner, _ in os.walk(folder):
        # In place, as os.walk has it: hidden folders, such as .git, are not entered.
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        if images_in(Path(parent)):
            name = Path(parent).relative_to(folder).as_posix()
            found[folder.resolve().name if name == "." else name] = Path(parent)
    return found


def read(category: str, where: Path, normals_only: bool) -> Iterator[Record | Problem]:
    """Images without a label or, with `normals_only`, as good ones to learn from."""
    split, defect = ("train", GOOD) if normals_only else (UNLABELED, UNLABELED)
    return (Record(path, category, split, defect) for path in images_in(where))
