"""VisA: CATEGORY/Data/Images/{Normal,Anomaly}, masks in CATEGORY/Data/Masks/Anomaly.

split_csv/1cls.csv beside the categories says what is train and what is test; CATEGORY/image_anno.csv names the defects.
Either may be missing: without the first, the last fifth of the good images is tested on, as in a table; without the
second, every defect is called `anomaly`.
"""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from pretrain.command import UserError
from pretrain.data.images import GOOD, SPLITS, Problem, Record
from pretrain.data.layouts.folders import has_any, holders, images_in, later_fifth, named
from pretrain.data.layouts.table import rows

EXPECTED = "CATEGORY/Data/Images/Normal/NAME.JPG"
IMAGES, MASKS, SPLIT = "Data/Images", "Data/Masks/Anomaly", "split_csv/1cls.csv"
ANNOTATIONS = "image_anno.csv"
GOOD_IMAGES, DEFECTIVE_IMAGES = f"{IMAGES}/Normal", f"{IMAGES}/Anomaly"


def categories(folder: Path) -> dict[str, Path]:
    """Folders with Data/Images/Normal or Anomaly."""
    return holders(folder, lambda inner: has_any(inner, GOOD_IMAGES, DEFECTIVE_IMAGES))


def read(category: str, where: Path, normals_only: bool) -> Iterator[Record | Problem]:
    """train/good is what the split calls train, of what lies in Normal."""
    split_csv = where.resolve().parent / SPLIT
    listed = [row for row in _rows_if_there(split_csv, "object", "split", "image") if row["object"] == category]
    # Both lists name images from where the categories lie.
    splits = {row["image"].removeprefix(f"{category}/"): row["split"].lower() for row in listed}
    annotated = _rows_if_there(where / ANNOTATIONS, "image", "label")
    kinds = {row["image"]: row["label"] for row in annotated}
    masks = {} if normals_only else {path.stem: path for path in images_in(where / MASKS)}
    good = images_in(where / GOOD_IMAGES)
    tested = later_fifth(good)
    for path in good + ([] if normals_only else images_in(where / DEFECTIVE_IMAGES)):
        name = path.relative_to(where).as_posix()
        is_good = name.startswith(GOOD_IMAGES)
        # Of several defects in one image; commas separate names everywhere else.
        defect = GOOD if is_good else kinds.get(f"{category}/{name}", "anomaly").replace(",", "+")
        rule = "train" if is_good and path not in tested else "test"
        split = splits.pop(name, "") if listed else rule
        mask = None if is_good else masks.pop(path.stem, None)
        is_known = split in SPLITS
        yield Record(path, category, split, defect, mask) if is_known else Problem(path, f"is in no split of {SPLIT}")
    yield from (Problem(mask, "a mask without its image", False) for mask in masks.values())
    for name, split in splits.items():
        if not normals_only or (split == "train" and name.startswith(GOOD_IMAGES)):
            found = named(where, name, split_csv)
            problem = found if isinstance(found, Problem) else Problem(found, f"is in {SPLIT}, but not in {IMAGES}")
            yield problem._replace(is_untested=split == "test")
    if not normals_only:
        yield from _gone(category, where, annotated, splits)


def _gone(category: str, where: Path, annotated: Iterable[dict[str, str]], known: Collection[str]) -> Iterator[Problem]:
    """Images and masks that annotations name and that are not there; but those that are `known` to be gone."""
    for name in dict.fromkeys(row[column] for row in annotated for column in ("image", "mask") if row.get(column)):
        try:
            found = named(where, name.removeprefix(f"{category}/"), where / ANNOTATIONS)
        except UserError as error:  # a path that leads elsewhere
            found = Problem(where / ANNOTATIONS, str(error))
        if isinstance(found, Problem) and name.removeprefix(f"{category}/") not in known:
            yield found._replace(is_untested=False)  # what the splits do not name would not be tested


def _rows_if_there(path: Path, *columns: str) -> tuple[dict[str, str], ...]:
    return rows(path, columns) if path.is_file() else ()
