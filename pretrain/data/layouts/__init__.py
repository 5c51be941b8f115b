"""An image folder -> records, whatever data set it is laid out like.

A layout is a module of two functions. `categories(folder)` says where each category lies: nothing, where the folder is
laid out otherwise. `read(category, where, normals_only)` gives a Record for every image and a Problem for whatever is
half there. No image is opened, masks only where they alone say what is good, and nothing on disk is ever changed.
"""

from collections import defaultdict
from collections.abc import Collection
from contextlib import suppress
from importlib import import_module
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import get_args

from pretrain.command import UserError
from pretrain.data.images import GOOD, SUFFIXES, LayoutName, Problem, Record, Scan, check_names
from pretrain.data.layouts import plain, table
from pretrain.data.layouts.folders import GOOD_WORDS
from pretrain.reading import real_path

SAME_AS = {"mpdd": "mvtec"}
LAYOUTS: dict[LayoutName, ModuleType] = {
    name: import_module(f"{__name__}.{SAME_AS.get(name, name)}") for name in get_args(LayoutName)
}
# Of a data set's root above a folder of its images: Real-IAD has realiad_1024/CATEGORY/NG/AK/S0001.
LEVELS_ABOVE = 5
# Of folders, in lower case, among which is more than images to learn from.
OF_DATA_SETS = {
    "train",
    "test",
    "validation",
    "ground_truth",
    "masks",
    "label",
    "anomaly",
    "defective",
    "bad",
    "ng",
    "ko",
}


def scan(
    folder: Path, categories: Collection[str] = (), normals_only: bool = False, layout: LayoutName | None = None
) -> Scan:
    """List the images of `categories` (default: of all), or of their train/good alone, in an order that depends on
    names alone. Raises UserError where there is nothing to list."""
    name, found = _found(folder, layout)
    check_names(categories, found, f"category in {folder}")
    records: list[Record] = []
    problems: list[Problem] = []
    for category in sorted(categories or found):
        for item in LAYOUTS[name].read(category, found[category], normals_only):
            if isinstance(item, Problem):
                problems.append(item)
            # What was not asked for is never opened, whatever a reader lists.
            elif not normals_only or (item.split, item.defect) == ("train", GOOD):
                problem = _misnamed(item)
                problems.append(problem) if problem else records.append(item)
    if not records:
        first = f" ({problems[0].path.relative_to(folder)} {problems[0].reason})" if problems else ""
        raise UserError(f"no images in {folder}; expected them as {LAYOUTS[name].EXPECTED}{first}.")
    return Scan(folder, tuple(records), tuple(problems))


def scan_plain(folder: Path, categories: Collection[str] = ()) -> Scan:
    """List all images at any depth of a folder that is not laid out by category and split. What lies in the folder
    itself is of a category named like it, the rest of one named like its subfolder. Raises UserError like `scan`."""
    _check_folder(folder)
    found = plain.categories(folder)
    check_names(categories, found, f"subfolder with images in {folder}")
    listed = [record for name in categories or found for record in plain.read(name, found[name], normals_only=False)]
    problems = [problem for record in listed if (problem := _misnamed(record))]
    records = [record for record in listed if not _misnamed(record)]
    if not records:
        raise UserError(f"no images in {folder} ({', '.join(sorted(SUFFIXES))}).")
    return Scan(folder, tuple(sorted(records, key=lambda record: record.path)), tuple(problems))


def has_layout(folder: Path, layout: LayoutName | None = None) -> bool:
    """Whether a folder is laid out by category and split. Raises UserError where the user says how and it is not: it
    would be taken as a plain one, whose images are all good."""
    if layout == "plain" or not folder.is_dir():
        return False
    return bool((_found if layout else _detected)(folder, layout)[1])


def layout_to_learn_from(folder: Path, asked: LayoutName | None) -> LayoutName | None:
    """What was asked for; else `plain` where images lie that no layout knows. Not where folders are named as splits and
    masks are, or any image is kept for testing: a data set lies there that was not found, as its parent was named."""
    if asked or not folder.is_dir() or has_layout(folder):
        return asked
    places = _places(folder)
    found = [folder, *(folder.joinpath(*parts) for parts in places)]
    is_data_set = bool(_others_than_good(folder, places)) or any(map(kept_for_testing, found))
    return None if is_data_set or not places else "plain"


def check_all_good(folder: Path) -> None:
    """Raise UserError for a folder that no layout knows, and in which are images that are not to be learned from."""
    places = _places(folder)
    odd, below = _others_than_good(folder, places), _data_set_below(folder, places)
    if odd or below:
        meant = f"did you mean --data {below}? Else name" if below else "name"
        raise UserError(
            f"{folder} is laid out as no data set, so all of its images would be good ones, those in "
            f"{odd or below.name} too: {meant} a folder of good images alone, or give --layout plain if all are."
        )


def _others_than_good(folder: Path, places: Collection[tuple[str, ...]]) -> str | None:
    """The name of a place in which are images that are not to be learned from: named as tests, masks and defects are,
    or beside one that is named as good images are."""
    named = sorted(name for parts in places for name in parts if name.lower() in OF_DATA_SETS)
    children = defaultdict(set)
    for parts in places:
        for depth, name in enumerate(parts):
            children[parts[:depth]].add(name)
    for above, names in sorted(children.items()):
        others = {name for name in names if name.lower() not in GOOD_WORDS}
        if len(others) < len(names):
            named += sorted(others) or [(above or [folder.name])[-1]] * (above in places)
    return next(iter(named), None)


def _data_set_below(folder: Path, places: Collection[tuple[str, ...]]) -> Path | None:
    """The first laid out folder in another one that has images below, or in one of those."""
    above = {parts[:depth] for parts in places for depth in (1, 2) if depth < len(parts)}
    for parts in sorted(above, key=lambda parts: (len(parts), parts)):
        with suppress(UserError, OSError):  # what is below need not be a data set at all
            if has_layout(folder.joinpath(*parts)):
                return folder.joinpath(*parts)
    return None


def _places(folder: Path) -> set[tuple[str, ...]]:
    """Where images lie below a folder."""
    return {where.relative_to(folder).parts for where in plain.categories(folder).values()}


def category_folders(folder: Path, layout: LayoutName | None = None) -> dict[str, Path]:
    """The categories of a folder by name, and where each lies. Raises UserError if there is no folder or none in it."""
    return _found(folder, layout)[1]


def kept_for_testing(folder: Path) -> set[Path]:
    """The images in a folder that its own layout, or that of one above it, tests on, as resolved paths: somebody may
    name test/good or Data/Images/Anomaly, which is a plain folder by itself."""
    tested, here = set(), folder.resolve()
    for above in [here, *here.parents][: LEVELS_ABOVE + 1]:
        with suppress(UserError, OSError):  # what is above need not be a data set at all
            name, categories = _detected(above, None)
            for category, where in categories.items():
                if where.is_dir() and not (here.is_relative_to(where) or where.is_relative_to(here)):
                    continue  # another data set, or another category
                items = LAYOUTS[name].read(category, where, False)
                tested |= {real_path(item.path) for item in items if isinstance(item, Record) and item.split == "test"}
    return {path for path in tested if path.is_relative_to(here)}


def _found(folder: Path, layout: LayoutName | None) -> tuple[LayoutName, dict[str, Path]]:
    _check_folder(folder)
    name, categories = _detected(folder, layout)
    if not categories:
        others = "" if layout else ", or in another layout of docs/data.md"
        raise UserError(f"no category in {folder}; expected images as {folder}/{LAYOUTS[name].EXPECTED}{others}.")
    return name, categories


def _detected(folder: Path, layout: LayoutName | None) -> tuple[LayoutName, dict[str, Path]]:
    """The layout that a folder has, by what lies there, and its categories; MVTec AD's and none where it has none.

    It is the one that finds most: by the first that finds any, one odd category would hide all others. A table counts
    where there is nothing else, whatever it lists.
    """
    if layout:
        return layout, LAYOUTS[layout].categories(folder)
    found = {name: reader.categories(folder) for name, reader in LAYOUTS.items() if reader not in (table, plain)}
    name = max(found, key=lambda name: len(found[name]))  # the first of equals
    if not found[name] and (listed := table.categories(folder)):
        return "table", listed
    return (name, found[name]) if found[name] else ("mvtec", {})


def _misnamed(record: Record) -> Problem | None:
    """Of a category or a defect by which no folder can be named safely: tables and lists say anything."""
    for what, name, forbidden in (("category", record.category, "\\\0"), ("defect", record.defect, "\\\0/")):
        if record.split:  # commas separate names that are typed; nobody types those of a plain folder
            forbidden += ","
        parts = PurePosixPath(name).parts
        is_empty = not parts and (name or what == "category")
        if is_empty or name.startswith("/") or ".." in parts or any(letter in name for letter in forbidden):
            reason = f"is of the {what} {name!r}, by which no folder can be named: name it otherwise"
            return Problem(record.path, reason, record.split != "train")
    return None


def _check_folder(folder: Path) -> None:
    if folder.is_file():
        raise UserError(f"{folder} is a file; name the folder that holds the categories.")
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; name one with --data, or leave it out to use the demo data.")
