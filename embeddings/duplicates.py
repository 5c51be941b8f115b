"""Duplicates and near duplicates: images that leak from train to test, and images labeled in two ways.

    python embeddings/duplicates.py --data FOLDER
    python embeddings/duplicates.py --data FOLDER --sheet pairs.html --strict    # exit code 2 if anything leaks

Two images are near duplicates if their distance is a small fraction of the usual distance between neighbors in their
category, so one limit suits every encoder and every product. Copies are images whose decoded pixels are equal.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from embeddings.config import Duplicates
    from pretrain.command import start

    start("embeddings.duplicates:main", Duplicates)

import sys
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embeddings.config import Duplicates
from embeddings.index import Index
from embeddings.open_vectors import open_vectors
from embeddings.sheet import Neighbor, SearchResult, neighbor_page
from embeddings.vectors import Vectors
from pretrain.command import UserError
from pretrain.data.images import UNLABELED, Record
from pretrain.files import write_json, write_whole

NEIGHBORS = 10
COPY, SPLITS, LABELS = "copy", "train and test", "good and defective"


class Pair(NamedTuple):
    """Two images of a category, their cosine distance, and its ratio to the usual distance between neighbors there."""

    first: Record
    second: Record
    distance: float
    ratio: float
    is_copy: bool

    @property
    def issue(self) -> str:
        """What makes the pair harmful: it leaks, or its labels contradict each other."""
        issues = [COPY] if self.is_copy else []
        if UNLABELED not in (self.first.split, self.second.split) and self.first.split != self.second.split:
            issues.append(SPLITS)
        if self.first.is_anomaly != self.second.is_anomaly:
            issues.append(LABELS)
        return ", ".join(issues) or f"within {self.first.split or 'the folder'}"


def main(config: Duplicates) -> int:
    """Print the pairs. Returns 2 with --strict where a pair lies across train and test."""
    if not 0 < config.closer_than < 1:
        raise UserError(
            f"--closer-than {config.closer_than} is no fraction of a distance: give more than 0, less than 1."
        )
    vectors = open_vectors(config.vectors, config.data, config.encoder, config.update, config.device, config.layout)
    pairs = near_pairs(vectors, config.closer_than, config.category)
    print_pairs(pairs[: config.show], vectors)
    counts = Counter(issue for pair in pairs for issue in pair.issue.split(", "))
    print(f"{len(pairs)} near pairs" + "".join(f", {count} {issue}" for issue, count in counts.most_common()))
    if config.sheet:
        results = [SearchResult(pair.first.path, [Neighbor(pair.second, 0, pair.distance)]) for pair in pairs]
        title = f"near pairs in {vectors.config['data_name']}"
        note = f"closer than {config.closer_than} of the usual distance between neighbors"
        write_whole(config.sheet, neighbor_page(results, vectors.data, title, note).encode())
        print(f"contact sheet: {config.sheet}")
    if config.json:
        write_json(config.json, [as_json(pair) for pair in pairs])
        print(f"JSON: {config.json}")
    return 2 if config.strict and counts[SPLITS] else 0


def near_pairs(vectors: Vectors, closer_than: float, categories: Sequence[str] = ()) -> list[Pair]:
    """Pairs within each category, copies first, then the nearest. Each image is compared with its ten nearest."""
    digests, pairs = vectors.digests, []
    for positions in vectors.by_category(categories).values():
        if len(positions) < 2:
            continue
        rows = vectors.of_images(positions)[:, 0]
        nearest = Index.build(rows).search(rows, min(NEIGHBORS + 1, len(rows)))
        is_other = nearest.ids != np.arange(len(rows))[:, None]
        # Of each image the nearest other one; itself is at distance 0.
        usual = float(np.median(np.where(is_other, nearest.distances, np.inf).min(axis=1)))
        for row, distances, ids in zip(range(len(rows)), nearest.distances, nearest.ids, strict=True):
            for distance, neighbor in zip(distances, ids, strict=True):
                first, second = positions[row], positions[int(neighbor)]
                is_copy = digests[first] == digests[second]
                if row < neighbor and (is_copy or distance < closer_than * usual):
                    ratio = float(distance) / usual if usual else 0.0
                    records = vectors.records[first], vectors.records[second]
                    pairs.append(Pair(*records, float(distance), ratio, is_copy))
    return sorted(pairs, key=lambda pair: (not pair.is_copy, pair.ratio))


def print_pairs(pairs: Sequence[Pair], vectors: Vectors) -> None:
    table = Table(title=escape(f"near pairs in {vectors.config['data_name']}"), title_justify="left")
    table.add_column("distance", justify="right")
    table.add_column("ratio", justify="right")
    for header in ("issue", "first", "second"):
        table.add_column(header, overflow="fold")
    for pair in pairs:
        paths = (escape(record.path.relative_to(vectors.data).as_posix()) for record in (pair.first, pair.second))
        table.add_row(f"{pair.distance:.2g}", f"{pair.ratio:.3f}", pair.issue, *paths)
    if pairs:
        Console(width=None if sys.stdout.isatty() else 160).print(table)


def as_json(pair: Pair) -> dict:
    return {
        "first": str(pair.first.path),
        "second": str(pair.second.path),
        "distance": pair.distance,
        "ratio": pair.ratio,
        "issue": pair.issue,
    }
