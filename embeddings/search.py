"""An image -> the most similar images: similar products, earlier defects like this one.

    python embeddings/search.py IMAGE                                        # among demo data, or data/mvtec
    python embeddings/search.py IMAGE IMAGE FOLDER --data FOLDER --k 20
    python embeddings/search.py IMAGE --data FOLDER --category capsule --split test --defect crack,scratch
    python embeddings/search.py IMAGE --data FOLDER --category capsule --split test --differences

Prints the neighbors of each query and writes them side by side into one HTML file. Vectors and index are made at the
first search, which is said, and kept; `--update` looks for images that came, changed or went.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from embeddings.search import Config, main
    from pretrain.command import run_command

    sys.exit(run_command(main, Config))

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pretrain.command import Names, UserError
from pretrain.data.images import GOOD, SPLITS, Record, scan_plain
from pretrain.files import write_json, write_whole

if TYPE_CHECKING:
    import numpy as np

    from embeddings.index.index import Index
    from embeddings.vectors import Vectors


@dataclass(frozen=True)
class Config:
    """Find the images that are most similar to an image, to several, or to each of a folder.

    Attributes:
        queries: Images, or folders of images.
        vectors: Where to search: a folder from embeddings/extract.py. Default is that of --data and --encoder.
        data: Where to search: folder of images. Default is data/mvtec where it exists, else demo data.
        encoder: Encoder file, or random. Default is runs/simclr/encoder.safetensors where it may be used, else random.
        k: How many neighbors.
        category: Only among these categories.
        split: Only among train, or test.
        defect: Only among these kinds of defect; good is one.
        differences: Compare how images differ from the mean of the category's good training images, which finds
            like defects where the default finds like products; needs one --category.
        update: First look for images that came, changed or went since the last time.
        sheet: The contact sheet, one HTML file.
        json: Write the neighbors to this file too.
        batch: Queries that are encoded at once.
    """

    queries: tuple[Path, ...] = field(default=(), metadata={"positional": True})
    vectors: Path | None = None
    data: Path | None = None
    encoder: Path | None = None
    k: int = 10
    category: Names = Names()
    split: Names = Names()
    defect: Names = Names()
    differences: bool = False
    update: bool = False
    sheet: Path = Path("runs/search/neighbors.html")
    json: Path | None = None
    batch: int = 32


class Neighbor(NamedTuple):
    """An image that was found, its id, and how far it is."""

    record: Record
    image_id: int
    distance: float


class Answer(NamedTuple):
    """A query and its neighbors, nearest first; never the query itself."""

    query: Path
    neighbors: list[Neighbor]

    @property
    def summary(self) -> str:
        """What the neighbors are, the most frequent first."""
        counts = Counter(f"{n.record.category} {n.record.defect}".strip() for n in self.neighbors)
        return ", ".join(f"{count} {what}" for what, count in counts.most_common())


def main(config: Config) -> None:
    """Print, draw and write the neighbors."""
    from embeddings.build import in_words, indexed
    from embeddings.open_vectors import ready_vectors
    from embeddings.sheet import neighbor_page

    paths = query_paths(config.queries)
    vectors = ready_vectors(config.vectors, config.data, config.encoder, config.update)
    index = indexed(vectors)
    answers = answer(config, paths, vectors, index)
    name = vectors.config["data_name"]
    for each in answers:
        print_table(each, vectors.data)
    write_whole(config.sheet, neighbor_page(answers, vectors.data, title_of(config, name), in_words(index)).encode())
    print(f"contact sheet: {config.sheet}")
    if config.json:
        write_json(config.json, as_json(answers, vectors, index))
        print(f"JSON: {config.json}")


def query_paths(queries: Sequence[Path]) -> list[Path]:
    """The images that were named, and those in the folders that were. Raises UserError where there are none."""
    if not queries:
        raise UserError("no image to search for: name one or more, or a folder of them.")
    paths = []
    for query in queries:
        if query.is_dir():
            paths += [record.path for record in scan_plain(query).records]
        elif query.is_file():
            paths.append(query)
        else:
            raise UserError(f"there is no image or folder {query}.")
    return list(dict.fromkeys(paths))


def answer(config: Config, paths: Sequence[Path], vectors: "Vectors", index: "Index") -> list[Answer]:
    """The neighbors of each image among those that the filters leave."""
    from embeddings.encoding import Encoding, encoder_of
    from embeddings.index.index import Index

    allowed = vectors.where(config.category, config.split, config.defect)
    everything = len(vectors.records)
    if config.k < 1 or config.k > everything:
        raise UserError(
            f"--k {config.k} neighbors cannot be found among {everything} images: ask for 1 to {everything}."
        )
    if config.k > len(allowed):
        print(f"only {len(allowed)} images pass the filters, so there are no {config.k} neighbors", file=sys.stderr)
    # One more, since an image that is in the index finds itself.
    k = min(config.k + 1, len(allowed))
    among = None if len(allowed) == everything else vectors.image_ids[allowed]
    origin = 0.0
    if config.differences:
        origin = mean_of_good(vectors, config.category)
        index = Index.build(vectors.of_images(allowed)[:, 0] - origin, vectors.image_ids[allowed], kind="flat")
    encoding = Encoding(encoder_of(vectors.config, config.encoder), vectors.source)
    answers = []
    for start in range(0, len(paths), config.batch):
        batch, pixels = decoded(paths[start : start + config.batch], vectors.source.size_px, is_only=len(paths) == 1)
        if not batch:
            continue
        found = index.search(encoding.vectors(pixels) - origin, k, among=among, source=vectors.source.as_json())
        for path, distances, ids in zip(batch, found.distances, found.ids, strict=True):
            positions = vectors.positions_of(ids)
            neighbors = [
                Neighbor(vectors.records[position], int(image_id), float(distance))
                for position, image_id, distance in zip(positions, ids, distances, strict=True)
                if not same_file(vectors.records[position].path, path)
            ]
            answers.append(Answer(path, neighbors[: config.k]))
    if not answers:
        raise UserError("none of the queries is an image that can be read.")
    return answers


def mean_of_good(vectors: "Vectors", categories: Names) -> "np.ndarray":
    """The mean vector (d,) of one category's good training images. Raises UserError where there is no such thing."""
    if len(categories) != 1:
        raise UserError(f"--differences are from the good images of one category, not of {len(categories)}: name it.")
    return vectors.of_images(vectors.where(categories, SPLITS[:1], [GOOD]))[:, 0].mean(axis=0)


def decoded(paths: Sequence[Path], size_px: int, is_only: bool) -> tuple[list[Path], "np.ndarray"]:
    """Those of the images that can be read, and their pixels uint8 (b, size_px, size_px, 3); others are named. Raises
    UserError for one that was the only query."""
    import numpy as np

    from pretrain.data.decode import Unreadable, decode

    readable, pixels = [], []
    for path in paths:
        try:
            pixels.append(decode(path, size_px).pixels)
            readable.append(path)
        except Unreadable as unreadable:
            if is_only:
                raise UserError(f"{path} cannot be searched for: {unreadable}.") from None
            print(f"left out {path}: {unreadable}", file=sys.stderr)
    return readable, np.stack(pixels) if pixels else np.empty((0, size_px, size_px, 3), np.uint8)


def same_file(one: Path, other: Path) -> bool:
    """Whether both names lead to one file; one that is gone is none."""
    return one.name == other.name and one.exists() and one.samefile(other)


def title_of(config: Config, name: str) -> str:
    """What was asked for, in words."""
    filters = [str(names) for names in (config.category, config.split, config.defect) if names]
    what = "most alike in their difference from good ones" if config.differences else "nearest"
    return f"{what} in {name}" + (f", only {' / '.join(filters)}" if filters else "")


def print_table(answer: Answer, data: Path) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(f"{answer.query}: {answer.summary or 'no other image'}"), title_justify="left")
    for header in ("", "distance"):
        table.add_column(header, justify="right")
    for header in ("category", "defect", "path"):
        table.add_column(header, overflow="fold")
    for number, (record, _, distance) in enumerate(answer.neighbors, 1):
        path = record.path.relative_to(data).as_posix()
        labels = (escape(label) for label in (record.category, record.defect or "-", path))
        table.add_row(str(number), f"{distance:.3g}", *labels)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def as_json(answers: Sequence[Answer], vectors: "Vectors", index: "Index") -> dict:
    """The same for machines."""
    return {
        "data": vectors.config["data_name"],
        "encoder": vectors.source.encoder,
        "index": {
            "kind": index.shape.kind,
            "metric": index.metric,
            "vectors": len(index),
            "recall": index.recall and index.recall._asdict(),
        },
        "queries": [
            {
                "path": str(answer.query),
                "neighbors": [
                    {
                        "id": neighbor.image_id,
                        "distance": neighbor.distance,
                        "category": neighbor.record.category,
                        "split": neighbor.record.split,
                        "defect": neighbor.record.defect,
                        "path": str(neighbor.record.path),
                    }
                    for neighbor in answer.neighbors
                ],
            }
            for answer in answers
        ],
    }
