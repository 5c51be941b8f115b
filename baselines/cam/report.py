"""What VGG16-CAM is worth on products that it never saw: figures in both readings, a confusion matrix, a grid."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from baselines.cam.method import VggCam
from baselines.contract.heatmap import draw_heatmap, draw_regions
from baselines.contract.method import Images, Samples
from baselines.contract.metrics import ImageFigures, always_good, image_figures, pixel_figures
from baselines.contract.published import PUBLISHED_NAME, PUBLISHED_ON, Reading, both_readings, published_readings
from baselines.contract.regions import regions
from baselines.contract.threshold import Threshold, threshold_from_normals
from pretrain.command import UserError
from pretrain.data.dataset import ImageSet, data_name
from pretrain.drawing import CURVE, FAINT, INK, MARGIN_PX, PAPER, Thumbnail, contact_sheet, save_image
from pretrain.files import write_json, write_whole
from pretrain.progress import Progress

if TYPE_CHECKING:
    from baselines.vgg_cam import Test

# A score is -log P(good): this one is where both answers are as probable, the published decision.
AS_PROBABLE = math.log(2)
PUBLISHED_RULE, CALIBRATED_RULE = "more probable than not", "calibrated"


@dataclass
class Judged:
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


def judge(method: VggCam, images: ImageSet, metadata: dict, config: "Test") -> Judged:
    """Predict all images. `metadata` is what training left: its categories and scores of calibration normals."""
    if not metadata["normal_scores"]:
        raise UserError("the training categories had no good images to calibrate with: train with more of them.")
    parts = []
    with Progress("judging", len(images)) as progress:
        for part in method.predict(Images(images)):
            parts.append(part)
            progress.advance(len(part.scores))
    start = ", from scratch" if metadata["weights"] == "random" else f", {metadata['weights']}"
    as_probable = Threshold(AS_PROBABLE, math.nan, 0, "the more probable answer, as published.")
    return Judged(
        images=images,
        title=f"VGG16-CAM{start}: trained on {', '.join(metadata['categories'])}, "
        f"tested on {', '.join(images.categories)} ({data_name(images.folder)})",
        labels=np.array([record.is_anomaly for record in images.records]),
        scores=torch.cat([part.scores for part in parts]).numpy(),
        maps=torch.cat([part.maps for part in parts]).numpy(),
        thresholds={
            PUBLISHED_RULE: as_probable,
            CALIBRATED_RULE: threshold_from_normals(metadata["normal_scores"], config.false_alarm_rate),
        },
        map_threshold=threshold_from_normals(metadata["normal_peaks"], config.false_alarm_rate),
        minimum_area_px=config.minimum_area,
        shown=config.shown,
    )


def print_report(judged: Judged) -> None:
    """Both readings of each decision beside the trivial answer and the published row; then each category."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=judged.title)
    for header in ("", "positive", "accuracy", "balanced", "precision", "recall", "F1"):
        table.add_column(header, justify="left" if header in ("", "positive") else "right")
    rows = [(name, readings_of(judged.figures(name))) for name in judged.thresholds]
    rows.append(("always good", readings_of(always_good(judged.labels))))
    rows.append((f"{PUBLISHED_NAME}, on {PUBLISHED_ON}", published_readings()))
    for name, readings in rows:
        for first, reading in zip((name, ""), readings, strict=True):
            table.add_row(first, reading.positive, *(in_words(value) for value in reading[1:]))
        table.add_section()
    console = Console(width=120)
    console.print(table)
    for category in judged.images.categories:
        usual, own = (judged.figures(rule, category) for rule in judged.thresholds)
        pixels = pixels_of(judged, category)
        print(f"{category}: {usual.good} good, {usual.defective} defective; AUROC {in_words(usual.auroc)}, balanced "
              f"accuracy {in_words(usual.balanced_accuracy)}, calibrated {in_words(own.balanced_accuracy)}, pixel "
              f"AUROC {in_words(pixels.get('auroc'))}")  # fmt: skip
    print(f"calibrated threshold: {judged.thresholds[CALIBRATED_RULE].why}")


def write_report(judged: Judged, out: Path) -> None:
    """results.json, predictions.jsonl, confusion.png and predictions.png."""
    result = {
        "title": judged.title,
        "thresholds": {rule: _stated(threshold) for rule, threshold in judged.thresholds.items()},
        "map_threshold": judged.map_threshold._asdict(),
        "figures": {rule: {category or "all": judged.figures(rule, category)._asdict()
                           for category in (None, *judged.images.categories)} for rule in judged.thresholds},
        "readings": {rule: [r._asdict() for r in readings_of(judged.figures(rule))] for rule in judged.thresholds},
        "always_good": [reading._asdict() for reading in readings_of(always_good(judged.labels))],
        "published": [reading._asdict() for reading in published_readings()],
        "pixels": {category: pixels_of(judged, category) for category in judged.images.categories},
    }  # fmt: skip
    write_json(out / "results.json", result)
    lines = [
        {
            "path": str(record.path.relative_to(judged.images.folder)),
            "is_anomaly": record.is_anomaly,
            "score": float(score),
            "probability": probability(score),
            "is_called": bool(score > np.float32(judged.thresholds[CALIBRATED_RULE].value)),
        }
        for record, score in zip(judged.images.records, judged.scores, strict=True)
    ]
    write_whole(out / "predictions.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    save_image(confusion_image({rule: judged.figures(rule) for rule in judged.thresholds}), out / "confusion.png")
    save_image(grid(judged), out / "predictions.png")
    print(f"figures:  {out / 'results.json'}")
    print(f"images: {out / 'confusion.png'}, {out / 'predictions.png'}")


def readings_of(figures: ImageFigures) -> list[Reading]:
    return both_readings(figures.true_good, figures.false_alarms, figures.missed, figures.found)


def pixels_of(judged: Judged, category: str) -> dict:
    """Pixel figures over a category's good images and those with masks; empty without masks."""
    records, samples = judged.images.records, Samples(judged.images)
    chosen = [i for i, one in enumerate(records) if one.category == category and (one.mask or not one.is_anomaly)]
    if not any(records[i].mask for i in chosen):
        return {}
    masks = np.zeros((len(chosen), *judged.maps.shape[1:]), bool)
    for number, i in enumerate(chosen):
        if records[i].mask:
            masks[number] = samples[i].mask.numpy()
    return pixel_figures(judged.maps[chosen], masks, judged.map_threshold.value)._asdict()


def probability(score: float) -> float:
    """Of being defective, from a score."""
    return -math.expm1(-float(score))


def grid(judged: Judged) -> Image.Image:
    """Some images of each kind and category with probability, verdict, heat, boxes, and the true defect in blue."""
    threshold, limit = judged.thresholds[CALIBRATED_RULE].value, judged.map_threshold.value
    samples, rows = Samples(judged.images), []
    for category in judged.images.categories:
        for is_defective in (False, True):
            of_kind = [
                i for i, record in enumerate(judged.images.records)
                if record.category == category and record.is_anomaly == is_defective
            ]  # fmt: skip
            if not of_kind:
                continue
            places = np.linspace(0, len(of_kind) - 1, min(judged.shown, len(of_kind))).round().astype(int)
            shown = []
            for i in (of_kind[place] for place in places):
                (pixels,) = judged.images.batch([i])
                is_called = judged.scores[i] > np.float32(threshold)
                found = regions(judged.maps[i], limit, judged.minimum_area_px) if is_called else []
                mask = samples[i].mask
                hot = draw_regions(
                    draw_heatmap(pixels, judged.maps[i], limit), found, None if mask is None else mask.numpy()
                )
                verdict = "called defective" if is_called else "called good"
                shown.append(Thumbnail(hot, f"p {probability(judged.scores[i]):.2f}, {verdict}"))
            rows.append((f"{category}\n{'defective' if is_defective else 'good'}", shown))
    return contact_sheet(rows, judged.title, thumbnail_px=180)


def confusion_image(matrices: dict[str, ImageFigures], cell_px: int = 130) -> Image.Image:
    """Two rows, what is true, and two columns, what was called, for each decision; shaded by the share of its row."""
    left, width_px = 90, 90 + 2 * cell_px + MARGIN_PX
    sheet = Image.new("RGB", (MARGIN_PX + len(matrices) * width_px, 2 * cell_px + 110), PAPER)
    draw = ImageDraw.Draw(sheet)
    small, usual, large = (ImageFont.load_default(size) for size in (12, 15, 26))
    blue = np.array([int(CURVE[i : i + 2], 16) for i in (1, 3, 5)])
    for number, (rule, found) in enumerate(matrices.items()):
        corner = MARGIN_PX + number * width_px
        draw.text((corner, 16), rule, INK, usual)
        counts = ((found.true_good, found.false_alarms), (found.missed, found.found))
        for row, (name, pair) in enumerate(zip(("good", "defective"), counts, strict=True)):
            top = 70 + row * cell_px
            draw.text((corner, top + cell_px // 2), name, INK, usual, anchor="lm")
            for column, count in enumerate(pair):
                share = count / max(1, sum(pair))
                place = (corner + left + column * cell_px, top)
                color = tuple(np.rint(255 + share * (blue - 255)).astype(int).tolist())
                draw.rectangle((*place, place[0] + cell_px - 4, top + cell_px - 4), color)
                ink, middle = (PAPER if share > 0.5 else INK), (place[0] + cell_px // 2 - 2, top + cell_px // 2 - 2)
                draw.text((middle[0], middle[1] - 8), str(count), ink, large, anchor="mm")
                draw.text((middle[0], middle[1] + 18), f"{share:.0%}", ink, small, anchor="mm")
        for column, name in enumerate(("called good", "called defective")):
            draw.text((corner + left + (column + 0.5) * cell_px, 56), name, FAINT, small, anchor="mm")
    return sheet


def in_words(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _stated(threshold: Threshold) -> dict:
    """Plain JSON, which has no NaN: a threshold that no rate stands behind says null."""
    rate = threshold.false_alarm_rate
    return threshold._asdict() | {"false_alarm_rate": None if math.isnan(rate) else rate}
