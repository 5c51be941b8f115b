"""The images of an inspection: good ones to fit to, and those to inspect."""

from collections.abc import Iterable
from pathlib import Path

from pretrain.command import Names, UserError
from pretrain.data.dataset import ImageSet, load
from pretrain.data.images import GOOD, SUFFIXES, LayoutName, Record
from pretrain.data.layouts import has_layout, scan, scan_plain
from pretrain.data.size import Size


def good_images(
    data: Path, category: str | None, size_px: Size | None, keep_aspect: bool = False, layout: LayoutName | None = None
) -> ImageSet:
    """The good images of one category: its train/good where there are categories, else all images of a plain folder. Of
    a size as `load` has it."""
    is_laid_out = has_layout(data, layout)
    categories = Names(category or "") if is_laid_out else Names()
    images = load(
        data, size_px, categories, normals_only=is_laid_out, allow_plain=True, keep_aspect=keep_aspect, layout=layout
    )
    if is_laid_out and len(images.categories) > 1:
        names = ", ".join(images.categories)
        raise UserError(f"{data} holds several categories: choose one with --category, of {names}.")
    if not is_laid_out:  # subfolders of a plain folder are no categories here
        category = category or data.resolve().name
        records = tuple(Record(record.path, category, "train", GOOD) for record in images.records)
        images = ImageSet(images.folder, images.size_px, records, images.entries, images.pixels)
    return images


def records_to_inspect(paths: Iterable[Path], category: str, layout: LayoutName | None = None) -> list[Record]:
    """Records of the images named, of those in plain folders, and of the test images of laid out ones."""
    records: list[Record] = []
    for path in paths:
        if has_layout(path, layout):
            scanned = scan(path, layout=layout).records
            names = {record.category for record in scanned}
            wanted = names if len(names) == 1 else {category}
            records += [record for record in scanned if record.split == "test" and record.category in wanted]
        elif path.is_dir():
            records += scan_plain(path).records
        elif path.is_file():
            records.append(Record(path, category, "", ""))
        else:
            raise UserError(f"there is no image and no folder {path}; name what is to be inspected.")
    if not records:
        raise UserError(f"no images to inspect: name images ({', '.join(sorted(SUFFIXES))}) or folders of them.")
    return records
