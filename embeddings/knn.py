"""What an encoder's neighbors know of the labels, beside a random encoder: k-NN figures, nothing is trained.

    python embeddings/knn.py --data FOLDER --encoder runs/simclr/encoder.safetensors

For each category: how many of a defective image's nearest neighbors share its type of defect (precision at 1 and at 5),
among the defective test images and among all test images; and how well five neighbors vote for the type. Neighbors of
an image never include itself. Chance is what neighbors drawn at random would give. That neighbors share the category
says nothing: a random encoder does as well, which is shown.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from embeddings.config import Knn
    from pretrain.command import start

    start("embeddings.knn:main", Knn)

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embeddings.config import Knn
from embeddings.encoding import RANDOM, Encoding, choose_encoder, make_source
from embeddings.index import Index
from pretrain.command import UserError
from pretrain.data.dataset import ImageSet, choose_folder, data_name, load
from pretrain.demo import is_demo
from pretrain.encoder import Encoder
from pretrain.files import write_json
from pretrain.training.device import choose_device

MAX_NEIGHBORS = 5
VIEWS = ("as they are", "minus the mean of good ones")


@dataclass(frozen=True)
class NeighborFigures:
    """Of one category's test images. Precision is that of defective ones, by type of defect, at 1 and at 5 neighbors.

    `vote` is the balanced accuracy of five neighbors among all types, good included.
    """

    defective: int
    defect_types: int
    among_defective_1: float
    among_defective_5: float
    chance_defective: float
    among_all_1: float
    among_all_5: float
    chance_all: float
    vote: float


def main(config: Knn) -> None:
    """Print a table with a row for each category and encoder."""
    folder = choose_folder(config.data)
    chosen, path = choose_encoder(config.encoder, config.seed, is_demo(folder))
    images = load(folder, config.size_px or chosen.input_size_px, config.categories, layout=config.layout)
    encoders = {str(RANDOM): Encoder(chosen.architecture, config.seed)}
    if path != RANDOM:
        encoders[str(path)] = chosen
    seen = chosen.origin.categories if chosen.origin else ()
    if shared := sorted(set(seen) & set(images.categories)):
        print(f"the encoder saw good images of {', '.join(shared)}", file=sys.stderr)
    print(f"encoder: {path}, {chosen.history}")
    results = {}
    for name, encoder in encoders.items():
        vectors = pooled(encoder, images, choose_device(config.device))
        results[name] = {
            "same_category": same_category(vectors, images),
            "categories": defect_figures(vectors, images),
        }
    print_table(results, f"neighbors on {data_name(folder)}, {images.size_px} px")
    if config.json:
        plain = {
            name: {**result, "categories": {c: asdict(figures) for c, figures in result["categories"].items()}}
            for name, result in results.items()
        }
        write_json(config.json, plain)


def pooled(encoder: Encoder, images: ImageSet, device: torch.device | str = "cpu") -> np.ndarray:
    """One vector per image, in fp32: float32 (n, d)."""
    encoding = Encoding(encoder, make_source(encoder, "pooled", size_px=images.size_px), device)
    starts = range(0, len(images), 32)
    return np.concatenate([encoding.vectors(images.batch(range(s, min(s + 32, len(images))))) for s in starts])


def neighbors(vectors: np.ndarray, k: int) -> np.ndarray:
    """Positions int64 (n, k) of the nearest others of each vector (n, d), by cosine distance."""
    ids = Index.build(vectors, kind="flat").search(vectors, k + 1).ids
    is_other = ids != np.arange(len(vectors))[:, None]
    is_other[is_other.all(axis=1), -1] = False  # among many copies an image may not find itself
    return ids[is_other].reshape(len(vectors), k)


def defect_figures(vectors: np.ndarray, images: ImageSet, view: str = VIEWS[0]) -> dict[str, NeighborFigures]:
    """Figures of each category with defects. `view` may subtract from each vector the mean of the category's good
    training images, which leaves how an image differs from those. Raises UserError where no category has enough."""
    labels = np.array([record.defect for record in images.records])
    is_bad = np.array([record.is_anomaly for record in images.records])
    is_test = np.array([record.split == "test" for record in images.records])
    results = {}
    for category in images.categories:
        is_here = np.array([record.category == category for record in images.records])
        tests = is_here & is_test
        if (is_bad & tests).sum() <= MAX_NEIGHBORS:
            continue
        rows = vectors
        if view == VIEWS[1]:
            normals = is_here & ~is_test & ~is_bad
            if not normals.any():
                continue
            rows = vectors - vectors[normals].mean(axis=0)
        of_bad, of_all = labels[tests & is_bad], labels[tests]
        near_bad = of_bad[neighbors(rows[tests & is_bad], MAX_NEIGHBORS)] == of_bad[:, None]  # (bad, 5)
        around = of_all[neighbors(rows[tests], MAX_NEIGHBORS)]  # (tests, 5) labels
        near_all = (around == of_all[:, None])[is_bad[tests]]  # (bad, 5)
        results[category] = NeighborFigures(
            len(of_bad), len(set(of_bad)),
            float(near_bad[:, 0].mean()), float(near_bad.mean()), chance(of_bad, of_bad),
            float(near_all[:, 0].mean()), float(near_all.mean()), chance(of_bad, of_all),
            vote(around, of_all),
        )  # fmt: skip
    if not results:
        raise UserError(
            f"no category in {images.folder} has more than {MAX_NEIGHBORS} defective test images to compare."
        )
    return results


def chance(asked: np.ndarray, among: np.ndarray) -> float:
    """The precision of neighbors drawn at random among labels (n,), for queries of the labels `asked` (q,)."""
    return float(sum(((among == label).sum() - 1) / (len(among) - 1) for label in asked) / len(asked))


def vote(around: np.ndarray, labels: np.ndarray) -> float:
    """Balanced accuracy of the most frequent label among neighbors (n, k); of equally frequent ones, the nearest's."""
    counts = (around[:, :, None] == around[:, None, :]).sum(axis=2)  # (n, k): how often each neighbor's label occurs
    voted = around[np.arange(len(around)), counts.argmax(axis=1)]
    return float(np.mean([(voted == labels)[labels == label].mean() for label in np.unique(labels)]))


def same_category(vectors: np.ndarray, images: ImageSet) -> float | None:
    """How often the nearest image is of the same category; None where there is only one category."""
    if len(images.categories) < 2:
        return None
    names = np.array([record.category for record in images.records])
    return float((names[neighbors(vectors, 1)[:, 0]] == names).mean())


def print_table(results: dict[str, dict], name: str) -> None:
    table = Table(title=escape(name), title_justify="left")
    for header in ("\ncategory", "\nencoder"):
        table.add_column(header)
    for header in (
        "among defective\nat 1", "\nat 5", "\nchance", "among all\nat 1", "\nat 5", "\nchance", "\nvote of 5",
    ):  # fmt: skip
        table.add_column(header, justify="right")
    for category in next(iter(results.values()))["categories"]:
        for encoder, result in results.items():
            row = list(asdict(result["categories"][category]).values())[2:]
            table.add_row(escape(category), escape(encoder), *(f"{value:.3f}" for value in row))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    for encoder, result in results.items():
        if result["same_category"] is not None:
            print(f"nearest image is of the same category: {result['same_category']:.3f} ({encoder})")
