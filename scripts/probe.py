"""What an encoder is worth on categories it never saw: PaDiM statistics and patch neighbors beside a random encoder.

    python scripts/probe.py --encoder runs/simclr/encoder.safetensors --data data/mvtec --categories bottle,pill,wood
    python scripts/probe.py --data data/demo     # the random encoder alone: how hard is a data set?

Image AUROC of two plain methods on the encoder's feature maps, each fitted on the category's normals: a Gaussian for
every position (Defard et al. 2020, all normals), and the distance to the nearest patch of four or of all normals. A
image's score is the highest value of its smoothed map. The random encoder is of the same architecture and seed.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from pretrain.command import run_command
    from scripts.probe import Config, main

    sys.exit(run_command(main, Config))

import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from pretrain.command import Names, UserError
from pretrain.files import write_json

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from pretrain.data.dataset import ImageSet
    from pretrain.encoder import Encoder

LEVELS = ("level1", "level2", "level3")
GRID = 28
DIMENSIONS = 100
MAX_PATCHES = 8000
FEW, DRAWS_OF_FEW = 4, 2
RANDOM = "random"
METHODS = ("PaDiM, all normals", "neighbors, all normals", f"neighbors, {FEW} normals")


@dataclass(frozen=True)
class Config:
    """Measure an encoder on categories that it never saw, beside a random encoder.

    Attributes:
        encoder: The encoder file. Without one, the random encoder alone is measured.
        data: Folder of categories in MVTec AD's layout. Default is data/mvtec where it exists, else demo data.
        categories: Where to measure. Default is every category that the encoder was not pretrained on.
        size_px: Side of the square that images are stretched to.
        seed: Draws PaDiM's dimensions, the few normals, and the random encoder.
        json: Write the figures to this file.
    """

    encoder: Path | None = None
    data: Path | None = None
    categories: Names = Names()
    size_px: int = 224
    seed: int = 0
    json: Path | None = None


def main(config: Config) -> None:
    """Print a table with a row for each category and encoder."""
    from pretrain.data.dataset import choose_folder, data_name
    from pretrain.data.images import category_folders, check_names
    from pretrain.encoder import Encoder, load_encoder

    folder = choose_folder(config.data)
    encoders, seen = {RANDOM: Encoder("resnet18", config.seed).eval()}, set()
    if config.encoder:
        encoder = load_encoder(config.encoder)
        encoders = {RANDOM: Encoder(encoder.architecture, config.seed).eval(), str(config.encoder): encoder}
        seen = set(encoder.origin.categories if encoder.origin else ())
    found = category_folders(folder)
    check_names(config.categories, found, f"category in {folder}")
    if seen & set(config.categories):
        raise UserError(
            f"the encoder saw {', '.join(sorted(seen & set(config.categories)))}: figures there say nothing."
        )
    categories = config.categories or sorted(set(found) - seen)
    if not categories:
        raise UserError(f"the encoder saw every category of {folder}: pretrain one with --hold-out.")
    figures = {
        name: {category: probe(each, folder, category, config) for category in categories}
        for name, each in encoders.items()
    }
    print_table(figures, f"image AUROC on {data_name(folder)}, seed {config.seed}")
    if config.json:
        write_json(config.json, figures)


def probe(encoder: "Encoder", folder: Path, category: str, config: Config) -> dict[str, float]:
    """Image AUROC by method."""
    import torch
    from sklearn.metrics import roc_auc_score

    from pretrain.data.dataset import load

    images = load(folder, config.size_px, [category])
    normals = [i for i, record in enumerate(images.records) if record.split == "train" and not record.is_anomaly]
    tests = [i for i, record in enumerate(images.records) if record.split == "test"]
    labels = [images.records[i].is_anomaly for i in tests]
    if not normals or len(set(labels)) < 2:
        raise UserError(f"{category} needs good images in train/, and good and defective ones in test/.")
    references, queries = feature_maps(encoder, images, normals), feature_maps(encoder, images, tests)
    scores = [padim_scores(references, queries, config.seed), neighbor_scores(references, queries, config.seed)]
    few = []
    for draw in range(DRAWS_OF_FEW):
        generator = torch.Generator().manual_seed(config.seed * DRAWS_OF_FEW + draw)
        some = torch.randperm(len(references), generator=generator)[:FEW]
        few.append(roc_auc_score(labels, neighbor_scores(references[some], queries, config.seed)))
    return dict(zip(METHODS, [*(float(roc_auc_score(labels, score)) for score in scores), mean(few)], strict=True))


def feature_maps(encoder: "Encoder", image_set: "ImageSet", positions: list[int]) -> "Tensor":
    """Levels 1 to 3, smoothed over 3 x 3 cells, on one grid: float32 (n, c, GRID, GRID)."""
    import torch
    from torch.nn import functional as F

    def on_grid(maps: "Tensor") -> "Tensor":
        smooth = F.avg_pool2d(maps, 3, 1, 1) if maps.shape[-1] >= GRID else maps
        if maps.shape[-1] > GRID:
            return F.adaptive_avg_pool2d(smooth, GRID)
        return F.interpolate(smooth, (GRID, GRID), mode="bilinear")

    parts = []
    with torch.inference_mode():
        for start in range(0, len(positions), 32):
            pixels = torch.from_numpy(image_set.batch(positions[start : start + 32]))
            images = pixels.permute(0, 3, 1, 2).float().div(255)
            parts.append(torch.cat([on_grid(maps) for maps in encoder(images, LEVELS).values()], dim=1))
    return torch.cat(parts)


def padim_scores(references: "Tensor", queries: "Tensor", seed: int) -> "np.ndarray":
    """A Gaussian at every position of some random dimensions; Mahalanobis distance."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    some = torch.randperm(references.shape[1], generator=generator)[:DIMENSIONS]
    known, asked = (
        maps[:, some].flatten(2).permute(2, 0, 1).double() for maps in (references, queries)
    )  # (cells, n, d)
    center = known.mean(1, keepdim=True)
    covariance = (known - center).mT @ (known - center) / max(known.shape[1] - 1, 1)
    variance = covariance.diagonal(dim1=1, dim2=2).mean()  # features have no fixed unit: 0.01 of their variance
    covariance += (0.01 * variance + 1e-9) * torch.eye(len(some), dtype=torch.float64)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), (asked - center).mT, upper=False)
    return image_scores(whitened.square().sum(1).sqrt().T)


def neighbor_scores(references: "Tensor", queries: "Tensor", seed: int) -> "np.ndarray":
    """Distance to the nearest patch of the normals; of many, a random part. Levels 2 and 3, each of unit length."""
    import torch

    middle, deep = references.shape[1] // 7, 3 * references.shape[1] // 7  # channels double from level to level
    parts = [slice(middle, deep), slice(deep, None)]
    lengths = [references[:, part].norm(dim=1).mean() for part in parts]
    bank, asked = (
        torch.cat([maps[:, part] / length for part, length in zip(parts, lengths, strict=True)], dim=1)
        .permute(0, 2, 3, 1)
        .flatten(0, 2)
        for maps in (references, queries)
    )
    bank = bank[torch.randperm(len(bank), generator=torch.Generator().manual_seed(seed))[:MAX_PATCHES]]
    nearest = torch.cat([torch.cdist(part, bank).amin(1) for part in asked.split(8192)])
    return image_scores(nearest.view(len(queries), -1))


def image_scores(distances: "Tensor") -> "np.ndarray":
    """Distances (n, cells) -> the highest value of each map, smoothed."""
    from scipy.ndimage import gaussian_filter

    maps = distances.view(len(distances), GRID, GRID).numpy()
    return gaussian_filter(maps, sigma=(0, 0.7, 0.7)).max(axis=(1, 2))


def print_table(figures: dict[str, dict[str, dict[str, float]]], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for header in ("category", "encoder", *METHODS):
        table.add_column(header, justify="right" if header in METHODS else "left")
    categories = list(next(iter(figures.values())))
    for category in [*categories, "mean"]:
        for name, by_category in figures.items():
            rows = [by_category[category]] if category != "mean" else list(by_category.values())
            table.add_row(category, name, *(f"{mean(row[method] for row in rows):.3f}" for method in METHODS))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
