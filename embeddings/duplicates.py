"""Images that are there twice, or nearly: what leaks from train to test, and what was labelled in two ways.

    python embeddings/duplicates.py --data FOLDER
    python embeddings/duplicates.py --data FOLDER --sheet pairs.html --strict    # exit code 2 if anything leaks

A pair is near if its distance is a small part of what lies between neighbors of its category as a rule; so the same
limit suits every encoder and every product. Copies are images whose cached pixels are the same.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from embeddings.duplicates import Config, main
    from pretrain.command import run_command

    sys.exit(run_command(main, Config))

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pretrain.command import Names, UserError
from pretrain.data.images import UNLABELLED, Record
from pretrain.files import write_json, write_whole

if TYPE_CHECKING:
    from embeddings.vectors import Vectors

NEIGHBORS = 10
COPY, SPLITS, LABELS = "copy", "train and test", "good and defective"


@dataclass(frozen=True)
class Config:
    """Find images that are there twice, or nearly, within and across splits.

    Attributes:
        vectors: Vectors to compare, from embeddings/extract.py. Default is those of --data and --encoder.
        data: Folder of images. Default is data/mvtec where it exists, else demo data.
        encoder: Encoder file, or random. Default is runs/simclr/encoder.safetensors where it may be used, else random.
        category: Only these categories.
        closer_than: A pair is near if its distance is less than this part of the median distance to the nearest
            neighbor in its category.
        most: So many pairs are printed, the nearest first.
        update: First look for images that came, changed or went.
        sheet: Write the pairs to this HTML file.
        json: Write all pairs to this file.
        strict: Exit code 2 if an image in train and one in test are near.
    """

    vectors: Path | None = None
    data: Path | None = None
    encoder: Path | None = None
    category: Names = Names()
    closer_than: float = 0.1
    most: int = 20
    update: bool = False
    sheet: Path | None = None
    json: Path | None = None
    strict: bool = False


class Pair(NamedTuple):
    """Two images of a category, their cosine distance, and the same in units of what is usual there."""

    one: Record
    other: Record
    distance: float
    ratio: float
    is_copy: bool

    @property
    def what(self) -> str:
        """What makes the pair harmful: it leaks, or it contradicts itself."""
        found = [COPY] if self.is_copy else []
        if UNLABELLED not in (self.one.split, self.other.split) and self.one.split != self.other.split:
            found.append(SPLITS)
        if self.one.is_anomaly != self.other.is_anomaly:
            found.append(LABELS)
        return ", ".join(found) or f"within {self.one.split or 'the folder'}"


def main(config: Config) -> int:
    """Print the pairs; exit code 2 if that is asked for and something leaks."""
    from embeddings.open_vectors import ready_vectors

    if not 0 < config.closer_than < 1:
        raise UserError(f"--closer-than {config.closer_than} is no part of a distance: give more than 0, less than 1.")
    vectors = ready_vectors(config.vectors, config.data, config.encoder, config.update)
    pairs = near_pairs(vectors, config.closer_than, config.category)
    print_pairs(pairs[: config.most], vectors)
    counts = Counter(what for pair in pairs for what in pair.what.split(", "))
    print(f"{len(pairs)} near pairs" + "".join(f", {count} {what}" for what, count in counts.most_common()))
    if config.sheet:
        from embeddings.search import Answer, Neighbor
        from embeddings.sheet import neighbor_page

        answers = [Answer(pair.one.path, [Neighbor(pair.other, 0, pair.distance)]) for pair in pairs]
        title = f"near pairs in {vectors.config['data_name']}"
        page = neighbor_page(answers, vectors.data, title, f"closer than {config.closer_than} of what is usual")
        write_whole(config.sheet, page.encode())
        print(f"contact sheet: {config.sheet}")
    if config.json:
        write_json(config.json, [as_json(pair) for pair in pairs])
        print(f"JSON: {config.json}")
    return 2 if config.strict and counts[SPLITS] else 0


def near_pairs(vectors: "Vectors", closer_than: float, categories: Sequence[str] = ()) -> list[Pair]:
    """Pairs within each category, the nearest first. Each image is compared with its ten nearest."""
    import numpy as np

    from embeddings.index.index import Index

    digests, pairs = vectors.digests, []
    of_category: dict[str, list[int]] = {}
    for position in vectors.where(categories):
        of_category.setdefault(vectors.records[position].category, []).append(int(position))
    for positions in of_category.values():
        if len(positions) < 2:
            continue
        rows = vectors.of_images(positions)[:, 0]
        found = Index.build(rows).search(rows, min(NEIGHBORS + 1, len(rows)))
        others = found.ids != np.arange(len(rows))[:, None]
        usual = float(np.median(np.where(others, found.distances, np.inf).min(axis=1)))
        for first, distances, ids in zip(range(len(rows)), found.distances, found.ids, strict=True):
            for distance, second in zip(distances, ids, strict=True):
                one, other = positions[first], positions[int(second)]
                is_copy = digests[one] == digests[other]
                if first < second and (is_copy or distance < closer_than * usual):
                    ratio = float(distance) / usual if usual else 0.0
                    pairs.append(Pair(vectors.records[one], vectors.records[other], float(distance), ratio, is_copy))
    return sorted(pairs, key=lambda pair: (not pair.is_copy, pair.ratio))


def print_pairs(pairs: Sequence[Pair], vectors: "Vectors") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(f"near pairs in {vectors.config['data_name']}"), title_justify="left")
    table.add_column("distance", justify="right")
    table.add_column("of usual", justify="right")
    for header in ("", "one", "other"):
        table.add_column(header, overflow="fold")
    for pair in pairs:
        paths = (escape(record.path.relative_to(vectors.data).as_posix()) for record in (pair.one, pair.other))
        table.add_row(f"{pair.distance:.2g}", f"{pair.ratio:.3f}", pair.what, *paths)
    if pairs:
        Console(width=None if sys.stdout.isatty() else 160).print(table)


def as_json(pair: Pair) -> dict:
    return {
        "one": str(pair.one.path),
        "other": str(pair.other.path),
        "distance": pair.distance,
        "of_usual": pair.ratio,
        "what": pair.what,
    }
