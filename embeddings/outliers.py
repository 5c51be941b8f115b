"""The outliers of each category: defects among the good images, odd images, and images of another product.

    python embeddings/outliers.py --data FOLDER --category capsule --split train --sheet outliers.png

Images are ranked by their mean cosine distance to their nearest neighbors, as a ratio to the median of the category:
an image of ratio 3 lies three times as far from its neighbors as the usual one.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from embeddings.config import Outliers
    from pretrain.command import start

    start("embeddings.outliers:main", Outliers)

import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embeddings.config import Outliers
from embeddings.index import Index
from embeddings.open_vectors import open_vectors
from embeddings.vectors import Vectors
from pretrain.command import UserError
from pretrain.data.decode import Unreadable, decode, read_mask
from pretrain.data.images import Record
from pretrain.drawing import Thumbnail, contact_sheet, save_image
from pretrain.files import write_json

THUMBNAIL_PX = 128


class Outlier(NamedTuple):
    """An image and its distance from its neighbors, as a ratio to the median of its category."""

    record: Record
    ratio: float


def main(config: Outliers) -> None:
    """Print and draw the outliers of each category."""
    if min(config.show, config.num_neighbors) < 1:
        raise UserError("--show and --num-neighbors count images: give 1 or more.")
    vectors = open_vectors(config.vectors, config.data, config.encoder, config.update, config.device, config.layout)
    ranked = ranking(vectors, config.num_neighbors, config.category, config.split)
    print_table(ranked, config.show, vectors)
    if config.sheet:
        save_image(contact_sheet(rows_of(ranked, config.show), title(vectors)), config.sheet)
        print(f"contact sheet: {config.sheet}")
    if config.json:
        images = [
            {"path": str(record.path), "category": category, "defect": record.defect, "ratio": ratio}
            for category, outliers in ranked.items()
            for record, ratio in outliers
        ]
        write_json(config.json, images)
        print(f"JSON: {config.json}")


def ranking(
    vectors: Vectors, num_neighbors: int, categories: Sequence[str] = (), splits: Sequence[str] = ()
) -> dict[str, list[Outlier]]:
    """All images of each category that has more than one, the farthest from their neighbors first."""
    ranked = {}
    for category, positions in vectors.by_category(categories, splits).items():
        rows = vectors.of_images(positions)[:, 0]
        if len(rows) < 2:
            continue
        nearest = Index.build(rows).search(rows, min(num_neighbors + 1, len(rows)))
        is_other = nearest.ids != np.arange(len(rows))[:, None]
        # Among many copies an image may not find itself: then the last neighbor is one too many.
        is_other[is_other.all(axis=1), -1] = False
        distances = nearest.distances[is_other].reshape(len(rows), -1).mean(axis=1)  # (n, k) -> (n,)
        ratios = distances / (np.median(distances) or 1.0)
        order = np.argsort(-ratios, kind="stable")
        ranked[category] = [Outlier(vectors.records[positions[row]], float(ratios[row])) for row in order]
    if not ranked:
        raise UserError("no category has two images or more to compare: leave out --category or --split.")
    return ranked


def rows_of(ranked: dict[str, list[Outlier]], show: int) -> list[tuple[str, list[Thumbnail]]]:
    """Rows of a contact sheet, known defects outlined."""
    rows = []
    for category, outliers in ranked.items():
        thumbnails = []
        for record, ratio in outliers[:show]:
            try:
                mask = read_mask(record.mask, THUMBNAIL_PX) if record.mask else None
                pixels = decode(record.path, THUMBNAIL_PX).pixels
            except Unreadable as unreadable:
                print(f"left out {record.path}: {unreadable}", file=sys.stderr)
                continue
            thumbnails.append(Thumbnail(pixels, f"{ratio:.1f} {record.defect}", mask))
        rows.append((category, thumbnails))
    return rows


def title(vectors: Vectors) -> str:
    return f"outliers in {vectors.config['data_name']}"


def print_table(ranked: dict[str, list[Outlier]], show: int, vectors: Vectors) -> None:
    table = Table(title=escape(title(vectors)), title_justify="left")
    table.add_column("category")
    table.add_column("ratio", justify="right")
    for header in ("defect", "path"):
        table.add_column(header, overflow="fold")
    for category, outliers in ranked.items():
        for record, ratio in outliers[:show]:
            path = record.path.relative_to(vectors.data).as_posix()
            table.add_row(escape(category), f"{ratio:.2f}", escape(record.defect or "-"), escape(path))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
