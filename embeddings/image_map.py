"""A set of images as a map: what is similar lies together. One page with a thumbnail under the pointer, and a PNG.

    python embeddings/image_map.py --data FOLDER                  # runs/map/map.html and map.png
    python embeddings/image_map.py --data FOLDER --category capsule --method pca

t-SNE shows what lies together, not how far apart groups are; PCA keeps distances as far as two directions can.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from embeddings.image_map import Config, main
    from pretrain.command import run_command

    sys.exit(run_command(main, Config))

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pretrain.command import Names, UserError
from pretrain.files import write_whole

if TYPE_CHECKING:
    import numpy as np

FIRST_DIMENSIONS = 50
FEWEST = 3


@dataclass(frozen=True)
class Config:
    """Draw a set of images as a map, as a page to explore and as a PNG.

    Attributes:
        vectors: Vectors of the images, from embeddings/extract.py. Default is those of --data and --encoder.
        data: Folder of images. Default is data/mvtec where it exists, else demo data.
        encoder: Encoder file, or random. Default is runs/simclr/encoder.safetensors where it may be used, else random.
        category: Only these categories.
        split: Only images of train, or test.
        method: How many dimensions become two.
        color: What the colors of the PNG stand for; the page can change it. Default is the kind of defect if there is
            one category, else the category.
        most: Of more images than these, so many are drawn at random.
        seed: Draws them, and starts t-SNE.
        update: First look for images that came, changed or went.
        page: The page.
        png: The image.
    """

    vectors: Path | None = None
    data: Path | None = None
    encoder: Path | None = None
    category: Names = Names()
    split: Names = Names()
    method: Literal["tsne", "pca"] = "tsne"
    color: Literal["category", "split", "defect"] | None = None
    most: int = 3000
    seed: int = 0
    update: bool = False
    page: Path = Path("runs/map/map.html")
    png: Path = Path("runs/map/map.png")


def main(config: Config) -> None:
    """Lay out the images and draw them."""
    import numpy as np

    from embeddings.map_page import Point, map_image, map_page
    from embeddings.open_vectors import ready_vectors
    from embeddings.sheet import thumbnail
    from pretrain.drawing import save_image
    from pretrain.progress import Progress

    vectors = ready_vectors(config.vectors, config.data, config.encoder, config.update)
    positions = vectors.where(config.category, config.split)
    name = vectors.config["data_name"]
    title = f"{len(positions)} images of {name}, {config.method}"
    if len(positions) > config.most:
        title = f"{config.most} of {len(positions)} images of {name}, {config.method}"
        generator = np.random.default_rng(config.seed)
        positions = np.sort(generator.choice(positions, config.most, replace=False))
    if len(positions) < FEWEST:
        raise UserError(f"{len(positions)} images make no map: leave out --category or --split, or raise --most.")
    print(f"laying out {len(positions)} images by {config.method}", file=sys.stderr, flush=True)
    places = layout(vectors.of_images(positions)[:, 0], config.method, config.seed)
    points = []
    with Progress("thumbnails", len(positions)) as progress:
        for position, (x, y) in zip(positions, places, strict=True):
            record = vectors.records[position]
            path = record.path.relative_to(vectors.data).as_posix()
            labels = (record.category, record.split or "-", record.defect or "-")
            points.append(Point(float(x), float(y), *labels, path, thumbnail(record.path, size_px=96)))
            progress.advance()
    color = config.color or ("defect" if len({point.category for point in points}) == 1 else "category")
    write_whole(config.page, map_page(points, title, color).encode())
    save_image(map_image(points, title, color), config.png)
    print(f"page: {config.page}")
    print(f"PNG:  {config.png}")


def layout(vectors: "np.ndarray", method: str, seed: int) -> "np.ndarray":
    """Places (n, 2) from 0 to 1, of vectors (n, d) of unit length; a function of vectors, method and seed."""
    import numpy as np
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    dimensions = 2 if method == "pca" else min(FIRST_DIMENSIONS, *unit.shape)
    places = PCA(dimensions, random_state=seed).fit_transform(unit)
    if method == "tsne":
        # Random features differ by a thousandth of their length: t-SNE starts from nothing if the scale is that small.
        places = places / (places.std() or 1.0)
        perplexity = min(30.0, (len(places) - 1) / 3)
        places = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(places)
    low, high = places.min(axis=0), places.max(axis=0)
    return (places - low) / np.maximum(high - low, 1e-12)
