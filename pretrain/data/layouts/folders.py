"""What several layouts share: folders that are categories, folders whose names are labels, names that tables give."""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath

from pretrain.command import UserError
from pretrain.data.images import GOOD, SUFFIXES, Problem, Record
from pretrain.reading import is_folder

# What data sets and people call an image without a defect; as a number only where nothing else can be meant.
GOOD_WORDS = frozenset({"good", "ok", "normal"})
GOOD_NAMES = GOOD_WORDS | {"0", "0.0", "false"}


def subfolders(folder: Path) -> list[Path]:
    """Those that are not hidden, by name."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:  # says of each entry what it is: a tenth of asking every file
        return sorted(folder / entry.name for entry in entries if is_folder(entry) and not entry.name.startswith("."))


def images_in(folder: Path) -> list[Path]:
    """Image files directly in `folder`; hidden ones, such as macOS's `._NAME.png`, are none."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def holders(folder: Path, is_category: Callable[[Path], bool]) -> dict[str, Path]:
    """The folder itself by its name, where it is a category, else those of its subfolders that are."""
    if is_category(folder):
        return {folder.resolve().name: folder}
    return {inner.name: inner for inner in subfolders(folder) if is_category(inner)}


def has_any(folder: Path, *names: str) -> bool:
    """Whether one of the names is a folder in `folder`."""
    return any((folder / name).is_dir() for name in names)


def labeled_tree(
    where: Path,
    category: str,
    normals_only: bool,
    train: Sequence[str] = ("train",),
    test: str = "test",
    truth: str = "ground_truth",
) -> Iterator[Record | Problem]:
    """Images in folders named by their label, below folders named by their split, masks likewise below `truth`. Those
    in ok/ are good whatever the layout: of categories that differ, all are read as most of them are."""
    masks: dict[str, dict[str, Path]] = {}
    if not normals_only:
        masks, second_masks = _masks_by_defect(where / truth)
        yield from second_masks
    used = set()
    for split, parts in (("train", train), ("test", () if normals_only else (test,))):
        for part in parts:
            for labeled in subfolders(where / part):
                defect = _defect_of(labeled)
                if labeled == where / truth or (normals_only and defect != GOOD):
                    continue
                of_defect = masks.get(defect, {}) if split == "test" and defect != GOOD else {}
                for path in images_in(labeled):
                    mask = of_defect.get(path.stem)
                    used.add(mask)
                    yield Record(path, category, split, defect, mask)
            for path in images_in(where / part):
                reason = f"lies in {part}/ itself; move it into {part}/{GOOD}/ or {part}/DEFECT/"
                yield Problem(path, reason, split == "test")
    for defect, of_defect in masks.items():
        reason = "a mask of a good image" if defect == GOOD else "a mask without its image"
        yield from (Problem(mask, reason, False) for mask in of_defect.values() if mask not in used)


def _masks_by_defect(folder: Path) -> tuple[dict[str, dict[str, Path]], list[Problem]]:
    """Masks by defect and by the stem of their image: NAME_mask.png, as MVTec AD has them, NAME.png, or a folder NAME
    of several, as MVTec LOCO has them."""
    masks: dict[str, dict[str, Path]] = {}
    problems = []
    for defect_folder in subfolders(folder):
        of_defect = masks.setdefault(_defect_of(defect_folder), {})
        stems = {path: path.stem for path in images_in(defect_folder)}
        stems |= {path: path.name for path in subfolders(defect_folder)}
        for path, stem in stems.items():
            known = of_defect.setdefault(stem.removesuffix("_mask"), path)
            if known != path:
                problems.append(Problem(path, f"a second mask of the image that {known.name} belongs to", False))
    return masks, problems


def _defect_of(folder: Path) -> str:
    return GOOD if folder.name.lower() in GOOD_WORDS else folder.name


def named(folder: Path, name: str, by: Path) -> Path | Problem:
    """The file that a table or a list names, relative to `folder`. Raises UserError for one that lies outside: its
    image could neither be cached nor be shown."""
    relative = PurePosixPath(name.strip().replace("\\", "/"))  # tables are made on Windows too
    if relative.is_absolute() or ".." in relative.parts:
        raise UserError(f"{by} names {name!r}, which is no path below {folder}: name images relative to it.")
    path = folder / relative
    return path if path.is_file() else Problem(path, f"is named in {by.name}, but is not there")


def later_fifth(paths: Collection[Path]) -> set[Path]:
    """Of good images of which nobody says what to test on: the last fifth by name, 0 of fewer than five.

    Names often count up with time. By chance, of a belt's neighboring pictures one would be learned from and the other
    be tested on.
    """
    return set(sorted(paths)[len(paths) - len(paths) // 5 :])
