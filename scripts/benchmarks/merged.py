"""What a coreset that was merged from coresets of parts is worth beside one: its radius, and the defects found by it.

    python scripts/benchmarks/merged.py --data FOLDER --record RESULTS.md
    python scripts/benchmarks/merged.py --quick        # one category, 1 and 4 parts

The good training images of each category are divided among so many parts, drawn by the seed. Each part is looked at
apart and all are merged, as `detect.py fit --data MANIFEST` does; with one part it is the usual fit. The radius is how
far the farthest patch of all of them lies from the nearest that was kept, in radii of the usual fit.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from pretrain.command import start
    from scripts.benchmarks.config import Merged

    start("scripts.benchmarks.merged:main", Merged)

from statistics import mean
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from baselines.contract.method import Images
from baselines.contract.metrics import image_figures
from downstream.inspection.asked_method import make_method
from downstream.inspection.config import Fit
from downstream.methods.coreset import squared_distances
from downstream.methods.parts import InParts
from downstream.methods.references import own_threshold
from pretrain.command import UserError
from pretrain.data.dataset import ImageSet, load
from pretrain.progress import Progress
from scripts.benchmarks.config import Merged
from scripts.benchmarks.rounds import finish

QUICK_PARTS = ("4",)
PATCHES_AT_ONCE = 4096


class Cell(NamedTuple):
    """One fit of so many parts."""

    category: str
    seed: int
    parts: int
    kept: int
    radius: float
    auroc: float
    balanced_accuracy: float


def main(config: Merged) -> int:
    images = load(config.data, config.size_px, config.categories, layout=config.layout)
    categories = images.categories[:1] if config.quick else images.categories
    counts = counts_of(QUICK_PARTS if config.quick else config.parts)
    if not all(seed.isdecimal() for seed in config.seeds):
        raise UserError(f"--seeds {','.join(config.seeds)} are no seeds: give such as 0,1,2.")
    cells = []
    with Progress("fitting", len(categories) * len(config.seeds) * len(counts), "models") as progress:
        for category in categories:
            for seed in map(int, config.seeds):
                for count in counts:
                    cells.append(cell_of(images.of(category), count, seed, config))
                    progress.advance()
    lines = [f"{config.method} at {config.size_px} px, seeds {','.join(config.seeds)}", *table(cells, counts)]
    return finish("merged", config, lines, {"cells": [each._asdict() for each in cells]}, packages=("torch",))


def counts_of(typed: tuple[str, ...]) -> list[int]:
    """Numbers of parts, 1 first: all others are compared with it."""
    if not all(each.isdecimal() and int(each) for each in typed):
        raise UserError(f"--parts {','.join(typed)} are no numbers of parts: give such as 1,4,16.")
    return sorted({1, *map(int, typed)})


def cell_of(images: ImageSet, count: int, seed: int, config: Merged) -> Cell:
    """Fit, and judge the test images."""
    good = [i for i, record in enumerate(images.records) if record.split == "train" and not record.is_anomaly]
    good = np.random.default_rng([seed, 0xC1]).permutation(good).tolist()
    tested = images.subset([i for i, record in enumerate(images.records) if record.split == "test"])
    normals = Images(images.subset(good))
    fit = Fit(data=config.data, method=config.method, size_px=config.size_px, seed=seed)
    method = make_method(fit, fit.data, lambda line: None)
    if not isinstance(method, InParts):
        raise UserError(f"{config.method} is not fitted in parts: measure patchcore or fused.")
    space = method.space_of(normals)
    chunks = [images.subset(chunk) for chunk in np.array_split(good, min(count, len(good)))]
    if count == 1:
        method.refer(normals)
    else:
        method.refer_to_parts((method.part_of(Images(chunk), space) for chunk in chunks), space, normals)
    scores = np.concatenate([each.cpu().scores.numpy() for each in method.predict(Images(tested))])
    labels = np.array([record.is_anomaly for record in tested.records])
    figures = image_figures(labels, scores, own_threshold(method, normals, fit.false_alarm_rate, {}, seed).value)
    (category,) = images.categories
    kept = getattr(method, "coreset_", torch.empty(0, 1))
    radius = radius_of(method, normals, kept) if len(kept) else 0.0
    return Cell(category, seed, count, len(kept), radius, figures.auroc, figures.balanced_accuracy)


@torch.inference_mode()
def radius_of(method: InParts, normals: Images, kept: Tensor) -> float:
    """How far the farthest of all patches of the normals lies from the nearest one that was kept."""
    farthest = 0.0
    for position in range(len(normals)):
        patches = method._projected(method.patches(normals[position][None]).flatten(0, 2))
        for part in patches.split(PATCHES_AT_ONCE):
            farthest = max(farthest, float(squared_distances(part, kept).amin(1).max()))
    return farthest**0.5


def table(cells: list[Cell], counts: list[int]) -> list[str]:
    """A row for each category and number of parts, means over seeds, and for the means of all."""
    usual = {(cell.category, cell.seed): cell.radius for cell in cells if cell.parts == 1}
    lines = [f"  {'category':14}{'parts':>6}{'kept':>8}{'radius':>8}{'AUROC':>8}{'bal. acc.':>11}"]
    for name in [*dict.fromkeys(cell.category for cell in cells), "mean"]:
        for count in counts:
            those = [cell for cell in cells if cell.parts == count and name in (cell.category, "mean")]
            radius = mean(cell.radius / (usual[cell.category, cell.seed] or 1.0) for cell in those)
            lines.append(
                f"  {name:14}{count:6}{round(mean(cell.kept for cell in those)):8}{radius:8.2f}"
                f"{mean(cell.auroc for cell in those):8.3f}{mean(cell.balanced_accuracy for cell in those):11.3f}"
            )
    return lines
