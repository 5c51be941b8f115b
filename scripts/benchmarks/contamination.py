"""What defective images among the good ones cost, and how much of it `detect.py fit --allow-contamination` saves.

    python scripts/benchmarks/contamination.py --data FOLDER --record RESULTS.md
    python scripts/benchmarks/contamination.py --data FOLDER --quick    # one category, 0 and 10 %

Half of the defective test images of each kind, drawn by the seed, may be mixed into the good training images; the other
half and the good test images are judged, the same at every share. The number of good images to fit to is the same at
every share too. `--allow-contamination` is given the true share, and 5 % where nothing is defective: what it costs
those who have none. Losses are against nothing mixed in and nothing left out.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from pretrain.command import start
    from scripts.benchmarks.config import Contamination

    start("scripts.benchmarks.contamination:main", Contamination)

import sys
from contextlib import redirect_stdout
from statistics import mean
from typing import NamedTuple

import numpy as np

from baselines.contract.method import Images
from baselines.contract.metrics import image_figures
from downstream.inspection.asked_method import make_method
from downstream.inspection.config import Fit
from downstream.inspection.normals import without_outliers
from downstream.methods.mutual import MAX_CONTAMINATION
from downstream.methods.references import own_threshold
from pretrain.command import UserError
from pretrain.data.dataset import ImageSet, load
from pretrain.progress import Progress
from scripts.benchmarks.config import Contamination
from scripts.benchmarks.rounds import finish

ALLOWED_WITHOUT_DEFECTS = 0.05
QUICK_SHARES = ("0", "10")


class Parts(NamedTuple):
    """Positions in a category: good ones to fit to, defective ones to mix in, in their order, and those judged."""

    good: list[int]
    mixed_in: list[int]
    judged: list[int]


class Cell(NamedTuple):
    """One fit: at a share, with outliers left out or not, how well it judges, and what was left out."""

    category: str
    seed: int
    share: float
    leaves_out: bool
    auroc: float
    balanced_accuracy: float
    defective_left_out: int = 0
    good_left_out: int = 0
    defective: int = 0


def main(config: Contamination) -> int:
    images = load(config.data, config.size_px, config.categories, layout=config.layout)
    categories = images.categories[:1] if config.quick else images.categories
    shares = shares_of(QUICK_SHARES if config.quick else config.shares)
    cells = []
    with Progress("fitting", len(categories) * len(config.seeds) * len(shares), "mixtures") as progress:
        for category in categories:
            for seed in map(int, config.seeds):
                of_category = images.of(category)
                parts = parts_of(of_category, max(shares), config.normals, seed)
                for share in shares:
                    cells += cells_of(of_category, parts, share, seed, config)
                    progress.print("; ".join(map(described, cells[-2:])))
                    progress.advance()
    lines = [
        f"{config.method} at {config.size_px} px, seeds {config.seeds}, losses against 0 % with none left out;",
        "left out: defective ones of those mixed in, and good ones, sums over categories and seeds",
        *table(cells, shares),
    ]
    figures = {"cells": [cell._asdict() for cell in cells]}
    return finish("contamination", config, lines, figures, packages=("torch", "faiss-gpu"))


def shares_of(percentages: tuple[str, ...]) -> list[float]:
    """Shares of 1, 0 first: all others are compared with it."""
    try:
        shares = sorted({0.0, *(float(each) / 100 for each in percentages)})
    except ValueError:
        raise UserError(f"--shares {','.join(percentages)} are no percentages: give such as 0,5,10.") from None
    if not 0 <= shares[0] <= shares[-1] < MAX_CONTAMINATION:
        raise UserError(f"--shares {','.join(percentages)} must be from 0 to below {100 * MAX_CONTAMINATION:g}.")
    return shares


def parts_of(images: ImageSet, highest_share: float, most_normals: int, seed: int) -> Parts:
    """Who is fitted to, who may be mixed in, and who is judged."""
    generator = np.random.default_rng([seed, 0xC0])
    records = images.records
    defective, judged = [], [i for i, r in enumerate(records) if r.split == "test" and not r.is_anomaly]
    for defect in sorted({record.defect for record in records if record.is_anomaly}):
        of_kind = generator.permutation([i for i, r in enumerate(records) if r.defect == defect]).tolist()
        defective += of_kind[: len(of_kind) // 2]
        judged += of_kind[len(of_kind) // 2 :]
    good = generator.permutation([i for i, r in enumerate(records) if r.split == "train" and not r.is_anomaly]).tolist()
    if highest_share:
        most_normals = min(most_normals, int(len(defective) * (1 - highest_share) / highest_share))
    return Parts(good[:most_normals], generator.permutation(defective).tolist(), judged)


def cells_of(images: ImageSet, parts: Parts, share: float, seed: int, config: Contamination) -> list[Cell]:
    """Fitted to all, and without the outliers."""
    defective = parts.mixed_in[: round(share / (1 - share) * len(parts.good))]
    mixed = images.subset(sorted([*parts.good, *defective]))
    fit = Fit(
        data=config.data, method=config.method, size_px=config.size_px, seed=seed,
        allow_contamination=share or ALLOWED_WITHOUT_DEFECTS,
    )  # fmt: skip
    with redirect_stdout(sys.stderr):
        method = make_method(fit, fit.data, print)
        kept, left_out = without_outliers(mixed, method, fit, print)
    (category,) = images.categories
    judged = images.subset(parts.judged)
    without = Cell(category, seed, share, False, *judge(method, mixed, judged, fit), defective=len(defective))
    found = sum(record.is_anomaly for record in left_out.records)
    figures = judge(method, kept, judged, fit) if len(left_out) else without[4:6]
    return [without, Cell(category, seed, share, True, *figures, found, len(left_out) - found, len(defective))]


def judge(method, normals: ImageSet, judged: ImageSet, fit: Fit) -> tuple[float, float]:
    """AUROC, and balanced accuracy at the threshold that the normals give."""
    method.fit([]).refer(Images(normals))
    threshold = own_threshold(method, Images(normals), fit.false_alarm_rate, {}, fit.seed)
    scores = np.concatenate([each.cpu().scores.numpy() for each in method.predict(Images(judged))])
    labels = np.array([record.is_anomaly for record in judged.records])
    figures = image_figures(labels, scores, threshold.value)
    return figures.auroc, figures.balanced_accuracy


def described(cell: Cell) -> str:
    left_out = f" without {cell.defective_left_out} defective and {cell.good_left_out} good" if cell.leaves_out else ""
    return f"{cell.category} {cell.share:.0%}{left_out}: AUROC {cell.auroc:.3f}, accuracy {cell.balanced_accuracy:.3f}"


def table(cells: list[Cell], shares: list[float]) -> list[str]:
    """A row for each category and share, and for their means."""
    lines = [
        f"  {'':14}{'':>5}{'all fitted to':>20}{'outliers left out':>20}{'':>22}",
        f"  {'category':14}{'%':>5}{'AUROC':>10}{'bal. acc.':>10}{'AUROC':>10}{'bal. acc.':>10}{'left out':>22}",
    ]
    for category in [*dict.fromkeys(cell.category for cell in cells)]:
        lines += [row(category, share, [c for c in cells if c.category == category]) for share in shares]
    lines += [row("mean", share, cells) for share in shares]
    lines += [row("mean lost", share, cells, lost=True) for share in shares]
    return lines


def row(name: str, share: float, cells: list[Cell], lost: bool = False) -> str:
    """Figures of one share, or how much less they are than at 0 % with nothing left out."""
    line = f"  {name:14}{100 * share:5.0f}"
    for leaves_out in (False, True):
        for figure in ("auroc", "balanced_accuracy"):
            value = mean_of(cells, share, leaves_out, figure)
            value = mean_of(cells, 0.0, False, figure) - value if lost else value
            line += f"{value:10.3f}"
    if lost:
        return line
    leaving = [cell for cell in cells if cell.share == share and cell.leaves_out]
    found, mixed_in, good = (
        sum(getattr(cell, count) for cell in leaving) for count in ("defective_left_out", "defective", "good_left_out")
    )
    return f"{line}{f'{found} of {mixed_in}, {good} good':>22}"


def mean_of(cells: list[Cell], share: float, leaves_out: bool, figure: str) -> float:
    return mean(getattr(cell, figure) for cell in cells if (cell.share, cell.leaves_out) == (share, leaves_out))
