"""What a CAM is worth on products that it never saw: figures in both readings, a confusion matrix, a grid."""

import json
import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.table import Table

from baselines.cam.config import Test
from baselines.cam.method import Cam
from baselines.contract.heatmap import draw_heatmap, draw_regions
from baselines.contract.method import Images, Samples
from baselines.contract.metrics import ImageFigures, always_good, image_figures, number
from baselines.contract.pixel_metrics import pixel_figures
from baselines.contract.published import PUBLISHED_NAME, PUBLISHED_ON, Reading, both_readings, published_readings
from baselines.contract.regions import regions
from baselines.contract.threshold import Threshold, threshold_from_normals
from pretrain.command import UserError
from pretrain.data.dataset import ImageSet, data_name
from pretrain.drawing import (
    CURVE,
    FAINT,
    INK,
    MARGIN_PX,
    PAPER,
    Curve,
    Thumbnail,
    contact_sheet,
    curves,
    save_image,
)
from pretrain.files import write_json, write_whole
from pretrain.progress import Progress

# A score is -log P(good): this one is where both answers are as probable, the published decision.
AS_PROBABLE = math.log(2)
PUBLISHED_RULE, CALIBRATED_RULE = "more probable than not", "calibrated"


@dataclass
class CamEvaluation:
    """`labels` bool (n,), `scores` float32 (n,), `maps` float32 (n, h, w) of `images`, and thresholds by rule."""

    images: ImageSet
    title: str
    labels: np.ndarray
    scores: np.ndarray
    maps: np.ndarray
    thresholds: dict[str, Threshold]
    map_threshold: Threshold
    minimum_area_px: int
    shown: int

    def figures(self, rule: str, category: str | None = None) -> ImageFigures:
        """Of all images, or of a category's."""
        chosen = [category in (None, record.category) for record in self.images.records]
        return image_figures(self.labels[chosen], self.scores[chosen], self.thresholds[rule].value)


def evaluate(method: Cam, images: ImageSet, metadata: dict, config: Test) -> CamEvaluation:
    """Predict all images. `metadata` is what training left: its categories and scores of calibration normals."""
    if not metadata["normal_scores"]:
        raise UserError("the training categories had no good images to calibrate with: train with more of them.")
    predictions = []
    with Progress("evaluating", len(images)) as progress:
        for prediction in method.predict(Images(images)):
            predictions.append(prediction.cpu())
            progress.advance(len(prediction.scores))
    start = ", from scratch" if metadata["weights"] == "random" else f", {metadata['weights']}"
    # Published decisions have no false-alarm rate behind them.
    as_probable = Threshold(AS_PROBABLE, math.nan, 0, "the more probable answer, as published.")
    return CamEvaluation(
        images=images,
        title=f"{method.title}{start}: trained on {', '.join(metadata['categories'])}, "
        f"tested on {', '.join(images.categories)} ({data_name(images.folder)})",
        labels=np.array([record.is_anomaly for record in images.records]),
        scores=torch.cat([prediction.scores for prediction in predictions]).numpy(),
        maps=torch.cat([prediction.maps for prediction in predictions]).numpy(),
        thresholds={
            PUBLISHED_RULE: as_probable,
            CALIBRATED_RULE: threshold_from_normals(metadata["normal_scores"], config.false_alarm_rate),
        },
        map_threshold=threshold_from_normals(metadata["normal_peaks"], config.false_alarm_rate),
        minimum_area_px=config.minimum_area,
        shown=config.shown,
    )


def print_report(evaluation: CamEvaluation) -> None:
    """Both readings of each decision beside the trivial answer and the published row; then each category."""
    table = Table(title=evaluation.title)
    for header in ("", "positive", "accuracy", "balanced", "precision", "recall", "F1"):
        table.add_column(header, justify="left" if header in ("", "positive") else "right")
    rows = [(name, readings_of(evaluation.figures(name))) for name in evaluation.thresholds]
    rows.append(("always good", readings_of(always_good(evaluation.labels))))
    rows.append((f"{PUBLISHED_NAME}, on {PUBLISHED_ON}", published_readings()))
    for name, readings in rows:
        for first, reading in zip((name, ""), readings, strict=True):
            table.add_row(first, reading.positive, *(number(value) for value in reading[1:]))
        table.add_section()
    console = Console(width=120)
    console.print(table)
    for category in evaluation.images.categories:
        usual, own = (evaluation.figures(rule, category) for rule in evaluation.thresholds)
        pixels = pixels_of(evaluation, category)
        print(f"{category}: {usual.good} good, {usual.defective} defective; AUROC {number(usual.auroc)}, balanced "
              f"accuracy {number(usual.balanced_accuracy)}, calibrated {number(own.balanced_accuracy)}, pixel "
              f"AUROC {number(pixels.get('auroc'))}")  # fmt: skip
    print(f"calibrated threshold: {evaluation.thresholds[CALIBRATED_RULE].why}")


def write_report(evaluation: CamEvaluation, out: Path) -> None:
    """results.json, predictions.jsonl, confusion.png and predictions.png."""
    rules = {rule: evaluation.figures(rule) for rule in evaluation.thresholds}
    result = {
        "title": evaluation.title,
        "thresholds": {rule: _stated(threshold) for rule, threshold in evaluation.thresholds.items()},
        "map_threshold": evaluation.map_threshold._asdict(),
        "figures": {rule: {category or "all": evaluation.figures(rule, category)._asdict()
                           for category in (None, *evaluation.images.categories)} for rule in evaluation.thresholds},
        "readings": {rule: [r._asdict() for r in readings_of(figures)] for rule, figures in rules.items()},
        "always_good": [reading._asdict() for reading in readings_of(always_good(evaluation.labels))],
        "published": [reading._asdict() for reading in published_readings()],
        "pixels": {category: pixels_of(evaluation, category) for category in evaluation.images.categories},
    }  # fmt: skip
    write_json(out / "results.json", result)
    lines = [
        {
            "path": str(record.path.relative_to(evaluation.images.folder)),
            "is_anomaly": record.is_anomaly,
            "score": float(score),
            "probability": probability(score),
            "is_called": bool(score > np.float32(evaluation.thresholds[CALIBRATED_RULE].value)),
        }
        for record, score in zip(evaluation.images.records, evaluation.scores, strict=True)
    ]
    write_whole(out / "predictions.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    save_image(confusion_image(rules), out / "confusion.png")
    save_image(grid(evaluation), out / "predictions.png")
    print(f"figures:  {out / 'results.json'}")
    print(f"images:   {out / 'confusion.png'}, {out / 'predictions.png'}")


def calibration_maps(method: Cam, images: ImageSet, metadata: dict, shown: int = 3) -> Image.Image | None:
    """What `grid` shows of calibration images, which the method did not learn from; none without thresholds."""
    if not metadata["normal_scores"]:
        return None
    counts: Counter[tuple[str, bool]] = Counter()
    chosen = []
    for position, record in enumerate(images.records):
        counts[record.category, record.is_anomaly] += 1
        if counts[record.category, record.is_anomaly] <= shown:
            chosen.append(position)
    evaluation = evaluate(method, images.subset(chosen), metadata, Test(shown=shown))
    return grid(replace(evaluation, title=f"{method.title}: calibration images, of which it learned nothing"))


def readings_of(figures: ImageFigures) -> list[Reading]:
    return both_readings(figures.true_good, figures.false_alarms, figures.missed, figures.found)


def pixels_of(evaluation: CamEvaluation, category: str) -> dict:
    """Pixel figures over a category's good images and those with masks; empty without masks."""
    records, samples = evaluation.images.records, Samples(evaluation.images)
    in_category = [i for i, record in enumerate(records) if record.category == category]
    chosen = [i for i in in_category if records[i].mask or not records[i].is_anomaly]
    if not any(records[i].mask for i in chosen):
        return {}
    masks = np.zeros((len(chosen), *evaluation.maps.shape[1:]), bool)
    for row, i in enumerate(chosen):
        if records[i].mask:
            masks[row] = samples[i].mask.numpy()
    return pixel_figures(evaluation.maps[chosen], masks, evaluation.map_threshold.value)._asdict()


def probability(score: float) -> float:
    """Of being defective, from a score."""
    return -math.expm1(-float(score))  # 1 - exp(-score), exact where the score is small


def grid(evaluation: CamEvaluation) -> Image.Image:
    """Good and defective images of each category: probability, verdict, heatmap, boxes, and the true defect in blue."""
    threshold, limit = evaluation.thresholds[CALIBRATED_RULE].value, evaluation.map_threshold.value
    samples, rows = Samples(evaluation.images), []
    for category in evaluation.images.categories:
        for is_defective in (False, True):
            alike = [
                i for i, record in enumerate(evaluation.images.records)
                if record.category == category and record.is_anomaly == is_defective
            ]  # fmt: skip
            if not alike:
                continue
            spread = np.linspace(0, len(alike) - 1, min(evaluation.shown, len(alike))).round().astype(int)
            shown = []
            for i in (alike[position] for position in spread):
                (pixels,) = evaluation.images.batch([i])
                is_called = evaluation.scores[i] > np.float32(threshold)
                boxed = regions(evaluation.maps[i], limit, evaluation.minimum_area_px) if is_called else []
                mask = None if samples[i].mask is None else samples[i].mask.numpy()
                heatmap = draw_regions(draw_heatmap(pixels, evaluation.maps[i], limit), boxed, mask)
                verdict = "called defective" if is_called else "called good"
                shown.append(Thumbnail(heatmap, f"p {probability(evaluation.scores[i]):.2f}, {verdict}"))
            rows.append((f"{category}\n{'defective' if is_defective else 'good'}", shown))
    return contact_sheet(rows, evaluation.title, thumbnail_px=180)


def confusion_image(matrices: dict[str, ImageFigures], square_px: int = 130) -> Image.Image:
    """Two rows, what is true, and two columns, what was called, for each decision; shaded by the share of its row."""
    left, width_px = 90, 90 + 2 * square_px + MARGIN_PX
    sheet = Image.new("RGB", (MARGIN_PX + len(matrices) * width_px, 2 * square_px + 110), PAPER)
    draw = ImageDraw.Draw(sheet)
    small, usual, large = (ImageFont.load_default(size) for size in (12, 15, 26))
    blue = np.array([int(CURVE[i : i + 2], 16) for i in (1, 3, 5)])
    for matrix, (rule, figures) in enumerate(matrices.items()):
        corner = MARGIN_PX + matrix * width_px
        draw.text((corner, 16), rule, INK, usual)
        counts = ((figures.true_good, figures.false_alarms), (figures.missed, figures.found))
        for row, (name, pair) in enumerate(zip(("good", "defective"), counts, strict=True)):
            top = 70 + row * square_px
            draw.text((corner, top + square_px // 2), name, INK, usual, anchor="lm")
            for column, count in enumerate(pair):
                share = count / max(1, sum(pair))
                top_left = (corner + left + column * square_px, top)
                color = tuple(np.rint(255 + share * (blue - 255)).astype(int).tolist())
                draw.rectangle((*top_left, top_left[0] + square_px - 4, top + square_px - 4), color)
                ink = PAPER if share > 0.5 else INK
                middle = (top_left[0] + square_px // 2 - 2, top + square_px // 2 - 2)
                draw.text((middle[0], middle[1] - 8), str(count), ink, large, anchor="mm")
                draw.text((middle[0], middle[1] + 18), f"{share:.0%}", ink, small, anchor="mm")
        for column, name in enumerate(("called good", "called defective")):
            draw.text((corner + left + (column + 0.5) * square_px, 56), name, FAINT, small, anchor="mm")
    return sheet


def draw_curves(lines: list[dict], title: str) -> Image.Image:
    """The loss of every step, and the accuracy and held-out loss of every epoch, of a run's metrics."""
    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    epochs = [line for line in lines if "epoch" in line]
    panels = [
        Curve("loss", losses),
        Curve("accuracy of each epoch, training images", [(e["step"], e["train_accuracy"]) for e in epochs]),
    ]
    if epochs[0]["validation_loss"] is not None:
        panels.append(Curve("loss, held-out images", [(e["step"], e["validation_loss"]) for e in epochs]))
    return curves(panels, title)


def _stated(threshold: Threshold) -> dict:
    """Plain JSON, which has no NaN: a threshold without a false-alarm rate says null."""
    rate = threshold.false_alarm_rate
    return threshold._asdict() | {"false_alarm_rate": None if math.isnan(rate) else rate}
