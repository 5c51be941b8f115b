"""The images of an inspection: good ones to fit to, and those to inspect."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from pretrain.command import Names, UserError
from pretrain.data.arrays import channels_of, given, name_of, opened, size_of
from pretrain.data.cache import Entry
from pretrain.data.channels import PLAIN, Channels, ToFind, as_parts
from pretrain.data.dataset import ImageSet, check_size, layout_of, load, usual_size
from pretrain.data.decode_pool import pixel_digest
from pretrain.data.images import GOOD, SUFFIXES, LayoutName, Problem, Record, check_names
from pretrain.data.layouts import check_all_good, has_layout, scan, scan_plain
from pretrain.data.size import Asked

# In place of a folder.
IN_MEMORY = Path("images in memory")


def good_images(
    data: Path,
    category: str | None,
    size_px: Asked,
    keep_aspect: bool = False,
    layout: LayoutName | None = None,
    channels: Channels | ToFind = PLAIN,
) -> ImageSet:
    """The good images of one category: its train/good where there are categories, else all images of a plain folder. Of
    a size and channels as `load` has them. Raises UserError where the folders of a plain one are named as those of
    defects, masks or tests are: a data set lies there that was not found, as its parent was named."""
    if layout is None and data.is_dir() and not has_layout(data):
        check_all_good(data)
    images = images_of(data, category, size_px, keep_aspect, layout, normals_only=True, channels=channels)
    records = tuple(replace(record, split="train", defect=GOOD) for record in images.records)
    return replace(images, records=records)


def good_images_given(images: object, category: str, size_px: Asked, channels: ToFind) -> ImageSet:
    """Good images as Python has them: one or many, paths, arrays, tensors, Pillow's. They are held in memory, at the
    size that `load` would keep those of a folder at. Raises UserError for what is no image, and for none."""
    originals, _ = given(images)
    if not originals:
        raise UserError("no good images were given to fit to: give a folder, or a list of paths or of images.")
    if channels.lights and all(isinstance(image, str | Path) for image in originals):
        originals = [part.path for part in as_parts(Record(Path(image), "", "", "") for image in originals)]
    found = channels_of(originals, channels)
    size_px = usual_size(originals, size_px, size_of)
    check_size(size_px)
    pixels, entries = [], []
    for row, image in enumerate(opened(image, size_px, found) for image in originals):
        pixels.append(image.pixels)
        entries.append(Entry(row, image.height, image.width, pixel_digest(image.pixels), image.file_digest))
    names = (name_of(image, position) for position, image in enumerate(originals))
    records = tuple(Record(name, category, "train", GOOD) for name in names)
    return ImageSet(IN_MEMORY, size_px, records, tuple(entries), np.stack(pixels), channels=found)


def images_of(
    data: Path,
    category: str | None,
    size_px: Asked,
    keep_aspect: bool = False,
    layout: LayoutName | None = None,
    splits: Collection[str] = (),
    normals_only: bool = False,
    channels: Channels | ToFind = PLAIN,
) -> ImageSet:
    """The images of one category, of all splits or some, or its good training images alone; of a plain folder, all."""
    is_laid_out = has_layout(data, layout)
    categories = Names(category or "") if is_laid_out else Names()
    images = load(
        data, size_px, categories, normals_only=normals_only and is_laid_out, allow_plain=True, keep_aspect=keep_aspect,
        layout=layout, channels=channels,
    )  # fmt: skip
    if is_laid_out and len(images.categories) > 1:
        names = ", ".join(images.categories)
        raise UserError(f"{data} holds several categories: choose one with --category, of {names}.")
    if not is_laid_out:  # subfolders of a plain folder are no categories here
        category = category or data.resolve().name
        images = replace(images, records=tuple(replace(record, category=category) for record in images.records))
    check_names(splits, {record.split for record in images.records}, f"split with images in {data}")
    if splits:
        return images.subset([i for i, record in enumerate(images.records) if record.split in splits])
    return images


def records_to_inspect(
    paths: Iterable[Path],
    category: str,
    asked: LayoutName | None = None,
    metadata: Mapping[str, object] | None = None,
    channels: Channels = PLAIN,
) -> tuple[list[Record], list[Problem]]:
    """Records of the images named, of those in plain folders, and of the test images of laid out ones, by `layout_of`;
    and what in such a folder cannot be used. Of several categories it is `category` that counts; of several lights, one
    record is that of the part."""
    records: list[Record] = []
    problems: list[Problem] = []
    for path in paths:
        layout = layout_of(path, asked, metadata or {})
        if has_layout(path, layout):
            scanned = scan(path, layout=layout)
            names = {record.category for record in scanned.records}
            if len(names) > 1 and category in names:
                scanned = scan(path, [category], layout=layout)
            wanted = names if len(names) == 1 else {category}
            records += [record for record in scanned.records if record.split == "test" and record.category in wanted]
            problems += scanned.problems
        elif path.is_dir():
            scanned = scan_plain(path)
            records += scanned.records
            problems += scanned.problems
        elif path.is_file():
            records.append(Record(path, category, "", ""))
        else:
            raise UserError(f"there is no image and no folder {path}; name what is to be inspected.")
    if not records:
        raise UserError(f"no images to inspect: name images ({', '.join(sorted(SUFFIXES))}) or folders of them.")
    return as_parts(records) if channels.lights > 1 else records, problems
