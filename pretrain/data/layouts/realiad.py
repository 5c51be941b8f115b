"""Real-IAD: realiad_jsons/CATEGORY.json lists the images in realiad_1024/CATEGORY (or 512, or 256).

Each product is photographed from five sides, C1 to C5 in the name of the file. As in its publishers' figures they are
one category; a method that learns a Gaussian per position sees all five there.
"""

from collections.abc import Iterator
from pathlib import Path

from pretrain.command import UserError
from pretrain.data.images import GOOD, SPLITS, Problem, Record
from pretrain.data.layouts.folders import named
from pretrain.reading import read_json

EXPECTED = "realiad_jsons/CATEGORY.json and realiad_1024/CATEGORY/OK/"
LISTS = "realiad_jsons"
IMAGES = ("realiad_1024", "realiad_512", "realiad_256", "realiad_raw", ".")


def categories(folder: Path) -> dict[str, Path]:
    """Lists that have a folder of images, the largest of those that are there."""
    for lists in (folder / LISTS / LISTS, folder / LISTS, folder):
        found = {path.stem: path for path in sorted(lists.glob("*.json")) if _images(folder, path.stem)}
        if found:
            return found
    return {}


def read(category: str, where: Path, normals_only: bool) -> Iterator[Record | Problem]:
    """The split is the list's; train there is good throughout."""
    folder = where.parent
    while folder.name == LISTS:
        folder = folder.parent
    images = _images(folder, category)
    try:
        listed = read_json(where)
        good = listed["meta"]["normal_class"]
        entries = [
            (split, str(entry["anomaly_class"]), str(entry["image_path"]), entry.get("mask_path"))
            for split in SPLITS
            for entry in listed.get(split, ())
        ]
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise UserError(f"{where} is no list of Real-IAD's ({error}): fetch it again.") from None
    for split, label, name, mask_name in entries:
        defect = GOOD if label == good else label
        if normals_only and (split, defect) != ("train", GOOD):
            continue
        path = named(images, name, where)
        mask = named(images, str(mask_name), where) if mask_name and defect != GOOD else None
        if isinstance(mask, Problem):
            yield mask._replace(is_untested=False)
            mask = None
        is_gone = isinstance(path, Problem)
        yield path._replace(is_untested=split == "test") if is_gone else Record(path, category, split, defect, mask)


def _images(folder: Path, category: str) -> Path | None:
    """Where a category's images lie."""
    return next((folder / part / category for part in IMAGES if (folder / part / category / "OK").is_dir()), None)
