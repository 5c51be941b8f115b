"""An image folder -> records: what each image is, what does not fit, and who gets which.

The layout is MVTec AD's: CATEGORY/train/good, CATEGORY/test/{good,DEFECT}, CATEGORY/ground_truth/DEFECT/NAME_mask.png.
Masks, test images and defects may be missing; a folder that is itself one category will do. Where labels are not
needed, any folder will do (`scan_plain`). Nothing is opened here, and nothing on disk is ever changed.
"""

import os
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from pretrain.command import UserError, nearest

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
GOOD = "good"
UNLABELED = ""
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Record:
    """One image on disk: `split` is 'train' or 'test', `defect` is 'good' or the name of what is wrong with it; both
    are UNLABELED in a plain folder."""

    path: Path
    category: str
    split: str
    defect: str
    mask: Path | None = None

    @property
    def is_anomaly(self) -> bool:
        return self.defect not in (GOOD, UNLABELED)


class Problem(NamedTuple):
    """A file that cannot be used as it is, and why."""

    path: Path
    reason: str


class Scan(NamedTuple):
    """What a folder holds, in an order that depends on names alone."""

    folder: Path
    records: tuple[Record, ...]
    problems: tuple[Problem, ...]


def scan(folder: Path, categories: Collection[str] = (), normals_only: bool = False) -> Scan:
    """List the images of `categories` (default: of all), or of their train/good alone. Raises UserError where there is
    nothing to list."""
    folders = category_folders(folder)
    check_names(categories, folders, f"category in {folder}")
    records: list[Record] = []
    problems: list[Problem] = []
    for category in sorted(categories or folders):
        masks = {} if normals_only else _masks_by_defect(folders[category] / "ground_truth", problems)
        for split in SPLITS[:1] if normals_only else SPLITS:
            for defect_folder in _subfolders(folders[category] / split):
                defect = defect_folder.name
                if normals_only and defect != GOOD:
                    continue
                of_defect = masks.get(defect, {}) if split == "test" and defect != GOOD else {}
                for path in _images(defect_folder):
                    records.append(Record(path, category, split, defect, of_defect.get(path.stem)))
            problems += [
                Problem(path, f"lies in {split}/ itself; move it into {split}/{GOOD}/ or {split}/DEFECT/")
                for path in _images(folders[category] / split)
            ]
        used = {record.mask for record in records}
        for defect, of_defect in masks.items():
            reason = "a mask of a good image" if defect == GOOD else "a mask without its image"
            problems += [Problem(mask, reason) for mask in of_defect.values() if mask not in used]
    if not records:
        raise UserError(f"no images in {folder}; expected them as CATEGORY/train/good/NAME.png.")
    return Scan(folder, tuple(records), tuple(problems))


def scan_plain(folder: Path, categories: Collection[str] = ()) -> Scan:
    """List all images at any depth of a folder that is not laid out by category and split. What lies in the folder
    itself is of a category named like it, the rest of one named like its subfolder. Raises UserError like `scan`."""
    if not folder.is_dir():
        category_folders(folder)  # says what is wrong
    records = []
    for parent, inner, _ in os.walk(folder):
        # In place, as os.walk has it: hidden folders, such as .git, are not entered.
        inner[:] = [name for name in inner if not name.startswith(".")]
        name = Path(parent).relative_to(folder).as_posix()
        category = folder.resolve().name if name == "." else name
        records += [Record(path, category, UNLABELED, UNLABELED) for path in _images(Path(parent))]
    check_names(categories, {record.category for record in records}, f"subfolder with images in {folder}")
    records = sorted(
        (record for record in records if not categories or record.category in categories),
        key=lambda record: record.path,
    )
    if not records:
        raise UserError(f"no images in {folder} ({', '.join(sorted(SUFFIXES))}).")
    return Scan(folder, tuple(records), ())


def has_layout(folder: Path) -> bool:
    """Whether a folder is, or holds, categories with train/ or test/."""
    return any((parent / split).is_dir() for parent in (folder, *_subfolders(folder)) for split in SPLITS)


def category_folders(folder: Path) -> dict[str, Path]:
    """The categories of a folder by name. Raises UserError if there is no folder or none in it."""
    if folder.is_file():
        raise UserError(f"{folder} is a file; name the folder that holds the categories.")
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; name one with --data, or leave it out to use the demo data.")
    if any((folder / split).is_dir() for split in SPLITS):
        return {folder.resolve().name: folder}
    categories = {
        inner.name: inner for inner in _subfolders(folder) if any((inner / split).is_dir() for split in SPLITS)
    }
    if not categories:
        raise UserError(f"no category in {folder}; expected images as {folder}/CATEGORY/train/good/NAME.png.")
    return categories


def check_names(names: Iterable[str], allowed: Collection[str], what: str) -> None:
    """Raise UserError at the first of `names` that is not allowed, with the nearest one that is."""
    for name in names:
        if name not in allowed:
            raise UserError(f"there is no {what} named '{name}'; {nearest(name, allowed)}")


def same_content(keys: Sequence[Hashable]) -> list[list[int]]:
    """Groups of positions that hold equal keys (of images: their content), only groups of two and more."""
    groups = defaultdict(list)
    for position, key in enumerate(keys):
        groups[key].append(position)
    return [group for group in groups.values() if len(group) > 1]


def split_records(
    records: Sequence[Record],
    digests: Sequence[bytes],
    file_digests: Sequence[bytes],
    fractions: Mapping[str, float],
    seed: int,
) -> dict[str, list[int]]:
    """Positions of `records` by part, stratified by category and defect; `fractions` sum to 1.

    The split is a function of the files' content and the seed: not of names, order, cache size or decoder. Images
    with equal `digests`, which are the same pixel for pixel, fall into the same part.
    """
    copies = defaultdict(list)
    for position, digest in enumerate(digests):
        copies[digest].append(position)
    # By a keyed hash, not by a generator: an image more or less moves hardly any other into another part. Of copies in
    # several formats the lowest counts, whichever was listed first.
    order = {
        digest: min(blake2b(file_digests[position], key=str(seed).encode()).digest() for position in positions)
        for digest, positions in copies.items()
    }
    strata = defaultdict(list)
    for digest, positions in copies.items():
        # Copies under two labels belong to one stratum, the same in every order of files.
        first = min((records[position] for position in positions), key=lambda record: (record.category, record.defect))
        strata[first.category, first.defect].append(digest)
    parts: dict[str, list[int]] = {part: [] for part in fractions}
    for members in strata.values():
        members.sort(key=lambda digest: order[digest])
        size = sum(len(copies[digest]) for digest in members)
        done = 0
        for digest in members:
            parts[_part_at((done + 0.5) / size, fractions)] += copies[digest]
            done += len(copies[digest])
    return {part: sorted(positions) for part, positions in parts.items()}


def _part_at(share: float, fractions: Mapping[str, float]) -> str:
    """Which part an image belongs to that comes after the given share, 0 to 1, of its like."""
    end = 0.0
    for part, fraction in fractions.items():
        end += fraction
        if share < end:
            return part
    return part


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    """Image files directly in `folder`; hidden ones, such as macOS's `._NAME.png`, are none."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def _masks_by_defect(folder: Path, problems: list[Problem]) -> dict[str, dict[str, Path]]:
    """Masks by defect and by the stem of their image: NAME_mask.png, as MVTec has them, or NAME.png."""
    masks: dict[str, dict[str, Path]] = {}
    for defect_folder in _subfolders(folder):
        of_defect = masks.setdefault(defect_folder.name, {})
        for path in _images(defect_folder):
            known = of_defect.setdefault(path.stem.removesuffix("_mask"), path)
            if known != path:
                problems.append(Problem(path, f"a second mask of the image that {known.name} belongs to"))
    return masks
