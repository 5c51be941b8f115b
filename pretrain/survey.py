"""What an image folder holds and what is wrong with it, before anything is computed on it.

python pretrain/survey.py                                    the demo data
python pretrain/survey.py --data FOLDER --sheet sheet.png    a folder of your own, with an image of each kind
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from pretrain.command import start
    from pretrain.config import Survey

    start("pretrain.survey:main", Survey)

import json
import sys
from collections import Counter, defaultdict
from itertools import zip_longest
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pretrain.config import Survey
from pretrain.data.cache import store_folder
from pretrain.data.dataset import ImageSet, choose_folder, data_name, load
from pretrain.data.decode import read_mask
from pretrain.data.images import GOOD, SPLITS
from pretrain.drawing import Thumbnail, contact_sheet, save_image
from pretrain.files import write_whole


def main(config: Survey) -> None:
    """Report on a folder; nothing in it is altered."""
    folder = choose_folder(config.data)
    images = load(
        folder,
        config.size_px,
        config.categories,
        strict=config.strict,
        workers=config.workers,
        check_cache=True,
        layout=config.layout,
    )
    warnings = warnings_about(images)
    print_table(images, data_name(folder))
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    megabytes = len(images) * config.size_px**2 * 3 / 1e6
    print(f"cached: {megabytes:.0f} MB of {config.size_px} px squares in {store_folder(folder, config.size_px)}")
    if config.sheet:
        save_image(contact_sheet(sheet_rows(images), data_name(folder)), config.sheet)
        print(f"contact sheet: {config.sheet}")
    if config.json:
        text = json.dumps(as_json(images, data_name(folder), warnings), indent=2) + "\n"
        write_whole(config.json, text.encode())
        print(f"report: {config.json}")


def warnings_about(images: ImageSet) -> list[str]:
    """What a careful reader would want to know before believing a figure computed on these images."""
    lines = []
    for group in images.copies():
        if len({record.is_anomaly for record in group}) > 1:
            what = "called both good and defective"
        elif len({record.split for record in group}) > 1:
            what = "in train and in test"
        else:
            what = f"{len(group)} times"
        names = ", ".join(str(record.path.relative_to(images.folder)) for record in group)
        lines.append(f"the same image {what}: {names}")
    for category in images.categories:
        records = images.of(category).records
        defective = [record for record in records if record.split == "test" and record.is_anomaly]
        without_mask = sum(record.mask is None for record in defective)
        if 0 < without_mask < len(defective):
            lines.append(f"{category}: {without_mask} of {len(defective)} defective test images have no mask")
        if not any(record.split == "train" and not record.is_anomaly for record in records):
            lines.append(f"{category}: no image in train/{GOOD}, so nothing can be learned of what is normal")
    return lines


def print_table(images: ImageSet, name: str) -> None:
    """One line a category: how many normals to learn from, how many test images with which defects."""
    table = Table(title=escape(f"{name}: {len(images)} images"))
    table.add_column("\ncategory", no_wrap=True)
    for header in ("train\ngood", "test\ngood", "\ndefective", "\nmasks"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("\nsize px", no_wrap=True)
    table.add_column("\ntypes of defect")
    for category in images.categories:
        of_category = images.of(category)
        counted = Counter((record.split, record.defect) for record in of_category.records)
        defects = Counter(record.defect for record in of_category.records if record.is_anomaly)
        table.add_row(
            escape(category),
            str(counted["train", GOOD]),
            str(counted["test", GOOD]),
            str(sum(defects.values())),
            str(sum(record.mask is not None for record in of_category.records)),
            _shapes(of_category),
            escape(", ".join(f"{defect} {count}" for defect, count in sorted(defects.items()))),
        )
    # Where output is piped, rich would fold the table at 80 columns.
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def sheet_rows(images: ImageSet, columns: int = 9) -> list[tuple[str, list[Thumbnail]]]:
    """A row for each category: three good images, then at least one of every type of defect, outlined."""
    rows = []
    for category in images.categories:
        of_category = images.of(category)
        by_defect = defaultdict(list)
        for position, record in enumerate(of_category.records):
            by_defect[record.defect].append(position)
        chosen = by_defect.pop(GOOD, [])[:3]
        # A row shows every defect once before it shows any of them twice.
        in_turn = [position for turn in zip_longest(*by_defect.values()) for position in turn if position is not None]
        chosen += sorted(in_turn[: max(columns - len(chosen), len(by_defect))])
        thumbnails = []
        for pixels, position in zip(of_category.batch(chosen), chosen, strict=True):
            record = of_category.records[position]
            mask = read_mask(record.mask, images.size_px) if record.mask else None
            thumbnails.append(Thumbnail(pixels, record.defect, mask))
        rows.append((category, thumbnails))
    return rows


def as_json(images: ImageSet, name: str, warnings: list[str]) -> dict:
    """The same report for machines: counts by category, split and defect; problems; warnings."""
    counts: dict = {category: {split: {} for split in SPLITS} for category in images.categories}
    for record in images.records:
        counted = counts[record.category].setdefault(record.split, {})
        counted[record.defect] = counted.get(record.defect, 0) + 1
    return {
        "data": name,
        "images": counts,
        "problems": [{"path": str(problem.path), "reason": problem.reason} for problem in images.problems],
        "warnings": warnings,
    }


def _shapes(images: ImageSet) -> str:
    """Width x height on disk: the one they share, or the smallest and the largest."""
    shapes = sorted({(entry.width, entry.height) for entry in images.entries})
    return " to ".join(f"{width}x{height}" for width, height in dict.fromkeys((shapes[0], shapes[-1])))
