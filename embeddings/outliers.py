"""The most outlying images of each category: wrong ones among the good, odd ones, and images of something else.

    python embeddings/outliers.py --data FOLDER --category capsule --split train --sheet outliers.png

How far an image lies out is the mean cosine distance to its nearest neighbors among the images looked at, beside
the median over its category: 3 is three times as far as a usual one.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from embeddings.outliers import Config, main
    from pretrain.command import run_command

    sys.exit(run_command(main, Config))

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pretrain.command import Names, UserError
from pretrain.data.images import Record
from pretrain.files import write_json

if TYPE_CHECKING:
    from embeddings.vectors import Vectors


@dataclass(frozen=True)
class Config:
    """Find the most outlying images of each category.

    Attributes:
        vectors: Vectors to compare, from embeddings/extract.py. Default is those of --data and --encoder.
        data: Folder of images. Default is data/mvtec where it exists, else demo data.
        encoder: Encoder file, or random. Default is runs/simclr/encoder.safetensors where it may be used, else random.
        category: Only these categories.
        split: Only images of train, or test.
        most: So many of each category.
        neighbors: The distance to so many nearest images counts; copies of an odd image hide it from fewer.
        update: First look for images that came, changed or went.
        sheet: Write them as a contact sheet to this PNG file.
        json: Write how far out every image lies to this file.
    """

    vectors: Path | None = None
    data: Path | None = None
    encoder: Path | None = None
    category: Names = Names()
    split: Names = Names()
    most: int = 8
    neighbors: int = 5
    update: bool = False
    sheet: Path | None = None
    json: Path | None = None


class Outlier(NamedTuple):
    """An image and how far out it lies, in units of the median of its category."""

    record: Record
    ratio: float


def main(config: Config) -> None:
    """Print and draw the outliers of each category."""
    from embeddings.open_vectors import ready_vectors

    if min(config.most, config.neighbors) < 1:
        raise UserError("--most and --neighbors count images: give 1 or more.")
    vectors = ready_vectors(config.vectors, config.data, config.encoder, config.update)
    ranked = ranking(vectors, config.neighbors, config.category, config.split)
    print_table(ranked, config.most, vectors)
    if config.sheet:
        from pretrain.drawing import contact_sheet, save_image

        save_image(contact_sheet(rows_of(ranked, config.most), title(vectors)), config.sheet)
        print(f"contact sheet: {config.sheet}")
    if config.json:
        everything = [
            {"path": str(record.path), "category": category, "defect": record.defect, "of_usual": ratio}
            for category, outliers in ranked.items()
            for record, ratio in outliers
        ]
        write_json(config.json, everything)
        print(f"JSON: {config.json}")


def ranking(
    vectors: "Vectors", neighbors: int, categories: Sequence[str] = (), splits: Sequence[str] = ()
) -> dict[str, list[Outlier]]:
    """All images of each category that has more than one, the most outlying first."""
    import numpy as np

    from embeddings.index.index import Index

    of_category: dict[str, list[int]] = {}
    for position in vectors.where(categories, splits):
        of_category.setdefault(vectors.records[position].category, []).append(int(position))
    ranked = {}
    for category, positions in of_category.items():
        rows = vectors.of_images(positions)[:, 0]
        if len(rows) < 2:
            continue
        found = Index.build(rows).search(rows, min(neighbors + 1, len(rows)))
        others = found.ids != np.arange(len(rows))[:, None]
        # Among many copies an image may not find itself: then the last one is too many.
        others[others.all(axis=1), -1] = False
        far = found.distances[others].reshape(len(rows), -1).mean(axis=1)
        ratios = far / (np.median(far) or 1.0)
        order = np.argsort(-ratios, kind="stable")
        ranked[category] = [Outlier(vectors.records[positions[place]], float(ratios[place])) for place in order]
    if not ranked:
        raise UserError("no category has two images or more to compare: leave out --category or --split.")
    return ranked


def rows_of(ranked: dict[str, list[Outlier]], most: int) -> list[tuple[str, list]]:
    """Rows of a contact sheet, defects outlined where they are known."""
    from pretrain.data.decode import Unreadable, decode, read_mask
    from pretrain.drawing import Thumbnail

    rows = []
    for category, outliers in ranked.items():
        thumbnails = []
        for record, ratio in outliers[:most]:
            try:
                mask = read_mask(record.mask, 128) if record.mask else None
                thumbnails.append(Thumbnail(decode(record.path, 128).pixels, f"{ratio:.1f} {record.defect}", mask))
            except Unreadable as unreadable:
                print(f"left out {record.path}: {unreadable}", file=sys.stderr)
        rows.append((category, thumbnails))
    return rows


def title(vectors: "Vectors") -> str:
    return f"most outlying in {vectors.config['data_name']}"


def print_table(ranked: dict[str, list[Outlier]], most: int, vectors: "Vectors") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title(vectors)), title_justify="left")
    table.add_column("category")
    table.add_column("of usual", justify="right")
    for header in ("defect", "path"):
        table.add_column(header, overflow="fold")
    for category, outliers in ranked.items():
        for record, ratio in outliers[:most]:
            path = record.path.relative_to(vectors.data).as_posix()
            table.add_row(escape(category), f"{ratio:.2f}", escape(record.defect or "-"), escape(path))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
