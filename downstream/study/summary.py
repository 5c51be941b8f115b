"""From finished cells to every figure of the report: plain JSON, computed from the kept predictions alone."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from baselines.contract.metrics import always_anomalous, always_good, bootstrap_interval, image_figures
from baselines.contract.published import PUBLISHED_NAME, PUBLISHED_ON, both_readings, published_readings
from downstream.study.cell import IMAGENET, NONE, RANDOM, SIMCLR, Result, Row, read
from downstream.study.significance import difference, holm, mean_interval, won_pairs
from pretrain.command import UserError
from pretrain.data.images import GOOD

FORMAT = 1
RESTORATION_FILE = "restoration.json"
# Above this the frame of an image alone tells so much that image figures need not be about defects.
FRAME_IS_HIGH = 0.7
# Fewer good test images than this, and one false alarm more moves a figure by over 5 %.
FEW_IMAGES = 20
PIXEL = ("auroc", "average_precision", "aupro", "iou")
COUNTS = ("good", "defective", "true_good", "false_alarms", "missed", "found")

Results = dict[Row, dict[str, dict[int, Result]]]


def summarize(folder: Path, study: dict) -> tuple[dict, Results]:
    """All figures of a study's finished cells, and the cells by row, category and seed. Raises UserError where none is
    finished."""
    results, missing = read_results(folder, study["cells"])
    if not results:
        reasons = {failure["reason"] for failure in study["failures"]}
        raise UserError(f"no part of the study in {folder} is finished{': ' if reasons else '.'}{' '.join(reasons)}")
    methods = {method["name"]: method for method in study["methods"]}
    categories = list(dict.fromkeys(fold["test"] for fold in study["folds"]))
    rows = [row_summary(row, by_category, methods, study) for row, by_category in results.items()]
    compare_with_random(rows, results)
    truth = _truth(results)
    summary = {
        "format": FORMAT,
        **{name: value for name, value in study.items() if name != "cells"},
        "categories": categories,
        "images": {category: _counts(labels) for category, labels in truth.items()},
        "parts": {"finished": len(study["cells"]) - missing, "planned": len(study["cells"])},
        "rows": rows,
        "trivial": trivial_rows(truth),
        "restoration": read_restoration(folder),
        "published": {"name": PUBLISHED_NAME, "on": PUBLISHED_ON,
                      "readings": [reading._asdict() for reading in published_readings()]},
    }  # fmt: skip
    summary["warnings"] = study["warnings"] + more_warnings(summary)
    return summary, results


def read_restoration(folder: Path) -> dict | None:
    """The table of restorers, where they were compared."""
    file = folder / RESTORATION_FILE
    return json.loads(file.read_text()) if file.is_file() else None


def read_results(folder: Path, names: Iterable[str]) -> tuple[Results, int]:
    """The cells that are there, and how many are not."""
    results: Results = defaultdict(lambda: defaultdict(dict))
    missing = 0
    for name in names:
        try:
            result = read(folder / name)
        except UserError:
            missing += 1
            continue
        results[Row(**result.cell["row"])][result.cell["category"]][result.cell["seed"]] = result
    return {row: dict(by_category) for row, by_category in results.items()}, missing


def row_summary(row: Row, by_category: dict[str, dict[int, Result]], methods: dict, study: dict) -> dict:
    """One line of the tables, category by category and on average; a figure that is nowhere defined is None."""
    categories = {category: category_summary(by_seed) for category, by_seed in by_category.items()}
    matrices = [matrix for by_seed in by_category.values() if (matrix := _won(by_seed)) is not None]
    interval = mean_interval(matrices)
    seeds = sorted({seed for by_seed in by_category.values() for seed in by_seed})
    figures = {}
    by_seed = [category["by_seed"] for category in categories.values()]
    for name in next(iter(categories.values()))["figures"]:
        means = [_mean(found[str(seed)][name] for found in by_seed if str(seed) in found) for seed in seeds]
        figures[name] = _spread(means)
    totals = {name: sum(category["counts"][name] for category in categories.values()) for name in COUNTS}
    method = methods.get(row.method, {"title": row.method, "family": "", "is_control": False})
    metadata = [result.metadata for by_seed in by_category.values() for result in by_seed.values()]
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
        "seeds": seeds,
        "figures": figures,
        "interval": interval and list(interval),
        "counts": totals,
        "readings": [reading._asdict() for reading in both_readings(**_decisions(totals))],
        "categories": categories,
        "control": None,
        "cost": {
            "fit_s": mean(fact["fit_s"] for fact in metadata),
            "refer_s": mean(fact["refer_s"] for fact in metadata),
            "predict_ms": mean(fact["predict_ms"] for fact in metadata),
            "peak_mb": max((fact["peak_mb"] for fact in metadata if fact["peak_mb"] is not None), default=None),
        },
    }


def category_summary(by_seed: dict[int, Result]) -> dict:
    """Figures of one row on one category: by seed, their mean and standard deviation, the interval over images, image
    AUROC of each kind of defect against all good ones, and the thresholds. `counts` are sums over seeds."""
    figures = {seed: seed_figures(result) for seed, result in by_seed.items()}
    counts = {name: sum(figures[seed][name] for seed in figures) for name in COUNTS}
    names = [name for name in next(iter(figures.values())) if name not in COUNTS]
    kinds = sorted({kind for result in by_seed.values() for kind in result.kinds} - {GOOD})
    matrix = _won(by_seed)
    interval = None
    if len(by_seed) == 1:
        (only,) = by_seed.values()
        interval = bootstrap_interval(only.labels, only.scores)
    elif matrix is not None:
        interval = mean_interval([matrix])
    return {
        "figures": {name: _spread([figures[seed][name] for seed in figures]) for name in names},
        "by_seed": {str(seed): {name: figures[seed][name] for name in names} for seed in figures},
        "counts": counts,
        "interval": interval and list(interval),
        "kinds": {kind: _spread([kind_auroc(result, kind) for result in by_seed.values()]) for kind in kinds},
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


def seed_figures(result: Result) -> dict:
    """Image and pixel figures of one cell in one dictionary."""
    image = image_figures(result.labels, result.scores, result.threshold.value)._asdict()
    return image | {f"pixel_{name}": result.pixel.get(name) for name in PIXEL}


def kind_auroc(result: Result, kind: str) -> float | None:
    """Image AUROC of one kind of defect against all good images."""
    chosen = np.array([kind == one or one == GOOD for one in result.kinds])
    return image_figures(result.labels[chosen], result.scores[chosen], result.threshold.value).auroc


def compare_with_random(rows: Sequence[dict], results: Results) -> None:
    """Test each row with a trained encoder against the same row with the random one, on the images of the categories
    that both have, over the seeds that both have."""
    tested = []
    for row in rows:
        if row["encoder"] in (NONE, RANDOM):
            continue
        own = results[Row(row["method"], row["encoder"], row["shots"])]
        control = results.get(Row(row["method"], RANDOM, row["shots"]))
        if control is None:
            continue
        pairs = []
        for category in own.keys() & control.keys():
            seeds = sorted(own[category].keys() & control[category].keys())
            both = (
                [_won({seed: side[category][seed] for seed in seeds}) for side in (own, control)] if seeds else [None]
            )
            if both[0] is not None:
                pairs.append(both)
        apart = difference([pair[0] for pair in pairs], [pair[1] for pair in pairs])
        if apart is not None:
            row["control"] = {"difference": apart.value, "p": apart.p, "categories": len(pairs)}
            tested.append(row["control"])
    for control, p in zip(tested, holm([control["p"] for control in tested]), strict=True):
        control["p_holm"] = p


def trivial_rows(truth: dict[str, np.ndarray]) -> list[dict]:
    """Calling every image good, and calling every image anomalous: means over categories."""
    rows = []
    for title, answer in (("always good", always_good), ("always anomalous", always_anomalous)):
        by_category = [answer(labels)._asdict() for labels in truth.values()]
        totals = {name: sum(figures[name] for figures in by_category) for name in COUNTS}
        names = [name for name in by_category[0] if name not in COUNTS]
        figures = {name: _spread([_mean(figures[name] for figures in by_category)]) for name in names}
        readings = [reading._asdict() for reading in both_readings(**_decisions(totals))]
        rows.append({"title": title, "figures": figures, "counts": totals, "readings": readings})
    return rows


def more_warnings(summary: dict) -> list[str]:
    """What the figures themselves warn of."""
    lines = []
    for row in summary["rows"]:
        if row["method"] != "frame":
            continue
        for category, found in row["categories"].items():
            auroc, interval = found["figures"]["auroc"]["mean"], found["interval"]
            if auroc is not None and auroc >= FRAME_IS_HIGH and interval[0] > 0.5:
                lines.append(
                    f"{category}: the outermost tenth of the images alone has image AUROC {auroc:.2f}. Good and "
                    "defective ones differ there too, perhaps by how they were lit, so image figures of this category "
                    "may not be about defects; trust the pixel figures"
                )
    rough = [category for category, count in summary["images"].items() if 0 < min(count.values()) < FEW_IMAGES]
    if rough:
        lines.append(
            f"fewer than {FEW_IMAGES} good or defective test images of {', '.join(rough)}: figures there are "
            "rough, see the intervals"
        )
    needed = round(1 / summary["false_alarm_rate"]) - 1
    few = {found["references"] for row in summary["rows"] if row["shots"] == "all"
           for category in row["categories"].values() for found in category["thresholds"].values()}  # fmt: skip
    if few and min(few) < needed:
        lines.append(f"with {min(few)} normals a false-alarm rate of "
            f"{summary['false_alarm_rate']:.0%} cannot be promised: it "
                     f"takes {needed}; with fewer, thresholds rest on an assumption (see 'Thresholds')")  # fmt: skip
    if summary["quick"]:
        lines.append("made with --quick: small images, few epochs, one seed; it shows that everything runs")
    if summary["parts"]["finished"] < summary["parts"]["planned"]:
        lines.append(f"{summary['parts']['finished']} of {summary['parts']['planned']} parts are finished: averages of "
                     "rows that lack a category or a seed do not compare with others")  # fmt: skip
    return lines


def failure_lines(failures: Iterable[dict]) -> list[str]:
    """What failed, a line for each reason."""
    parts = defaultdict(list)
    for failure in failures:
        parts[failure["reason"]].append(failure)
    lines = []
    for reason, failed in parts.items():
        rows = dict.fromkeys(Row(**failure["row"]).name for failure in failed)
        categories = dict.fromkeys(failure["category"] for failure in failed)
        lines.append(f"{len(failed)} parts failed ({', '.join(rows)} on {', '.join(categories)}): {reason}")
    return lines


def encoder_saw(kind: str, study: dict) -> str:
    """In words, what the encoder of a row was trained on."""
    if kind == SIMCLR:
        seen = [", ".join(encoder["saw"]) for encoder in study["encoders"] if encoder["judged_on"]]
        if len(set(seen)) == 1:
            return seen[0]
        return "all categories but the tested one" if not study["allow_seen"] else "see the list of encoders"
    return {RANDOM: "nothing, random weights", IMAGENET: "ImageNet-1k", NONE: "no encoder"}[kind]


def _won(by_seed: dict[int, Result]) -> np.ndarray | None:
    found = list(by_seed.values())
    return won_pairs(found[0].labels, np.stack([result.scores for result in found]))


def _truth(results: Results) -> dict[str, np.ndarray]:
    """Labels of the test images by category."""
    return {
        category: next(iter(by_seed.values())).labels
        for by_category in results.values()
        for category, by_seed in by_category.items()
    }


def _counts(labels: np.ndarray) -> dict[str, int]:
    return {"good": int((~labels).sum()), "defective": int(labels.sum())}


def _decisions(counts: dict) -> dict:
    return {name: counts[name] for name in ("true_good", "false_alarms", "missed", "found")}


def _mean(values: Iterable[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return mean(defined) if defined else None


def _spread(values: Sequence[float | None]) -> dict:
    """Mean and standard deviation over seeds of what is defined; the deviation needs two."""
    defined = [value for value in values if value is not None]
    return {
        "mean": mean(defined) if defined else None,
        "std": stdev(defined) if len(defined) > 1 else None,
        "count": len(defined),
    }
