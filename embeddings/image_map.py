"""A set of images as a map: similar images lie together. A page with a thumbnail under the pointer, and a PNG.

    python embeddings/image_map.py --data FOLDER                  # runs/map/map.html and map.png
    python embeddings/image_map.py --data FOLDER --category capsule --method pca

t-SNE shows what lies together, not how far apart groups are; PCA keeps distances as far as two directions can.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from embeddings.config import ImageMap
    from pretrain.command import start

    start("embeddings.image_map:main", ImageMap)

import sys

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from embeddings.config import ImageMap
from embeddings.map_page import Point, map_image, map_page
from embeddings.open_vectors import open_vectors
from embeddings.sheet import thumbnail
from pretrain.command import UserError
from pretrain.drawing import save_image
from pretrain.files import write_whole
from pretrain.progress import Progress

# t-SNE starts from the first principal components, which is faster and loses only noise.
PCA_DIMENSIONS = 50
MIN_IMAGES = 3
THUMBNAIL_PX = 96


def main(config: ImageMap) -> None:
    """Lay out the images and draw them."""
    vectors = open_vectors(config.vectors, config.data, config.encoder, config.update, config.device, config.layout)
    positions = vectors.where(config.category, config.split)
    title = f"{len(positions)} images of {vectors.config['data_name']}, {config.method}"
    if len(positions) > config.max_images:
        title = f"{config.max_images} of {title}"
        generator = np.random.default_rng(config.seed)
        positions = np.sort(generator.choice(positions, config.max_images, replace=False))
    if len(positions) < MIN_IMAGES:
        raise UserError(f"{len(positions)} images make no map: leave out --category or --split, or raise --max-images.")
    print(f"laying out {len(positions)} images by {config.method}", file=sys.stderr, flush=True)
    coordinates = layout(vectors.of_images(positions)[:, 0], config.method, config.seed)
    points = []
    with Progress("thumbnails", len(positions)) as progress:
        for position, (x, y) in zip(positions, coordinates, strict=True):
            record = vectors.records[position]
            path = record.path.relative_to(vectors.data).as_posix()
            labels = (record.category, record.split or "-", record.defect or "-")
            points.append(Point(float(x), float(y), *labels, path, thumbnail(record.path, size_px=THUMBNAIL_PX)))
            progress.advance()
    color = config.color or ("defect" if len({point.category for point in points}) == 1 else "category")
    write_whole(config.page, map_page(points, title, color).encode())
    save_image(map_image(points, title, color), config.png)
    print(f"page: {config.page}")
    print(f"PNG:  {config.png}")


def layout(vectors: np.ndarray, method: str, seed: int) -> np.ndarray:
    """Coordinates (n, 2) from 0 to 1 of vectors (n, d), which are scaled to unit length; a function of vectors, method
    and seed."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    dimensions = 2 if method == "pca" else min(PCA_DIMENSIONS, *unit.shape)
    coordinates = PCA(dimensions, random_state=seed).fit_transform(unit)  # (n, dimensions)
    if method == "tsne":
        # Features of a random encoder differ by a thousandth of their length, a scale at which t-SNE does not start.
        coordinates = coordinates / (coordinates.std() or 1.0)
        perplexity = min(30.0, (len(coordinates) - 1) / 3)
        coordinates = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(coordinates)
    low, high = coordinates.min(axis=0), coordinates.max(axis=0)
    return (coordinates - low) / np.maximum(high - low, 1e-12)
