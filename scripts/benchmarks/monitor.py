"""Does the monitor rank encoders as real defects do? Spearman's rank correlation of its AUROC with that of test images.

    python scripts/benchmarks/monitor.py --data FOLDER --categories capsule --encoders random,imagenet,FILE,FILE

Its figure is of synthetic anomalies on normals that pretraining leaves out, by nearest patches, as `simclr.py` logs it,
and by PaDiM; the real one is of the test images by `--method` with all normals. `simclr.py --keep last` makes encoders
that the monitor would not keep.

Target: the rank correlation of the monitor's own figure, mean of all categories, half way from chance to 1 at least.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from pretrain.command import start
    from scripts.benchmarks.config import Monitor

    start("scripts.benchmarks.monitor:main", Monitor)

import math
import sys

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from baselines.contract.method import CPU, Images
from downstream.methods.catalogue import detect_class
from downstream.methods.padim import PaDiM
from pretrain import monitor
from pretrain.config import Config as Recipe
from pretrain.data.dataset import ImageSet, load
from pretrain.encoder import asked_encoder
from scripts.benchmarks.config import Monitor
from scripts.benchmarks.rounds import finish

FIGURES = ("nearest", "padim", "real")


def main(config: Monitor) -> int:
    images = load(config.data, config.size_px, config.categories, layout=config.layout)
    normals = load(config.data, 2 * config.monitor_px, config.categories, normals_only=True, layout=config.layout)
    lines, figures = [f"  {'':12}{'':50}{'nearest':>10}{'PaDiM':>10}{config.method:>10}"], {}
    for category in list(images.categories)[: 1 if config.quick else None]:
        found = {}
        for name in config.encoders:
            found[name] = figures_of(name, images.of(category), normals.of(category), config)
            lines.append(f"  {category:12}{name[-48:]:50}" + "".join(f"{value:10.3f}" for value in found[name]))
            print(lines[-1], file=sys.stderr, flush=True)
        ranks = rank_correlations([*found.values()])
        lines.append(f"  {category:12}{'rank correlation':50}" + "".join(f"{rank:10.2f}" for rank in ranks.values()))
        figures[category] = {"encoders": found, "spearman": ranks}
    ranks = [each["spearman"]["nearest"] for each in figures.values()]
    ranks = [rank for rank in ranks if not math.isnan(rank)]  # none where two encoders or more find as much
    mean_rank = float(np.mean(ranks)) if ranks else 0.0
    found = {"columns": FIGURES, "by_category": figures, "mean_rank": mean_rank}
    heading = "Does the monitor rank encoders as real defects do?"
    targets, packages = {"mean_rank": 0.5}, ("torch", "timm")
    return finish("monitor", config, lines, found, at_least=targets, packages=packages, heading=heading)


def figures_of(name: str, images: ImageSet, normals: ImageSet, config: Monitor) -> tuple[float, float, float]:
    """AUROC of synthetic anomalies by nearest patches and by PaDiM, and of a category's test images."""
    encoder, records = asked_encoder(name), images.records
    parts = normals.split({"learned from": 0.9, "unseen": 0.1}, seed=0)  # as simclr.py does
    watching = monitor.Monitor(parts["learned from"], parts["unseen"], Recipe(size_px=config.monitor_px), CPU)
    ((references, clean, synthetic),) = watching.categories
    labels = [0] * len(clean) + [1] * len(synthetic)
    good = [i for i, record in enumerate(records) if record.split == "train" and not record.is_anomaly]
    tests = [i for i, record in enumerate(records) if record.split == "test"]
    real = auroc(detect_class(config.method)(encoder=encoder), *(Images(images.subset(some)) for some in (good, tests)),
                 [records[i].is_anomaly for i in tests])  # fmt: skip
    by_padim = auroc(PaDiM(encoder=encoder), list(references), [*clean, *synthetic], labels)
    return watching.synthetic_auroc(encoder), by_padim, real


def rank_correlations(rows: list[tuple[float, ...]]) -> dict[str, float]:
    """Spearman's, of each other figure with the real one; none, nan, where a figure is the same of all encoders."""
    *others, real = zip(*rows, strict=True)
    return {name: spearmanr(column, real).statistic for name, column in zip(FIGURES, others, strict=False)}


def auroc(method, normals, tests, labels: list) -> float:
    predicted = method.fit([]).refer(normals).predict(tests)
    return float(roc_auc_score(labels, np.concatenate([each.scores.numpy() for each in predicted])))
