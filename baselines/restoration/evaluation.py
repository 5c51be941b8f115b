"""What a restorer is worth: PSNR and SSIM by image and category, always beside the degraded image itself."""

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from baselines.contract.method import Pair
from baselines.contract.metrics import SSIM_WINDOW_PX, psnr, ssim
from baselines.restoration.config import Evaluate
from baselines.restoration.pair_folder import PairFolder
from baselines.restoration.pairs import DegradedImages, NamedPair
from baselines.restoration.run import Load, open_restorer
from baselines.restoration.strips import RestoredImage, save_strip, sheet
from pretrain.command import UserError
from pretrain.data.dataset import choose_folder, data_name, load
from pretrain.data.layouts import category_folders
from pretrain.degrade import describe
from pretrain.drawing import save_image
from pretrain.files import write_json, write_whole
from pretrain.progress import Progress

DEGRADED = "degraded input"
ALL = "all"
FIGURES = ("psnr", "ssim", "masked_psnr", "masked_ssim", "inflated_psnr", "inflated_ssim")
HEADERS = ("PSNR", "SSIM", "in mask", "SSIM in mask", "inflated", "SSIM inflated")


class RestoredFigures(NamedTuple):
    """Of one image: PSNR in dB, infinite where nothing differs, and SSIM, over all pixels and over the mask's.

    `inflated` is how the original publishes its figures in defects: all outside the mask is black in both images and
    counts as restored, which adds 10 log10(1 / share of the mask) dB. None without a defect.
    """

    psnr: float
    ssim: float
    masked_psnr: float | None = None
    masked_ssim: float | None = None
    inflated_psnr: float | None = None
    inflated_ssim: float | None = None


class MeanFigure(NamedTuple):
    """Over a category's images: the mean of those that are finite, how many there are, and how many are perfect."""

    value: float | None
    count: int
    perfect: int


@dataclass(frozen=True)
class EvaluatedImage:
    """An image's figures by who restored it: a restorer's name, or DEGRADED."""

    name: str
    category: str
    figures: dict[str, RestoredFigures]


class Selection(NamedTuple):
    """What to evaluate on: pairs, the side of the square they are stretched to (none: as they are), a title, and how
    they were degraded."""

    pairs: Sequence[NamedPair]
    size_px: int | None
    title: str
    degradation: str


def evaluate_restorer(config: Evaluate, load_restorer: Load) -> None:
    """Evaluate, print the table, and write figures and images."""
    restorer, summary = open_restorer(config.model, load_restorer, config.memory_mb, config.device)
    selection = select_pairs(config, summary)
    out, name = config.out or config.model / "test", type(restorer).__name__.removesuffix("Restorer")
    evaluated, first_of_defect, drawn = [], {}, Counter()
    with Progress("evaluating", len(selection.pairs)) as progress:
        for figures, image in evaluate_pairs(
            selection.pairs, restorer.restore, name, selection.size_px, config.interpolate
        ):
            evaluated.append(figures)
            drawn[image.category] += 1
            if config.shown < 0 or drawn[image.category] <= config.shown:
                save_strip(image, out / "images")
            if image.mask is not None and image.mask.any():
                first_of_defect.setdefault(image.name.rpartition("/")[0], image)
            progress.advance()
    print_table(evaluated, selection.title)
    print(f"degradation, {selection.degradation}")
    write_results(evaluated, out, {"title": selection.title, "degradation": selection.degradation,
                                   "training": summary, "seed": config.seed})  # fmt: skip
    if first_of_defect:
        save_image(sheet(list(first_of_defect.values()), f"{name}: first image of each defect"), out / "images.png")
    print(f"figures:  {out / 'results.json'}, categories.csv, images.csv")
    print(f"images:   {out / 'images'}")


def select_pairs(config: Evaluate, summary: dict) -> Selection:
    """The pairs that were asked for. Raises UserError for categories that were trained on."""
    size_px = summary["input_size"] if config.input_size is None else config.input_size or None
    if size_px is not None and size_px < SSIM_WINDOW_PX:
        raise UserError(f"--input-size {size_px} is smaller than SSIM's window: give {SSIM_WINDOW_PX} or more, or 0.")
    seen = dict.fromkeys([*summary["categories"], *summary["encoder_saw"]])
    if config.pairs:
        pairs = PairFolder(config.pairs, None, config.test).check(SSIM_WINDOW_PX)
        title = f"{config.pairs}, trained on {', '.join(seen)} ({summary['data']})"
        return Selection(pairs, size_px, title, "as the pairs have it")
    if size_px is None:
        raise UserError("--input-size 0 is for real pairs: images to be degraded are cached as squares of one size.")
    folder = choose_folder(config.data)
    available = category_folders(folder, config.layout)
    wanted = config.test or [name for name in available if config.allow_seen or name not in seen]
    both = sorted(set(wanted) & set(seen))
    if not wanted or (both and not config.allow_seen):
        raise UserError(
            f"{', '.join(both or available)} was trained on, so figures there would say nothing of unseen products: "
            f"choose --test without {', '.join(seen)}, or say --allow-seen."
        )
    severity = config.severity or summary["severity"] or "medium"
    degradation = describe(severity)
    images = load(folder, size_px, wanted, layout=config.layout)
    tests = images.subset([i for i, record in enumerate(images.records) if record.split == "test"])
    if not len(tests):
        raise UserError(f"{', '.join(images.categories)} has no test images: name other categories by --test.")
    title = f"tested on {', '.join(tests.categories)} ({data_name(tests.folder)}), trained on {', '.join(seen)}"
    title += ", SEEN IN TRAINING" if both else ""
    return Selection(DegradedImages(tests, severity, config.seed), size_px, title, degradation)


def evaluate_pairs(
    pairs: Iterable[NamedPair],
    restore: Callable[[Tensor], Tensor],
    restorer_name: str,
    size_px: int | None = None,
    interpolate: bool = True,
) -> Iterator[tuple[EvaluatedImage, RestoredImage]]:
    """Restore one image after another, (1, 3, h, w) -> the same, beside the degraded image itself."""
    for name, category, pair in pairs:
        degraded, restored, clean, mask = restore_at_size(pair, size_px, interpolate, restore)
        try:
            figures = {
                DEGRADED: restored_figures(degraded, clean, mask),
                restorer_name: restored_figures(restored, clean, mask),
            }
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
        yield EvaluatedImage(name, category, figures), RestoredImage(name, category, degraded, restored, clean, mask)


def restored_figures(restored: Tensor, clean: Tensor, mask: Tensor | None) -> RestoredFigures:
    """Images float32 (3, h, w) in [0, 1], mask bool (h, w) or none. Raises UserError for an image smaller than SSIM's
    window, or one that is not finite."""
    height, width = clean.shape[-2:]
    if min(height, width) < SSIM_WINDOW_PX:
        raise UserError(
            f"an image of {width}x{height} is smaller than SSIM's window of {SSIM_WINDOW_PX} px: leave it out."
        )
    if not (restored.isfinite().all() and clean.isfinite().all()):
        raise UserError("an image has values that are NaN or infinite: look for what the restorer was given.")
    both = (restored[None], clean[None])  # (1, 3, h, w)
    overall = (psnr(*both).item(), ssim(*both).item())
    if mask is None or not mask.any():
        return RestoredFigures(*overall)
    inside = mask[None]
    # The original multiplies both images by the mask, and then averages over all pixels.
    blackened = [image * inside[:, None] for image in both]
    return RestoredFigures(
        *overall,
        psnr(*both, inside).item(),
        ssim(*both, inside).item(),
        psnr(*blackened).item(),
        ssim(*blackened).item(),
    )


def restore_at_size(
    pair: Pair, size_px: int | None, interpolate: bool, restore: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Restore an image as it is, or stretched to a square of `size_px`: -> degraded, restored, clean, mask.

    With `interpolate` the result is stretched back to the image's own size, else all are compared in the square.
    """
    size = None if size_px is None else (size_px, size_px)
    if size is None or pair.clean.shape[-2:] == size:
        return pair.degraded, restore(pair.degraded[None])[0], pair.clean, pair.mask
    restored = restore(stretched(pair.degraded, size))[0]
    if interpolate:
        return pair.degraded, stretched(restored, pair.clean.shape[-2:])[0], pair.clean, pair.mask
    # Nearest neighbor, so that the mask stays one of whole pixels.
    mask = pair.mask if pair.mask is None else F.interpolate(pair.mask[None, None].float(), size)[0, 0] > 0.5
    return stretched(pair.degraded, size)[0], restored, stretched(pair.clean, size)[0], mask


def stretched(image: Tensor, size: Sequence[int]) -> Tensor:
    """(3, h, w) -> (1, 3, *size)."""
    return F.interpolate(image[None], tuple(size), mode="bilinear", antialias=True).clamp(0, 1)


def mean_figures(evaluated: Sequence[EvaluatedImage], category: str = ALL) -> dict[str, dict[str, MeanFigure]]:
    """By restorer and figure, over the images of a category."""
    chosen = [image for image in evaluated if category in (ALL, image.category)]
    restorers = dict.fromkeys(name for image in chosen for name in image.figures)
    return {
        name: {figure: _mean([getattr(image.figures[name], figure) for image in chosen]) for figure in FIGURES}
        for name in restorers
    }


def categories_of(evaluated: Sequence[EvaluatedImage]) -> list[str]:
    """The categories of the images, and ALL where there are several."""
    categories = sorted({image.category for image in evaluated})
    return categories + [ALL] * (len(categories) > 1)


def print_table(evaluated: Sequence[EvaluatedImage], title: str) -> None:
    table = Table(title=title, caption="inflated: outside the mask black counts as restored, as the original reads it")
    for header in ("", "restored by", *HEADERS, "images", "with mask"):
        table.add_column(header, justify="left" if header in ("", "restored by") else "right")
    for category in categories_of(evaluated):
        for number, (name, figures) in enumerate(mean_figures(evaluated, category).items()):
            values = [format_mean(figures[figure], 2 if "psnr" in figure else 3) for figure in FIGURES]
            counts = (str(figures["psnr"].count), str(figures["masked_psnr"].count))
            table.add_row("" if number else category, name, *values, *counts)
        table.add_section()
    Console(width=130).print(table)


def write_results(evaluated: Sequence[EvaluatedImage], out: Path, metadata: dict) -> None:
    """results.json with means and every image, categories.csv and images.csv."""
    by_category = {
        category: {name: {figure: mean._asdict() for figure, mean in figures.items()}
                   for name, figures in mean_figures(evaluated, category).items()}
        for category in categories_of(evaluated)
    }  # fmt: skip
    images = [
        {"name": image.name, "category": image.category, "restored_by": name}
        | {figure: _plain(value) for figure, value in figures._asdict().items()}
        for image in evaluated
        for name, figures in image.figures.items()
    ]
    write_json(out / "results.json", {**metadata, "categories": by_category, "images": images})
    rows = [
        {"category": category, "restored_by": name, "images": figures["psnr"]["count"],
         "with_mask": figures["masked_psnr"]["count"]} | {figure: mean["value"] for figure, mean in figures.items()}
        for category, restorers in by_category.items() for name, figures in restorers.items()
    ]  # fmt: skip
    write_whole(out / "categories.csv", _csv(rows))
    write_whole(out / "images.csv", _csv(images))


def format_mean(mean: MeanFigure, digits: int) -> str:
    if mean.value is None:
        return "perfect" if mean.perfect else "n/a"
    return f"{mean.value:.{digits}f}" + (f" and {mean.perfect} perfect" if mean.perfect else "")


def _mean(values: Sequence[float | None]) -> MeanFigure:
    known = [value for value in values if value is not None]
    # One perfect image of infinite PSNR would make every mean infinite: they are counted apart.
    finite = [value for value in known if math.isfinite(value)]
    return MeanFigure(math.fsum(finite) / len(finite) if finite else None, len(known), len(known) - len(finite))


def _plain(value: float | None) -> float | str | None:
    """JSON has no infinity."""
    return "perfect" if value is not None and math.isinf(value) else value


def _csv(rows: Sequence[dict]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "n/a" if value is None else value for name, value in row.items()} for row in rows)
    return text.getvalue().encode()
