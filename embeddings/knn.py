"""What an encoder's neighbors know of the labels, beside a random encoder: k-NN figures, nothing is trained.

    python embeddings/knn.py --data FOLDER --encoder runs/simclr/encoder.safetensors

For each category: of a defective image's nearest neighbors, how many share its kind of defect (precision at 1 and at
5), among the defective test images and among all test images; and how well five neighbors vote for the kind.
Neighbors of an image never include itself. Chance is what neighbors drawn at random would give. That neighbors
share the category says nothing: a random encoder does as well, which is shown.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from embeddings.knn import Config, main
    from pretrain.command import run_command

    sys.exit(run_command(main, Config))

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain.command import Names, UserError
from pretrain.files import write_json

if TYPE_CHECKING:
    import numpy as np

    from pretrain.data.dataset import ImageSet
    from pretrain.encoder import Encoder

MOST = 5
RANDOM = "random"
VIEWS = ("as they are", "minus the mean of good ones")


@dataclass(frozen=True)
class Config:
    """Tell what an encoder's nearest neighbors know of the labels, beside a random encoder.

    Attributes:
        data: Folder of categories in MVTec AD's layout. Default is data/mvtec where it exists, else demo data.
        encoder: Encoder file. Default is runs/simclr/encoder.safetensors where it may be used, else random ones alone.
        categories: Only these categories.
        size_px: Side of the square that images are stretched to. Default is what the encoder was trained at.
        seed: Of the random encoder.
        json: Write the figures to this file.
    """

    data: Path | None = None
    encoder: Path | None = None
    categories: Names = Names()
    size_px: int | None = None
    seed: int = 0
    json: Path | None = None


@dataclass(frozen=True)
class Figures:
    """Of one category's test images; precision is of defective ones, by kind of defect, at 1 and at 5 neighbors.

    `vote` is the balanced accuracy of five neighbors among all kinds, good included.
    """

    defective: int
    kinds: int
    among_defective_1: float
    among_defective_5: float
    chance_defective: float
    among_all_1: float
    among_all_5: float
    chance_all: float
    vote: float


def main(config: Config) -> None:
    """Print a table with a row for each category and encoder."""
    from embeddings.encoding import choose_encoder
    from pretrain.data.dataset import choose_folder, data_name, load
    from pretrain.demo import is_demo
    from pretrain.encoder import Encoder

    folder = choose_folder(config.data)
    chosen, path = choose_encoder(config.encoder, config.seed, is_demo(folder))
    images = load(folder, config.size_px or chosen.input_size_px, config.categories)
    encoders = {RANDOM: Encoder(chosen.architecture, config.seed)}
    if path != Path(RANDOM):
        encoders[str(path)] = chosen
    seen = chosen.origin.categories if chosen.origin else ()
    if shared := sorted(set(seen) & set(images.categories)):
        print(f"the encoder saw good images of {', '.join(shared)}", file=sys.stderr)
    results = {}
    for name, encoder in encoders.items():
        vectors = pooled(encoder, images)
        results[name] = {"category": category_share(vectors, images), "kinds": defect_figures(vectors, images)}
    print_table(results, f"neighbors on {data_name(folder)}, {images.size_px} px")
    if config.json:
        plain = {
            name: {"category": found["category"], "kinds": {c: asdict(f) for c, f in found["kinds"].items()}}
            for name, found in results.items()
        }
        write_json(config.json, plain)


def pooled(encoder: "Encoder", images: "ImageSet") -> "np.ndarray":
    """One vector for each image, in fp32: float32 (n, d)."""
    import numpy as np

    from embeddings.encoding import Encoding, make_source

    encoding = Encoding(encoder, make_source(encoder, "pooled", size_px=images.size_px))
    starts = range(0, len(images), 32)
    return np.concatenate([encoding.vectors(images.batch(range(s, min(s + 32, len(images))))) for s in starts])


def neighbors(vectors: "np.ndarray", k: int) -> "np.ndarray":
    """Positions int64 (n, k) of the nearest others of each vector, by cosine distance."""
    import numpy as np

    from embeddings.index.index import Index

    found = Index.build(vectors, kind="flat").search(vectors, k + 1)
    others = found.ids != np.arange(len(vectors))[:, None]
    others[others.all(axis=1), -1] = False  # among many copies an image may not find itself
    return found.ids[others].reshape(len(vectors), k)


def defect_figures(vectors: "np.ndarray", images: "ImageSet", view: str = VIEWS[0]) -> dict[str, Figures]:
    """Figures of each category with defects. `view` may take from each vector the mean of the category's good training
    images, so that what is left is how an image differs from those. Raises UserError where no category has enough."""
    import numpy as np

    labels = np.array([record.defect for record in images.records])
    bad = np.array([record.is_anomaly for record in images.records])
    is_test = np.array([record.split == "test" for record in images.records])
    results = {}
    for category in images.categories:
        here = np.array([record.category == category for record in images.records])
        tests = here & is_test
        if (bad & tests).sum() <= MOST:
            continue
        rows = vectors
        if view == VIEWS[1]:
            normals = here & ~is_test & ~bad
            if not normals.any():
                continue
            rows = vectors - vectors[normals].mean(axis=0)
        of_bad, of_all = labels[tests & bad], labels[tests]
        is_bad = bad[tests]
        near_bad = of_bad[neighbors(rows[tests & bad], MOST)] == of_bad[:, None]
        around = of_all[neighbors(rows[tests], MOST)]  # (n, 5) kinds
        near_all = (around == of_all[:, None])[is_bad]
        results[category] = Figures(
            len(of_bad), len(set(of_bad)),
            float(near_bad[:, 0].mean()), float(near_bad.mean()), chance(of_bad, of_bad),
            float(near_all[:, 0].mean()), float(near_all.mean()), chance(of_bad, of_all),
            vote(around, of_all),
        )  # fmt: skip
    if not results:
        raise UserError(f"no category in {images.folder} has more than {MOST} defective test images to compare.")
    return results


def chance(asked: "np.ndarray", among: "np.ndarray") -> float:
    """The precision of neighbors drawn at random."""
    return float(sum(((among == kind).sum() - 1) / (len(among) - 1) for kind in asked) / len(asked))


def vote(around: "np.ndarray", labels: "np.ndarray") -> float:
    """Balanced accuracy of the most frequent kind among neighbors (n, k), of equally frequent ones the nearest."""
    import numpy as np

    counts = (around[:, :, None] == around[:, None, :]).sum(axis=2)  # how often each one's kind is there
    voted = around[np.arange(len(around)), counts.argmax(axis=1)]
    return float(np.mean([(voted == labels)[labels == kind].mean() for kind in np.unique(labels)]))


def category_share(vectors: "np.ndarray", images: "ImageSet") -> float | None:
    """How often the nearest image is of the same category; none where there is one alone."""
    import numpy as np

    names = np.array([record.category for record in images.records])
    if len(images.categories) < 2:
        return None
    return float((names[neighbors(vectors, 1)[:, 0]] == names).mean())


def print_table(results: dict[str, dict], name: str) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(name), title_justify="left")
    for header in ("\ncategory", "\nencoder"):
        table.add_column(header)
    for header in (
        "among defective\nat 1",
        "\nat 5",
        "\nchance",
        "among all\nat 1",
        "\nat 5",
        "\nchance",
        "\nvote of 5",
    ):
        table.add_column(header, justify="right")
    for category in next(iter(results.values()))["kinds"]:
        for encoder, found in results.items():
            row = list(asdict(found["kinds"][category]).values())[2:]
            table.add_row(escape(category), escape(encoder), *(f"{value:.3f}" for value in row))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    for encoder, found in results.items():
        if found["category"] is not None:
            print(f"nearest image is of the same category: {found['category']:.3f} ({encoder})")
