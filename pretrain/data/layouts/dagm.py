"""DAGM 2007: ClassN/{Train,Test}/NAME.PNG, defective ones with Label/NAME_label.PNG and a line in Label/Labels.txt."""

import re
from collections.abc import Iterator
from pathlib import Path

from pretrain.command import UserError
from pretrain.data.images import GOOD, Problem, Record
from pretrain.data.layouts.folders import has_any, holders, images_in
from pretrain.reading import read_regular

EXPECTED = "ClassN/Train/NAME.PNG with ClassN/Train/Label/NAME_label.PNG"
DEFECT = "defect"
PARTS = {"train": "Train", "test": "Test"}
LABEL = "_label"
MAX_BYTES = 2**25


def categories(folder: Path) -> dict[str, Path]:
    """Folders with a Label/ in Train/ or Test/."""
    return holders(folder, lambda inner: has_any(inner, *(f"{part}/Label" for part in PARTS.values())))


def read(category: str, where: Path, normals_only: bool) -> Iterator[Record | Problem]:
    """The split is the publisher's, which has defective images in Train too; train/good are those without a label.
    Where a whole Label/ is gone, no image beside it is listed: the defective ones would be good."""
    for split, part in PARTS.items():
        if normals_only and split != "train":
            continue
        labels = where / part / "Label"
        if not labels.is_dir() and (images := images_in(where / part)):
            reason = f"is not there, so nothing says which of {len(images)} images are good: fetch it again"
            yield Problem(labels, reason, split == "test")
            continue
        masks = {path.stem.removesuffix(LABEL): path for path in images_in(labels)}
        listed = labels / "Labels.txt"
        text = _text(listed) if listed.exists() else ""
        # Lines such as `2  1  0002.PNG  0  0002_label.PNG`.
        missing = dict(re.findall(rf"(\S+){LABEL}(\.\w+)", text))
        for path in images_in(where / part):
            mask = masks.pop(path.stem, None)
            ending = missing.pop(path.stem, None)
            if mask is None and ending:
                lost = labels / f"{path.stem}{LABEL}{ending}"
                yield Problem(lost, f"is named in {listed.name}, but is not there", False)
            yield Record(path, category, split, DEFECT if mask or ending else GOOD, mask)
        yield from (Problem(mask, "a mask without its image", False) for mask in masks.values())
        gone = sorted(missing.keys() - masks.keys())
        reason = f"has a label in {listed.name}, but is not there"
        yield from (Problem(where / part / stem, reason, split == "test") for stem in gone)


def _text(listed: Path) -> str:
    """Raises UserError for a list that cannot be read: without it, a defective image whose label is lost is good."""
    try:
        return read_regular(listed, MAX_BYTES).decode(errors="replace")
    except OSError as error:
        raise UserError(f"{listed} cannot be read ({error.strerror}): fetch it again.") from None
