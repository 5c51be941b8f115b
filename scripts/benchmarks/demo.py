"""Whether the demo's defects are found: the obvious half, which anybody sees, and the other half, which is hard to see.

    python scripts/benchmarks/demo.py --check --record RESULTS.md
    python scripts/benchmarks/demo.py --quick        # one category

The demo generator draws a severity for each defect; the obvious half has more than 0.5. Methods are fitted as
`detect.py fit` does it with its defaults, to the good images of each category, with ImageNet's weights and with random
ones. Figures are image AUROCs against all good test images, the mean of the categories.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from pretrain.command import start
    from scripts.benchmarks.config import Demo

    start("scripts.benchmarks.demo:main", Demo)

from pathlib import Path
from statistics import mean

from sklearn.metrics import roc_auc_score

from downstream.inspection.inspector import Inspector
from pretrain.demo import make, severity
from pretrain.encoder import make_encoder
from pretrain.progress import Progress
from scripts.benchmarks.config import Demo
from scripts.benchmarks.rounds import finish

METHODS = ("padim", "fused")
STARTS = ("imagenet", "random")
OBVIOUS_FROM = 0.5


def main(config: Demo) -> int:
    categories = config.categories[:1] if config.quick else config.categories
    make(config.data, categories=config.categories)
    chosen = [(method, start) for method in METHODS for start in STARTS]
    found: dict[tuple[str, str], list[tuple[float, float]]] = {each: [] for each in chosen}
    with Progress("fitting and judging", len(chosen) * len(categories), "models") as progress:
        for method, start in chosen:
            for category in categories:
                found[method, start].append(aurocs(config.data / category, method, start))
                progress.advance()
    lines = [f"{'':24}{'obvious half':>14}{'the other':>12}"]
    figures = {}
    for (method, start), pairs in found.items():
        obvious, other = (mean(values) for values in zip(*pairs, strict=True))
        figures |= {f"{method}_{start}_obvious": obvious, f"{method}_{start}_other": other}
        lines.append(f"{method + ', ' + start:24}{obvious:14.3f}{other:12.3f}")
    figures["padim_gain_obvious"] = figures["padim_imagenet_obvious"] - figures["padim_random_obvious"]
    at_least = {"padim_imagenet_obvious": 0.95, "padim_gain_obvious": 0.05}
    return finish("demo", config, lines, figures, at_least=at_least, packages=("torch", "timm"))


def aurocs(folder: Path, method: str, start: str) -> tuple[float, float]:
    """Of the obvious defects of a category, and of the others, each against its good test images."""
    inspector = Inspector.fit(folder / "train" / "good", method=method, encoder=make_encoder(start=start))
    scores: dict[str, list[float]] = {"good": [], "obvious": [], "other": []}
    for path in sorted((folder / "test").glob("*/*.png")):
        defect = path.parent.name
        harm = 0.0 if defect == "good" else severity(folder.name, "test", defect, int(path.stem), seed=0)
        half = "good" if defect == "good" else "obvious" if harm > OBVIOUS_FROM else "other"
        scores[half].append(inspector.predict(path).score)
    good = scores["good"]
    return tuple(
        float(roc_auc_score([0] * len(good) + [1] * len(scores[half]), good + scores[half]))
        for half in ("obvious", "other")
    )
