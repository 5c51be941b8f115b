"""An image -> the most similar images: similar products, earlier defects like this one.

    python embeddings/search.py IMAGE                                        # among demo data, or data/mvtec
    python embeddings/search.py IMAGE IMAGE FOLDER --data FOLDER --k 20
    python embeddings/search.py IMAGE --data FOLDER --category capsule --split test --defect crack,scratch
    python embeddings/search.py IMAGE --data FOLDER --category capsule --split test --differences
    python embeddings/search.py IMAGE --vectors runs/vectors/NAME --shards 4 --address local

Prints the neighbors of each query and writes them side by side into one HTML file. The first search extracts vectors
and builds an index, says so, and keeps both; `--update` brings them up to date with the images. Exit code 1 where a
shard did not answer, so that neighbors may be missing.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from embeddings.config import Search
    from pretrain.command import start

    start("embeddings.search:main", Search)

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embeddings.build import describe_recall, open_index
from embeddings.config import Build, Search
from embeddings.encoding import Encoding, encoder_of
from embeddings.index import Index
from embeddings.open_vectors import open_vectors
from embeddings.sheet import Neighbor, SearchResult, neighbor_page
from embeddings.vectors import Vectors
from pretrain.actors import objects_at
from pretrain.command import Names, UserError
from pretrain.data.decode import Unreadable, decode
from pretrain.data.images import GOOD, SPLITS
from pretrain.data.layouts import scan_plain
from pretrain.files import write_json, write_whole
from pretrain.training.device import choose_device


def main(config: Search) -> int:
    """Print, draw and write the neighbors. Returns 1 where shards are missing."""
    paths = query_paths(config.queries)
    vectors = open_vectors(config.vectors, config.data, config.encoder, config.update, config.device, config.layout)
    with objects_at(config, config.replicas) as hold:
        index = open_index(vectors, Build(vectors.folder, shards=config.shards), hold)
        results = search(config, paths, vectors, index)
    missing = sorted({reason for result in results for reason in result.missing})
    for result in results:
        print_table(result, vectors.data)
    found = "; ".join([f"PARTIAL, {reason}" for reason in missing] or [describe_recall(index)])
    page = neighbor_page(results, vectors.data, title_of(config, vectors.config["data_name"]), found)
    write_whole(config.sheet, page.encode())
    print(f"contact sheet: {config.sheet}")
    if config.json:
        write_json(config.json, as_json(results, vectors, index))
        print(f"JSON: {config.json}")
    for reason in missing:
        print(f"PARTIAL: {reason}; neighbors that it holds are missing. Search again.", file=sys.stderr)
    return int(bool(missing))


def query_paths(queries: Sequence[Path]) -> list[Path]:
    """The images that were named, and those in the folders that were named. Raises UserError where there are none."""
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
    # An image that is named, and lies in a folder that is named too, is one query.
    return list(dict.fromkeys(paths))


def search(config: Search, paths: Sequence[Path], vectors: Vectors, index: Index) -> list[SearchResult]:
    """The neighbors of each image among those that pass the filters."""
    allowed = vectors.where(config.category, config.split, config.defect)
    count = len(vectors.records)
    if config.k < 1 or config.k > count:
        raise UserError(f"--k {config.k} neighbors cannot be found among {count} images: ask for 1 to {count}.")
    if config.k > len(allowed):
        print(f"only {len(allowed)} images pass the filters, so there are no {config.k} neighbors", file=sys.stderr)
    k = min(config.k + 1, len(allowed))  # one more, since an image that is in the index finds itself
    among = None if len(allowed) == count else vectors.image_ids[allowed]
    origin = 0.0
    if config.differences:
        origin = mean_of_good(vectors, config.category)
        # The stored index knows only vectors as they are; of one category there are few enough to build one now.
        index = Index.build(vectors.of_images(allowed)[:, 0] - origin, vectors.image_ids[allowed], kind="flat")
    device = choose_device(config.device)
    index.to(device)
    encoding = Encoding(encoder_of(vectors.config, config.encoder), vectors.source, device)
    results = []
    for start in range(0, len(paths), config.batch):
        batch, pixels = decoded(paths[start : start + config.batch], vectors.source.size_px, is_only=len(paths) == 1)
        if not batch:
            continue
        nearest = index.search(encoding.vectors(pixels) - origin, k, among=among, source=vectors.source.as_json())
        for path, distances, ids in zip(batch, nearest.distances, nearest.ids, strict=True):
            distances, ids = distances[ids >= 0], ids[ids >= 0]  # where shards are missing, so may be neighbors
            positions = vectors.positions_of(ids)
            neighbors = [
                Neighbor(vectors.records[position], int(image_id), float(distance))
                for position, image_id, distance in zip(positions, ids, distances, strict=True)
                if not is_same_file(vectors.records[position].path, path)
            ]
            results.append(SearchResult(path, neighbors[: config.k], nearest.missing))
    if not results:
        raise UserError("none of the queries is an image that can be read.")
    return results


def mean_of_good(vectors: Vectors, categories: Names) -> np.ndarray:
    """The mean vector (d,) of one category's good training images. Raises UserError unless one category is named."""
    if len(categories) != 1:
        raise UserError(f"--differences are from the good images of one category, not of {len(categories)}: name it.")
    return vectors.of_images(vectors.where(categories, SPLITS[:1], [GOOD]))[:, 0].mean(axis=0)


def decoded(paths: Sequence[Path], size_px: int, is_only: bool) -> tuple[list[Path], np.ndarray]:
    """The images that can be read, and their pixels uint8 (b, size_px, size_px, 3); stderr names the others. Raises
    UserError for an unreadable image that is the only query."""
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


def is_same_file(first: Path, second: Path) -> bool:
    """Whether both paths lead to one file, which exists."""
    return first.name == second.name and first.exists() and first.samefile(second)


def title_of(config: Search, name: str) -> str:
    """What was searched for."""
    filters = [str(names) for names in (config.category, config.split, config.defect) if names]
    neighbors = "most similar in their difference from good images" if config.differences else "nearest"
    return f"{neighbors} in {name}" + (f", only {' / '.join(filters)}" if filters else "")


def print_table(result: SearchResult, data: Path) -> None:
    table = Table(title=escape(f"{result.query}: {result.summary or 'no other image'}"), title_justify="left")
    for header in ("", "distance"):
        table.add_column(header, justify="right")
    for header in ("category", "defect", "path"):
        table.add_column(header, overflow="fold")
    for number, (record, _, distance) in enumerate(result.neighbors, 1):
        path = record.path.relative_to(data).as_posix()
        labels = (escape(label) for label in (record.category, record.defect or "-", path))
        table.add_row(str(number), f"{distance:.3g}", *labels)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def as_json(results: Sequence[SearchResult], vectors: Vectors, index: Index) -> dict:
    """The neighbors for other programs, with the encoder and the index that found them."""
    return {
        "data": vectors.config["data_name"],
        "encoder": vectors.source.encoder,
        "encoder_started_from": vectors.config.get("encoder_started_from"),  # vectors of before 0.1 do not say
        "encoder_saw": vectors.config["encoder_saw"],
        "index": {
            "kind": index.spec.kind,
            "metric": index.metric,
            "vectors": len(index),
            "shards": index.shards,
            "recall": index.recall and index.recall._asdict(),
        },
        "missing": sorted({reason for result in results for reason in result.missing}),
        "queries": [
            {
                "path": str(result.query),
                "neighbors": [
                    {
                        "id": neighbor.image_id,
                        "distance": neighbor.distance,
                        "category": neighbor.record.category,
                        "split": neighbor.record.split,
                        "defect": neighbor.record.defect,
                        "path": str(neighbor.record.path),
                    }
                    for neighbor in result.neighbors
                ],
            }
            for result in results
        ],
    }
