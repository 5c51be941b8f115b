"""From the kept predictions of cells to the figures of a table's row: plain JSON, None where one is not defined."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev

import numpy as np

from baselines.contract.metrics import always_anomalous, always_good, bootstrap_interval, image_figures
from baselines.contract.published import both_readings
from downstream.study.cell import IMAGENET, NO_ENCODER, RANDOM, SIMCLR, START, CellResult, RowKey
from downstream.study.significance import mean_interval, won_pairs
from pretrain.data.images import GOOD

# Cells from before some of these were computed lack them: then they are none, and the others are as they were.
PIXEL = ("auroc", "average_precision", "aupro", "aupro_5", "aupimo", "spro", "iou", "f1", "oracle_f1")
DECISIONS = ("true_good", "false_alarms", "missed", "found")
COUNTS = ("good", "defective", *DECISIONS)


def cell_figures(result: CellResult) -> dict:
    """Image and pixel figures of one cell in one dictionary."""
    image = image_figures(result.labels, result.scores, result.threshold.value)._asdict()
    return image | {f"pixel_{name}": result.pixel.get(name) for name in PIXEL}


def defect_auroc(result: CellResult, defect: str) -> float | None:
    """Image AUROC of one type of defect against all good images."""
    is_chosen = np.array([name in (defect, GOOD) for name in result.defects])
    return image_figures(result.labels[is_chosen], result.scores[is_chosen], result.threshold.value).auroc


def category_figures(by_seed: Mapping[int, CellResult]) -> dict:
    """Figures of one row on one category: by seed, their mean and standard deviation, the interval over images, image
    AUROC of each type of defect against all good ones, and the thresholds. `counts` are sums over seeds."""
    figures = {seed: cell_figures(result) for seed, result in by_seed.items()}
    names = [name for name in next(iter(figures.values())) if name not in COUNTS]
    defects = sorted({defect for result in by_seed.values() for defect in result.defects} - {GOOD})
    interval = _category_interval(by_seed)
    return {
        "figures": {name: spread([figures[seed][name] for seed in figures]) for name in names},
        "by_seed": {str(seed): {name: figures[seed][name] for name in names} for seed in figures},
        "counts": {name: sum(figures[seed][name] for seed in figures) for name in COUNTS},
        "interval": interval and list(interval),
        "defects": {name: spread([defect_auroc(result, name) for result in by_seed.values()]) for name in defects},
        "thresholds": {
            str(seed): {
                "value": result.threshold.value,
                "why": result.threshold.why,
                "count": result.threshold.count,
                "references": result.metadata["references"],
            }
            for seed, result in by_seed.items()
        },
    }


def row_figures(row: RowKey, by_category: Mapping[str, Mapping[int, CellResult]], study: dict) -> dict:
    """One row of the tables, category by category and on average."""
    methods = {method["name"]: method for method in study["methods"]}
    method = methods.get(row.method, {"title": row.method, "family": "", "is_control": False})
    categories = {category: category_figures(by_seed) for category, by_seed in by_category.items()}
    counts = {name: sum(category["counts"][name] for category in categories.values()) for name in COUNTS}
    matrices = [matrix for by_seed in by_category.values() if (matrix := won_by(by_seed)) is not None]
    interval = mean_interval(matrices)
    seeds = sorted({seed for by_seed in by_category.values() for seed in by_seed})
    return {
        "name": row.name,
        "method": row.method,
        "title": method["title"],
        "family": method["family"],
        "is_control": method["is_control"],
        "encoder": row.encoder,
        "shots": row.shots,
        "saw": {"": "nothing", "all": "all normals", "1": "1 normal"}.get(row.shots, f"{row.shots} normals"),
        "encoder_saw": encoder_saw(row.encoder, study),
        "encoder_started_from": encoder_started_from(row.encoder, study),
        "seeds": seeds,
        "figures": _means_over_categories(categories, seeds),
        "interval": interval and list(interval),
        "counts": counts,
        "readings": readings(counts),
        "categories": categories,
        "versus_random": None,
        "versus_start": None,
        "start_note": "",
        "cost": _cost([result.metadata for by_seed in by_category.values() for result in by_seed.values()]),
    }


def trivial_rows(truth: Mapping[str, np.ndarray]) -> list[dict]:
    """Calling every image good, and calling every image anomalous, given the labels by category: means over them."""
    rows = []
    for title, answer in (("always good", always_good), ("always anomalous", always_anomalous)):
        by_category = [answer(labels)._asdict() for labels in truth.values()]
        counts = {name: sum(figures[name] for figures in by_category) for name in COUNTS}
        names = [name for name in by_category[0] if name not in COUNTS]
        figures = {name: spread([mean_of_defined(figures[name] for figures in by_category)]) for name in names}
        rows.append({"title": title, "figures": figures, "counts": counts, "readings": readings(counts)})
    return rows


def encoder_saw(encoder: str, study: dict) -> str:
    """In words, what the encoder of a row was trained on."""
    if encoder == SIMCLR:
        seen = [", ".join(file["saw"]) for file in study["encoders"] if file["tested_on"]]
        if len(set(seen)) == 1:
            return seen[0]
        return "all categories but the tested one" if not study["allow_seen"] else "see the list of encoders"
    if encoder == START:
        starts = [file["start"]["saw"] for file in study["encoders"] if file["start"]["row"] == START]
        return "; ".join(dict.fromkeys(starts))
    return {RANDOM: "nothing, random weights", IMAGENET: "ImageNet-1k", NO_ENCODER: "no encoder"}[encoder]


def encoder_started_from(encoder: str, study: dict) -> str:
    """What the pretrained encoders of a row began with; of the others their name says it."""
    if encoder != SIMCLR:
        return ""
    starts = [file.get("started_from") for file in study["encoders"] if file["tested_on"]]
    return ", ".join(dict.fromkeys(start["name"] if start else "not known" for start in starts))


def readings(counts: Mapping[str, int]) -> list[dict]:
    """The same decisions read with the anomaly and with the good image as positive class."""
    return [reading._asdict() for reading in both_readings(**{name: counts[name] for name in DECISIONS})]


def won_by(by_seed: Mapping[int, CellResult]) -> np.ndarray | None:
    """`won_pairs` of the seeds of one category: (defective, good)."""
    results = list(by_seed.values())
    return won_pairs(results[0].labels, np.stack([result.scores for result in results]))


def mean_of_defined(values: Iterable[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return mean(defined) if defined else None


def spread(values: Sequence[float | None]) -> dict:
    """Mean and standard deviation over seeds of what is defined; the deviation needs two."""
    defined = [value for value in values if value is not None]
    return {
        "mean": mean(defined) if defined else None,
        "std": stdev(defined) if len(defined) > 1 else None,
        "count": len(defined),
    }


def _means_over_categories(categories: Mapping[str, dict], seeds: Sequence[int]) -> dict:
    """Of each figure: the mean over categories seed by seed, and the spread of these over seeds."""
    by_seed = [category["by_seed"] for category in categories.values()]
    means = {}
    for name in next(iter(categories.values()))["figures"]:
        # First over categories: the deviation is to show seeds, not how much categories differ.
        of_seeds = [[figures[str(seed)][name] for figures in by_seed if str(seed) in figures] for seed in seeds]
        means[name] = spread([mean_of_defined(values) for values in of_seeds])
    return means


def _category_interval(by_seed: Mapping[int, CellResult]) -> tuple[float, float] | None:
    if len(by_seed) == 1:
        (result,) = by_seed.values()
        return bootstrap_interval(result.labels, result.scores)
    matrix = won_by(by_seed)
    return mean_interval([matrix]) if matrix is not None else None


def _cost(metadata: Sequence[dict]) -> dict:
    peaks = [cell["peak_mb"] for cell in metadata if cell["peak_mb"] is not None]
    means = {name: mean(cell[name] for cell in metadata) for name in ("fit_s", "refer_s", "predict_ms")}
    return {**means, "peak_mb": max(peaks, default=None)}
