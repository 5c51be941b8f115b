"""What a model learns from an operator who corrects it, judged on images that are still to come.

    python scripts/benchmarks/feedback.py --data FOLDER --record RESULTS.md --figure curves.png
    python scripts/benchmarks/feedback.py --data FOLDER --quick    # one category, one order

A stream is the test images of a category, and FRESH good training images that the model was not fitted to, in random
order. The operator says of the first ones what each is, and where, if the folder has masks, until so many good and so
many defective ones are said; always, on a tenth of the verdicts only, or with some mistakes. The model learns as
`detect.py learn` does, one image in five kept apart, and is judged on later images, the same in every case, beside
itself without feedback. Labels are used where the operator says them, and to judge.
"""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from pretrain.command import start
    from scripts.benchmarks.config import Feedback

    start("scripts.benchmarks.feedback:main", Feedback)

import json
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from scipy.special import stdtrit
from torch import Tensor

from baselines.contract.method import Images
from baselines.contract.metrics import image_figures
from baselines.contract.threshold import threshold_from_normals
from downstream.inspection.inspector import Inspector
from downstream.learning.candidate import Lessons, taught
from downstream.learning.golden import is_kept_apart
from downstream.methods.evidence import Evidence, inputs_of
from downstream.methods.fused import Fused
from pretrain.command import UserError
from pretrain.data.dataset import ImageSet, load
from pretrain.data.decode import read_mask
from pretrain.drawing import FAINT, INK, MARGIN_PX, PAPER, TITLE_PX, save_image
from pretrain.encoder import DEFAULT_ARCHITECTURE, Encoder, asked_encoder
from pretrain.progress import Progress
from pretrain.remembered_maps import remembered_maps
from pretrain.weights import IMAGENET
from scripts.benchmarks.config import Feedback
from scripts.benchmarks.rounds import finish

# Good training images of every stream that no model is fitted to.
FRESH = 50
FALSE_ALARM_RATE = 0.1
ON_A_TENTH, WITH_MISTAKES = "on a tenth", "with mistakes"


class Stream(NamedTuple):
    """Positions of images: those that models may be fitted to, what the operator says of which image in what order,
    good and defective ones apart, and what is judged."""

    fitted: list[int]
    good: list[int]
    defective: list[int]
    judged: list[int]


class Cell(NamedTuple):
    """One learned model, or the one without feedback, in one order: how it judges, and how many seconds of a processor
    it took to learn, the encoder left out."""

    category: str
    normals: str
    order: int
    feedback: str
    auroc: float
    balanced_accuracy: float
    missed: float
    false_alarms: float
    seconds: float = 0.0


def main(config: Feedback) -> int:
    images = load(config.data, config.size_px, config.categories)
    categories = images.categories[:1] if config.quick else images.categories
    orders, start_s = 1 if config.quick else config.orders, time.perf_counter()
    encoder = asked_encoder(IMAGENET, DEFAULT_ARCHITECTURE, 0)
    streams = [(order, category, n) for order in range(orders) for category in categories for n in config.normals]
    cells = [c for c in finished(config.cells) if (c.order, c.category, c.normals) in streams]
    # The encoder is frozen: every image goes through it once.
    with remembered_maps(), Progress("correcting", len(streams), "streams") as progress:
        for order, category, normals in streams:
            is_late = config.minutes and time.perf_counter() - start_s > 60 * config.minutes
            if is_late and (category, normals) == (categories[0], config.normals[0]):
                break
            if not any((c.order, c.category, c.normals) == (order, category, normals) for c in cells):
                new = cells_of(images.of(category), normals, order, encoder, config)
                keep(new, config.cells)
                progress.print(described(new[-1]))
                cells += new
            progress.advance()
    lines = table(cells, config)
    figures = summary(cells, config)
    if config.figure:
        draw(cells, config, config.figure)
    return finish("feedback", config, lines, figures, packages=("torch", "faiss-gpu"), **targets(config))


def finished(file: Path | None) -> list[Cell]:
    """Cells of a run that was stopped; a file is for one size and share of mistakes."""
    return [Cell(**json.loads(line)) for line in file.read_text().splitlines()] if file and file.is_file() else []


def keep(cells: list[Cell], file: Path | None) -> None:
    if file:
        with open(file, "a", encoding="utf-8") as lines:
            lines.write("".join(json.dumps(cell._asdict()) + "\n" for cell in cells))


def stream_of(images: ImageSet, normals: str, order: int, most: int, judged: int) -> Stream:
    """Who is fitted to, what is said, and what is judged. Of one order the stream is the same for all models."""
    generator = np.random.default_rng([order, 0xFB])
    records = images.records
    train = [i for i, record in enumerate(records) if record.split == "train" and not record.is_anomaly]
    train = generator.permutation(train).tolist()
    test = [i for i, record in enumerate(records) if record.split == "test"]
    stream = generator.permutation([*train[:FRESH], *test]).tolist()
    good, defective = ([i for i in stream if records[i].is_anomaly == kind] for kind in (False, True))
    said = good[:most], defective[:most]
    rest = [*good[most:][:judged], *defective[most:][:judged]]
    fitted = train[FRESH:]
    if not fitted or min(map(len, (good[most:], defective[most:]))) < 1:
        raise UserError(
            f"{images.categories[0]} has {len(train)} good training images and {len(test)} test images, too few: it "
            f"takes more than {FRESH} of the first, and more than {most} good and {most} defective ones of the others."
        )
    return Stream(fitted if normals == "all" else fitted[: int(normals)], *said, rest)


def cells_of(images: ImageSet, normals: str, order: int, encoder: Encoder, config: Feedback) -> list[Cell]:
    """The model without feedback, and with ever more of it."""
    counts = [int(count) for count in config.corrected]
    stream = stream_of(images, normals, order, max(counts), config.judged)
    inspector = fitted(images, stream.fitted, encoder, order)
    labels = np.array([images.records[i].is_anomaly for i in stream.judged])
    (category,) = images.categories

    def cell(feedback: str, judging: Inspector, seconds: float = 0.0) -> Cell:
        return Cell(category, normals, order, feedback, *judge(labels, seen, judging), seconds)

    seen = seen_by(inspector.method, images, stream.judged)
    cells = [cell("none", inspector)]
    for feedback, good, defective in corrections(stream, counts, config.wrong, order):
        lessons = lessons_of(images, good, defective)
        start_s = time.process_time()
        learned = taught(inspector, lessons)
        cells.append(cell(feedback, learned, time.process_time() - start_s))
    return cells


def fitted(images: ImageSet, positions: list[int], encoder: Encoder, seed: int) -> Inspector:
    """A model as `detect.py fit` makes it."""
    method = Fused(encoder=encoder, seed=seed).fit([]).refer(Images(images.subset(positions)))
    scores = method.normal_scores_.numpy()
    threshold = threshold_from_normals(scores, FALSE_ALARM_RATE)
    return Inspector(method, images.categories[0], images.size_px, threshold, normal_scores=scores.tolist())


def corrections(
    stream: Stream, counts: list[int], wrong: float, order: int
) -> Iterator[tuple[str, list[int], list[int]]]:
    """By name, the positions of images that the operator calls good, and defective."""
    for count in counts:
        yield f"{count} of each", stream.good[:count], stream.defective[:count]
    most = max(counts)
    tenth = slice(0, max(1, round(most / 10)))
    yield ON_A_TENTH, stream.good[tenth], stream.defective[tenth]
    generator = np.random.default_rng([order, 0xE0])
    good, defective = [], []
    for is_defective, part in ((False, stream.good), (True, stream.defective)):
        for position in part[:most]:
            (defective if is_defective != (generator.random() < wrong) else good).append(position)
    yield WITH_MISTAKES, good, defective


def lessons_of(images: ImageSet, good: list[int], defective: list[int]) -> Lessons:
    """What is learned from, one in five kept apart; of defective images the mask, where the folder has it."""
    kept = [[i for i in part if not is_kept_apart(images.entries[i].digest.hex())] for part in (good, defective)]
    masks = [images.records[i].mask for i in kept[1]]
    return Lessons(
        *(list(images.batch(part)) for part in kept),
        [None if mask is None else read_mask(mask, images.size_px) for mask in masks],
    )


class Seen(NamedTuple):
    """Images that are judged again and again, as a method sees them that no further normals were added to: projected
    patches (n, p, d), distances to the nearest of its coreset and their rows (n, p, k), and how
    many rows that has."""

    patches: Tensor
    nearest: Tensor
    rows: Tensor
    coreset: int


def seen_by(method: Fused, images: ImageSet, positions: list[int]) -> Seen:
    parts = []
    for image in Images(images.subset(positions)):
        vectors = method.patches(image[None])
        inside = method.region.within(vectors)[0]
        parts.append((method._projected(inside), *method._nearest(inside)))
    return Seen(*(torch.stack(part) for part in zip(*parts, strict=True)), len(method.coreset_))


def judge(labels: np.ndarray, seen: Seen, inspector: Inspector) -> tuple[float, float, float, float]:
    """AUROC, balanced accuracy, and the shares missed and wrongly called defective."""
    figures = image_figures(labels, scores_of(inspector.method, seen).numpy(), inspector.threshold.value)
    return figures.auroc, figures.balanced_accuracy, figures.missed / figures.defective, figures.false_alarm_rate


def scores_of(method: Fused, seen: Seen) -> Tensor:
    """What `method.predict` gives, in a fraction of the time: only patches that were added can have come nearer."""
    nearest, rows = seen.nearest, seen.rows
    added = torch.arange(seen.coreset, len(method.coreset_))
    if len(added):
        nearer, found = (part.view_as(rows) for part in method._nearest_among(seen.patches.flatten(0, 1), added))
        is_nearer = nearer < nearest
        nearest, rows = torch.where(is_nearer, nearer, nearest), torch.where(is_nearer, found, rows)
    gaussian, of_nearest = method.fusion_.tolist()
    distances = of_nearest * nearest[:, :, 0] / method.spacing_[rows[:, :, 0]]
    distances += gaussian * method._weighted(seen.patches)
    if hasattr(method, "evidence_weights_"):
        evidence = Evidence(method.evidence_weights_, *method.evidence_range_)
        distances += evidence.of(inputs_of(seen.patches, method.coreset_[rows[:, :, 0]]))
    return method._highest(method._maps(method.region.spread(distances, method.grid_), method.size_px_))


def described(cell: Cell) -> str:
    return (
        f"{cell.category}, {cell.normals} normals, order {cell.order}, {cell.feedback}: AUROC {cell.auroc:.3f}, "
        f"accuracy {cell.balanced_accuracy:.3f}"
    )


def feedbacks(config: Feedback) -> list[str]:
    """What is compared, in the order of the table."""
    return ["none", *(f"{count} of each" for count in config.corrected), ON_A_TENTH, WITH_MISTAKES]


def means(cells: list[Cell], normals: str, feedback: str, figure: str, category: str = "") -> list[float]:
    """Of each order, the mean over categories, or of one."""
    chosen = [c for c in cells if (c.normals, c.feedback) == (normals, feedback) and category in ("", c.category)]
    return [mean(getattr(c, figure) for c in chosen if c.order == order) for order in sorted({c.order for c in chosen})]


def with_interval(values: list[float]) -> tuple[float, float]:
    """The mean over orders, and half of its 95 % interval by Student's t; none of one order."""
    if len(values) < 2:
        return values[0], float("nan")
    return mean(values), float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / len(values) ** 0.5


def gains(cells: list[Cell], normals: str, feedback: str, category: str = "") -> list[float]:
    """By how much the balanced accuracy rises over the model without feedback, order by order: the same images."""
    with_it, without = (means(cells, normals, name, "balanced_accuracy", category) for name in (feedback, "none"))
    return [after - before for after, before in zip(with_it, without, strict=True)]


def summary(cells: list[Cell], config: Feedback) -> dict[str, object]:
    """The figures that targets are set for, and all cells."""
    most = feedbacks(config)[-3]
    figures: dict[str, object] = {}
    categories = [*dict.fromkeys(cell.category for cell in cells)]
    for normals in config.normals:
        figures[f"gain_{normals}"] = mean(gains(cells, normals, most))
        figures[f"worst_{normals}"] = min(mean(gains(cells, normals, most, category)) for category in categories)
        figures[f"mistakes_{normals}"] = mean(gains(cells, normals, WITH_MISTAKES))
    figures["learning_s"] = max(cell.seconds for cell in cells)
    return figures | {"cells": [cell._asdict() for cell in cells]}


def targets(config: Feedback) -> dict[str, dict[str, float]]:
    """Of the youngest model that is asked for: it is the one that has most to learn."""
    young = config.normals[0]
    return {
        "at_least": {f"gain_{young}": 0.08, f"worst_{young}": -0.01, f"mistakes_{young}": 0.0},
        "at_most": {"learning_s": 10.0},
    }


def table(cells: list[Cell], config: Feedback) -> list[str]:
    """A row for each number of normals, category and kind of feedback, and for the mean over categories."""
    categories = [*dict.fromkeys(cell.category for cell in cells)]
    lines = [
        f"fused at {config.size_px} px; later images alone, at most {config.judged} good and as many",
        f"defective ones; with mistakes: {max(map(int, config.corrected))} of each, {config.wrong:.0%} said wrongly;",
        "gain of balanced accuracy over no feedback, with its 95 % interval over orders",
    ]
    for normals in config.normals:
        orders = len({cell.order for cell in cells if cell.normals == normals})
        lines += ["", f"  fitted to {normals} good images, {orders} orders"]
        lines += [f"  {'':12}{'feedback':16}{'AUROC':>8}{'bal. acc.':>11}{'missed':>9}{'false al.':>11}{'gain':>18}"]
        for category in [*categories, ""]:
            for feedback in feedbacks(config):
                lines.append(row(cells, normals, category, feedback))
    return lines


def row(cells: list[Cell], normals: str, category: str, feedback: str) -> str:
    names = ("auroc", "balanced_accuracy", "missed", "false_alarms")
    auroc, accuracy, missed, false_alarms = (mean(means(cells, normals, feedback, name, category)) for name in names)
    line = f"  {category or 'mean':12}{feedback:16}{auroc:8.3f}{accuracy:11.3f}{missed:9.3f}{false_alarms:11.3f}"
    if feedback == "none":
        return line
    gain, half = with_interval(gains(cells, normals, feedback, category))
    return f"{line}{f'{gain:+.3f}' if np.isnan(half) else f'{gain:+.3f} ± {half:.3f}':>18}"


PANELS = (("auroc", "AUROC"), ("balanced_accuracy", "balanced accuracy"), ("missed", "missed"),
          ("false_alarms", "false alarms"))  # fmt: skip
PANEL_PX, COLORS = 300, ("#0a6cff", "#c2410c", "#15803d")


def draw(cells: list[Cell], config: Feedback, file: Path) -> None:
    """The mean over categories by number of corrected images, with its interval: a curve for each number of normals,
    and a mark for what came of corrections on a tenth of the verdicts, and of those with mistakes."""
    counts = [0, *map(int, config.corrected)]
    most = max(counts)
    others = {ON_A_TENTH: max(1, round(most / 10)), WITH_MISTAKES: most}
    sheet = Image.new("RGB", (2 * MARGIN_PX + len(PANELS) * PANEL_PX, MARGIN_PX + TITLE_PX + PANEL_PX), PAPER)
    pen = ImageDraw.Draw(sheet)
    title = (
        "after so many good and as many defective images were corrected; 95 % intervals over orders; "
        "circles: corrected on a tenth, squares: with mistakes"
    )
    pen.text((MARGIN_PX, MARGIN_PX), title, INK, ImageFont.load_default(18))
    for column, (figure, name) in enumerate(PANELS):
        left, top = MARGIN_PX + column * PANEL_PX + 40, MARGIN_PX + TITLE_PX
        box = (left, top + 20, left + PANEL_PX - 60, top + PANEL_PX - 50)
        pen.text((left, top), name, INK, ImageFont.load_default(15))
        lines = {
            normals: [with_interval(means(cells, normals, feedback, figure)) for feedback in feedbacks(config)[:-2]]
            for normals in config.normals
        }
        marks = {
            normals: [
                (count, *with_interval(means(cells, normals, feedback, figure))) for feedback, count in others.items()
            ]
            for normals in config.normals
        }
        draw_panel(pen, box, counts, lines, marks)
    save_image(sheet, file)


def draw_panel(
    pen: ImageDraw.ImageDraw, box: tuple, counts: list[int], lines: dict[str, list], marks: dict[str, list]
) -> None:
    left, top, right, bottom = box
    font = ImageFont.load_default(12)
    halves = [(middle, np.nan_to_num(half)) for points in lines.values() for middle, half in points]
    halves += [(middle, np.nan_to_num(half)) for points in marks.values() for _, middle, half in points]
    ends = [middle + sign * half for middle, half in halves for sign in (-1, 1)]
    low, high = min(ends) - 0.01, max(ends) + 0.01

    def place(count: int, value: float) -> tuple[float, float]:
        return left + (right - left) * count / counts[-1], bottom - (bottom - top) * (value - low) / (high - low)

    pen.rectangle(box, outline="#d1d1d6")
    for value, anchor in ((high, "rt"), (low, "rb")):
        pen.text((left - 4, place(0, value)[1]), f"{value:.2f}", FAINT, font, anchor=anchor)
    for count in counts:
        pen.text((place(count, low)[0], bottom + 4), str(count), FAINT, font, anchor="ma")
    for number, (normals, points) in enumerate(lines.items()):
        color = COLORS[number % len(COLORS)]
        for count, (middle, half) in zip(counts, points, strict=True):
            pen.line([place(count, middle - np.nan_to_num(half)), place(count, middle + np.nan_to_num(half))], color, 1)
        pen.line([place(count, middle) for count, (middle, _) in zip(counts, points, strict=True)], color, 2)
        for (count, middle, half), outline in zip(marks[normals], (pen.ellipse, pen.rectangle), strict=True):
            across, down = place(count, middle)
            pen.line([place(count, middle - np.nan_to_num(half)), place(count, middle + np.nan_to_num(half))], color, 1)
            outline((across - 4, down - 4, across + 4, down + 4), outline=color, width=2)
        pen.text((left, bottom + 20 + 14 * number), f"fitted to {normals} good images", color, font)
